from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from panini.consistency import project
from panini.data import resize_batch
from panini.evaluation import ConsistentSystem, input_system, network_system
from panini.evaluation.systems import Weighing, identity_of
from panini.images import to_tensor, to_uint8
from panini.metrics.psnr import stored
from panini.models.fusion import FusionControl
from panini.models.panini_net import PaniniNet, named_config


@pytest.fixture(scope="module")
def net() -> PaniniNet:
    torch.manual_seed(0)
    return PaniniNet.named("tiny").eval()


def test_a_network_is_called_at_its_own_size(net) -> None:
    lq = torch.rand(1, 3, 512, 512) * 2 - 1
    system = network_system(net, "tiny")
    drawn = system(lq)
    assert (system.name, system.in_size, system.task) == ("tiny", 128, None)
    assert drawn.image.shape == (1, 3, 128, 128)
    assert network_system(net, "tiny", size=64)(lq).image.shape == (1, 3, 64, 64)
    assert isinstance(system, Weighing)
    torch.testing.assert_close(drawn.theta, system.theta(lq))


def test_a_network_is_controlled(net) -> None:
    lq = torch.rand(1, 3, 512, 512) * 2 - 1
    leaning = network_system(net, "tiny", control=FusionControl(bias=3.0))
    assert isinstance(leaning, Weighing)
    torch.testing.assert_close(leaning(lq).theta, leaning.theta(lq))
    plain = network_system(net, "tiny")(lq).theta
    assert plain is not None
    assert (leaning.theta(lq) > plain + 0.2).all()


def test_theta_is_not_a_number_where_nothing_is_weighed() -> None:
    tiny = named_config("tiny")
    net = PaniniNet(replace(tiny, fusion=replace(tiny.fusion, method="concat"))).eval()
    system = network_system(net, "concat")
    assert isinstance(system, Weighing)
    assert system.theta(torch.zeros(2, 3, 512, 512)).isnan().tolist() == [True, True]


def test_the_same_tensor_is_drawn_once(net, monkeypatch) -> None:
    calls = []
    forward = net.forward
    monkeypatch.setattr(net, "forward", lambda *a, **k: calls.append(1) or forward(*a, **k))
    system = network_system(net, "tiny")
    consistent = ConsistentSystem(system, "tiny consistent")
    lq = torch.rand(1, 3, 64, 64) * 2 - 1
    drawn, projected = system(lq), consistent(lq)
    assert len(calls) == 1
    torch.testing.assert_close(projected.image, project(drawn.image, lq))
    assert not torch.equal(projected.image, drawn.image)
    assert projected.theta is drawn.theta
    system(lq.clone())
    assert len(calls) == 2
    alone = network_system(net, "c", consistent=True)
    assert (alone.name, alone.in_size, alone.task) == ("c", 128, None)
    torch.testing.assert_close(alone(lq).image, projected.image)


def test_bicubic_is_what_pillow_makes(face) -> None:
    small = face(0)[:64, :64]
    system = input_system("sr16")
    (drawn,) = to_uint8(system(to_tensor(small)).image)
    expected = Image.fromarray(small).resize((1024, 1024), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(drawn, np.asarray(expected))
    lq = torch.rand(1, 3, 512, 512)
    assert input_system("mfr")(lq).image is lq
    assert [input_system(task).name for task in ("mfr", "sr16")] == ["input", "bicubic"]


def test_systems_are_told_apart_by_weights_and_settings(net) -> None:
    torch.manual_seed(1)
    other = PaniniNet.named("tiny").eval()
    identities = [
        identity_of(network_system(net, "a")),
        identity_of(network_system(other, "a")),
        identity_of(network_system(net, "a", size=64)),
        identity_of(network_system(net, "a", control=FusionControl(bias=1.0))),
        identity_of(network_system(net, "a", consistent=True)),
    ]
    assert len(set(identities)) == 5
    assert identity_of(network_system(net, "b")) == identities[0]
    assert identity_of(input_system("mfr")) == "input"


def test_images_are_judged_as_stored(face) -> None:
    image = to_tensor(face(0)) * 1.3 + 0.001
    (written,) = to_uint8(image)
    torch.testing.assert_close(stored(image), to_tensor(written), atol=1e-6, rtol=0)
    assert resize_batch(image, 256) is image
    assert resize_batch(image, 128).shape == (1, 3, 128, 128)
    torch.testing.assert_close(resize_batch(image, 128)[0, 0, 0, 0], image[0, 0, :2, :2].mean())
    assert resize_batch(image, 300).shape == (1, 3, 300, 300)
