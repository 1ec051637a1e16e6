from __future__ import annotations

import math

import pytest
import torch

from panini.errors import CheckpointError, ConfigError
from panini.features.alexnet import AlexNet
from panini.features.identity import IdentityNet
from panini.features.vgg16 import VGG16
from panini.metrics import DESCRIPTIONS
from panini.metrics.identity import identity_distance
from panini.metrics.judge import (
    DEFAULT_METRICS,
    LPIPS_KINDS,
    METRICS,
    Judge,
    Scores,
    load_judge,
)
from panini.metrics.landmarks import LandmarkJudge
from panini.metrics.lpips import LPIPS
from panini.metrics.ms_ssim import ms_ssim
from panini.metrics.psnr import psnr, psnr_peak1
from panini.metrics.sharpness import sharpness
from panini.metrics.ssim import ssim
from panini.metrics.weights import FILES

VGG_WIDTHS = (2, 2, 2, 2, 2)
VGG_LAYERS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
ALEX_LAYERS = (0, 3, 6, 8, 10)


def small_lpips():
    torch.manual_seed(0)
    return LPIPS(VGG16(VGG_WIDTHS), [torch.rand(2) for _ in VGG_WIDTHS])


def small_identity():
    torch.manual_seed(1)
    return IdentityNet(width=2)


def faces(seed=0, size=176, count=2):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, size, size, generator=generator) * 2 - 1


def write(folder, *, vgg=False, alex=False):
    """Light networks in the files and under the names of torchvision and LPIPS."""
    torch.manual_seed(2)
    for wanted, network, layers, name in (
        (vgg, VGG16(VGG_WIDTHS), VGG_LAYERS, "vgg16-397923af.pth"),
        (alex, AlexNet(VGG_WIDTHS), ALEX_LAYERS, "alexnet-owt-7be5be79.pth"),
    ):
        if not wanted:
            continue
        tensors = list(network.state_dict().values())
        keys = [f"features.{layer}.{kind}" for layer in layers for kind in ("weight", "bias")]
        torch.save(dict(zip(keys, tensors, strict=True)), folder / name)
    heads = {f"lin{index}.model.1.weight": torch.rand(1, 2, 1, 1) for index in range(5)}
    torch.save(heads, folder / "vgg.pth")
    torch.save(heads, folder / "alex.pth")


def test_every_metric_is_the_function_of_its_name():
    lpips, identity = small_lpips(), small_identity()
    judge = Judge(lpips, identity, LandmarkJudge(), metrics=METRICS)
    gt, images = faces(), faces(1)
    expected = {
        "psnr": psnr(images, gt),
        "psnr_peak1": psnr_peak1(images, gt),
        "ssim": ssim(images, gt),
        "ms_ssim": ms_ssim(images, gt),
        "lpips": lpips(images, gt),
        "identity": identity_distance(identity, images, gt),
        "landmarks": torch.full((2,), math.nan),
        "sharpness": sharpness(images),
    }
    same, other = judge(gt, gt, images)
    assert tuple(expected) == METRICS
    for name, values in expected.items():
        found = torch.tensor([getattr(score, name) for score in other])
        torch.testing.assert_close(found, values, equal_nan=True)
    assert same[0].psnr == same[0].psnr_peak1 == 100
    assert same[0].lpips == same[0].identity == 0


def test_only_what_is_asked_for_is_computed():
    judge = Judge(small_lpips(), small_identity(), metrics=["ssim", "psnr"])
    judge.lpips.register_forward_hook(pytest.fail)
    judge.identity.register_forward_hook(pytest.fail)
    ((score,),) = judge(faces(count=1), faces(1, count=1))
    assert judge.metrics == ("psnr", "ssim")
    known = {name for name in METRICS if not math.isnan(getattr(score, name))}
    assert known == {"psnr", "ssim"}


def test_the_default_is_what_a_training_asks_for_at_every_validation():
    judge = Judge(small_lpips(), small_identity())
    assert judge.metrics == DEFAULT_METRICS
    ((score,),) = judge(faces(size=64, count=1), faces(1, size=64, count=1))
    assert math.isnan(score.ms_ssim)
    assert not any(math.isnan(getattr(score, name)) for name in DEFAULT_METRICS)
    assert Judge().metrics == ("psnr", "ssim", "sharpness")


def test_a_metric_without_its_network_is_refused():
    with pytest.raises(ValueError, match="no metric 'lpips' with these networks"):
        Judge(metrics=["lpips"])
    with pytest.raises(ValueError, match="without LPIPS"):
        _ = Judge().lpips
    with pytest.raises(ValueError, match="without the face descriptor"):
        _ = Judge().identity


