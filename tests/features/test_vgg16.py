from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from panini.errors import CheckpointError
from panini.features.vgg16 import VGG16, load_vgg16

SHARED = Path(__file__).parents[2].parent / "shared" / "models"
WIDTHS = (4, 4, 6, 6, 8)
CAFFE = {"preprocess": "x: RGB in [0,1]; y = x.flip(1)*255 - (103.939,116.779,123.68)"}


def random_vgg(preparation="caffe", seed=0):
    torch.manual_seed(seed)
    return VGG16(WIDTHS, preparation=preparation)


def test_all_thirteen_convolutions_have_the_shapes_of_vgg16():
    network = VGG16()
    assert sum(p.numel() for p in network.parameters()) == 14_714_688
    assert len(network.layers) == 13
    assert not any(p.requires_grad for p in network.parameters())


def test_taps_have_the_resolution_of_their_block():
    x = torch.rand(2, 3, 32, 48) * 2 - 1
    found = random_vgg()(x, ["relu5_3", "relu1_2", "conv4_3"])
    assert list(found) == ["relu5_3", "relu1_2", "conv4_3"]
    assert found["relu1_2"].shape == (2, 4, 32, 48)
    assert found["conv4_3"].shape == (2, 6, 4, 6)
    assert found["relu5_3"].shape == (2, 8, 2, 3)


def test_a_tap_before_the_relu_is_not_spoilt_by_it():
    x = torch.rand(1, 3, 32, 32) * 2 - 1
    found = random_vgg()(x, ["conv2_1", "relu2_1", "conv3_1"])
    assert found["conv2_1"].min() < 0
    torch.testing.assert_close(found["relu2_1"], found["conv2_1"].relu())


def test_nothing_behind_the_last_tap_is_computed():
    network = random_vgg()
    calls = []
    for name, layer in network.named_children():
        layer.register_forward_hook(lambda *_, name=name: calls.append(name))
    network(torch.zeros(1, 3, 16, 16), ["relu2_1"])
    assert calls == ["conv1_1", "conv1_2", "conv2_1"]


def test_caffe_weights_see_bgr_levels_minus_the_mean():
    red = torch.tensor([1.0, -1.0, -1.0]).view(1, 3, 1, 1)
    prepared = random_vgg("caffe").prepare(red).flatten()
    torch.testing.assert_close(prepared, torch.tensor([-103.939, -116.779, 255 - 123.68]))


def test_torchvision_weights_see_rgb_with_imagenet_statistics():
    red = torch.tensor([1.0, -1.0, -1.0]).view(1, 3, 1, 1)
    prepared = random_vgg("torchvision").prepare(red).flatten()
    expected = torch.tensor([(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225])
    torch.testing.assert_close(prepared, expected)


def test_contrast_is_the_ratio_of_the_inputs_ranges():
    caffe, torchvision = random_vgg("caffe"), random_vgg("torchvision")
    assert torchvision.contrast == pytest.approx(1.0)
    assert caffe.contrast == pytest.approx(57.6, abs=0.1)
    black, white = torch.full((1, 3, 1, 1), -1.0), torch.ones(1, 3, 1, 1)
    ranges = [(net.prepare(white) - net.prepare(black)).mean() for net in (caffe, torchvision)]
    assert (ranges[0] / ranges[1]).item() == pytest.approx(caffe.contrast, rel=0.01)


def test_forward_is_the_plain_chain_of_convolutions_and_pools():
    network = random_vgg()
    x = torch.rand(1, 3, 16, 16) * 2 - 1
    y = network.prepare(x)
    for name in network.layers[:4]:
        y = F.max_pool2d(y, 2) if name == "conv2_1" else y
        y = F.conv2d(y, *network.get_submodule(name).parameters(), padding=1).relu()
    torch.testing.assert_close(network(x, ["relu2_2"])["relu2_2"], y)


def test_the_gradient_reaches_the_image():
    x = torch.zeros(1, 3, 32, 32, requires_grad=True)
    random_vgg()(x, ["conv4_3"])["conv4_3"].sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


def test_bf16_autocast_changes_little():
    x = torch.rand(1, 3, 32, 32) * 2 - 1
    network = random_vgg()
    exact = network(x, ["relu3_3"])["relu3_3"]
    with torch.autocast("cpu", torch.bfloat16):
        quick = network(x, ["relu3_3"])["relu3_3"]
    assert (quick.float() - exact).norm() < 0.03 * exact.norm()


def test_an_unknown_tap_is_refused():
    with pytest.raises(ValueError, match="no layer 'relu6_1'"):
        random_vgg()(torch.zeros(1, 3, 16, 16), ["relu6_1"])


@pytest.mark.parametrize(
    ("metadata", "preparation"),
    [
        (CAFFE, "caffe"),
        ({"preprocess": "mean (0.485, 0.456, 0.406), std (0.229, 0.224, 0.225)"}, "torchvision"),
        ({"preprocess": "torchvision"}, "torchvision"),
    ],
)
def test_load_tells_the_two_kinds_of_weights_apart(tmp_path, metadata, preparation):
    network = random_vgg()
    path = tmp_path / "vgg.safetensors"
    save_file({key: value.half() for key, value in network.state_dict().items()}, path, metadata)
    loaded = load_vgg16(path)
    assert loaded.preparation == preparation
    assert loaded.widths == WIDTHS
    assert loaded.conv1_1.weight.dtype == torch.float32
    torch.testing.assert_close(loaded.conv5_3.bias, network.conv5_3.bias, atol=1e-3, rtol=1e-3)


def test_load_names_what_is_wrong(tmp_path):
    path = tmp_path / "vgg.safetensors"
    with pytest.raises(CheckpointError, match="no such file"):
        load_vgg16(path)
    path.write_bytes(b"not a safetensors file")
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        load_vgg16(path)
    state = random_vgg().state_dict()
    save_file(state, path)
    with pytest.raises(CheckpointError, match="do not say how the input is prepared"):
        load_vgg16(path)
    del state["conv3_2.bias"]
    save_file(state, path, CAFFE)
    with pytest.raises(CheckpointError, match=r"13 convolutions.*conv3_2\.bias"):
        load_vgg16(path)


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared frozen networks")
def test_real_weights_answer_to_a_picture():
    network = load_vgg16(SHARED / "vgg16_caffe.safetensors")
    assert network.preparation == "caffe"
    data = pytest.importorskip("skimage.data")
    face = torch.from_numpy(data.astronaut()[:128, 160:288].copy()).permute(2, 0, 1)[None]
    found = network(face / 127.5 - 1, ["relu1_2", "relu5_3"])
    # The mean activation falls by two orders from the first block to the last.
    assert 50 < found["relu1_2"].mean() < 250
    assert 0.2 < found["relu5_3"].mean() < 2