def test_networks_are_told_apart_by_their_weights():
    lpips, identity = small_lpips(), small_identity()
    known = Judge(lpips, identity, metrics=["psnr", "lpips", "identity"]).weights
    assert set(known) == {"lpips", "identity"}
    assert len(set(known.values())) == 2
    assert Judge(lpips, identity, metrics=["lpips"]).weights == {"lpips": known["lpips"]}
    # A weight, a head, and a buffer that no file holds.
    for tensor in (next(lpips.network.parameters()), lpips.get_buffer("head0"), identity.mean):
        before = Judge(lpips, identity).weights
        with torch.no_grad():
            tensor[0] += 1
        assert Judge(lpips, identity).weights != before


def test_metrics_without_networks_need_no_folder(tmp_path):
    judge = load_judge(tmp_path / "nowhere", metrics=["ms_ssim", "psnr_peak1", "landmarks"])
    assert judge.metrics == ("psnr_peak1", "ms_ssim", "landmarks")
    assert judge.device.type == "cpu"


@pytest.mark.parametrize(
    ("asked", "files", "name"),
    [
        ("lpips", {"vgg": True, "alex": True}, "lpips_vgg"),
        ("lpips", {"alex": True}, "lpips_alex"),
        ("lpips_alex", {"vgg": True, "alex": True}, "lpips_alex"),
        ("lpips_vgg", {"vgg": True, "alex": True}, "lpips_vgg"),
    ],
)
def test_the_kind_of_lpips_is_told(tmp_path, asked, files, name):
    write(tmp_path, **files)
    judge = load_judge(tmp_path, metrics=["psnr", asked])
    assert judge.metrics == ("psnr", "lpips")
    assert judge.names == {"psnr": "psnr", "lpips": name}
    ((score,),) = judge(faces(count=1), faces(1, count=1))
    assert score.lpips > 0


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("lpips", r"vgg16_caffe\.safetensors: no such file; lpips needs Caffe's.*--metrics-dir"),
        ("lpips_vgg", r"vgg16-397923af\.pth: no such file; lpips_vgg needs torchvision's VGG-16"),
        ("lpips_vgg_caffe", r"vgg16_caffe\.safetensors: no such file; lpips_vgg_caffe needs"),
        ("lpips_alex", r"alexnet-owt-7be5be79\.pth.*lpips_alex.*download\.pytorch\.org"),
        ("identity", r"face_identity\.safetensors: no such file; identity needs the face desc"),
    ],
)
def test_missing_weights_are_named_with_the_metric_and_the_remedy(tmp_path, metric, message):
    with pytest.raises(CheckpointError, match=message):
        load_judge(tmp_path, metrics=[metric])


def test_missing_weights_are_named_with_the_folder_and_their_source(tmp_path):
    with pytest.raises(CheckpointError) as found:
        load_judge(tmp_path, metrics=["lpips"])
    text = str(found.value)
    assert text.startswith(f"{tmp_path / 'vgg16_caffe.safetensors'}: no such file; lpips needs")
    assert "in safetensors with the metadata preprocess=caffe" in text
    assert "or torchvision's VGG-16 (vgg16-397923af.pth from download.pytorch.org/models)" in text
    with pytest.raises(CheckpointError, match=r"identity needs .*dlib's face recognition ResNet"):
        load_judge(tmp_path, metrics=["identity"])
    with pytest.raises(CheckpointError, match=r"none/vgg16.*no such file, and no such folder; lp"):
        load_judge(tmp_path / "none", metrics=["lpips"])


def test_without_a_folder_none_is_searched(tmp_path, monkeypatch):
    write(tmp_path, vgg=True)
    monkeypatch.chdir(tmp_path)
    for folder in (None, ""):
        with pytest.raises(CheckpointError, match=r"^vgg16_caffe\.safetensors: no folder to look"):
            load_judge(folder, metrics=["lpips"])
    with pytest.raises(CheckpointError, match=r"give the folder that holds it with --metrics-dir"):
        load_judge(None, metrics=["identity"])
    assert all(file.source for file in FILES.values())
    assert load_judge(None, metrics=["psnr"]).metrics == ("psnr",)


def test_missing_heads_are_named(tmp_path):
    write(tmp_path, vgg=True)
    (tmp_path / "vgg.pth").unlink()
    with pytest.raises(CheckpointError, match=r"lpips_vgg_heads\.safetensors.*vgg\.pth from"):
        load_judge(tmp_path, metrics=["lpips"])


def test_an_unknown_metric_is_answered_with_those_known(tmp_path):
    with pytest.raises(ConfigError, match=r"metric 'lpipz': not known; known: psnr, .*lpips_alex"):
        load_judge(tmp_path, metrics=["psnr", "lpipz"])
    with pytest.raises(ConfigError, match="lpips_alex and lpips_vgg: expected one kind"):
        load_judge(tmp_path, metrics=["lpips_vgg", "lpips_alex"])


def test_every_metric_is_described():
    assert {*METRICS, *LPIPS_KINDS} <= DESCRIPTIONS.keys()
    assert all(found.label for found in DESCRIPTIONS.values())
    assert DESCRIPTIONS["psnr"].better == "higher"
    assert DESCRIPTIONS["lpips_alex"].better == "lower"
    assert Scores().psnr != Scores().psnr
