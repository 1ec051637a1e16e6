from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from panini.errors import CheckpointError
from panini.features.alexnet import AlexNet
from panini.features.vgg16 import VGG16
from panini.metrics.lpips import LPIPS, load_lpips

SHARED = Path(__file__).parents[2].parent / "shared" / "models"
WIDTHS = (4, 4, 6, 6, 8)


def random_lpips(preparation="caffe"):
    torch.manual_seed(0)
    return LPIPS(VGG16(WIDTHS, preparation=preparation), [torch.rand(width) for width in WIDTHS])


def noisy(image, spread, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return image + spread * torch.randn(image.shape, generator=generator)


def test_equal_images_are_at_distance_zero_and_noise_moves_them_apart():
    lpips = random_lpips()
    gt = torch.rand(2, 3, 32, 32) * 2 - 1
    distances = torch.stack([lpips(noisy(gt, spread), gt) for spread in (0, 0.05, 0.2, 0.8)])
    assert distances.shape == (4, 2)
    assert (distances[0] == 0).all()
    assert (distances.diff(dim=0) > 0).all()


def test_it_is_the_formula_of_the_paper():
    lpips = random_lpips()
    x, y = torch.rand(2, 1, 3, 32, 32) * 2 - 1
    taps = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")
    found_x, found_y = lpips.network(x, taps), lpips.network(y, taps)
    expected = 0.0
    for index, tap in enumerate(taps):
        a, b = (
            f[tap] / f[tap].norm(dim=1, keepdim=True).clamp(min=1e-9) for f in (found_x, found_y)
        )
        head = lpips.get_buffer(f"head{index}").flatten()
        expected += torch.einsum("nchw,c->nhw", (a - b) ** 2, head).mean().item()
    assert lpips(x, y).item() == pytest.approx(expected, rel=1e-4)


def test_it_is_a_loss():
    lpips = random_lpips()
    gt = torch.rand(1, 3, 32, 32) * 2 - 1
    image = noisy(gt, 0.3).requires_grad_()
    before = lpips(image, gt)
    (gradient,) = torch.autograd.grad(before.sum(), image)
    assert torch.isfinite(gradient).all()
    after = lpips(image - 0.05 * gradient / gradient.abs().max(), gt)
    assert after < before
    assert not any(p.requires_grad for p in lpips.parameters())


def test_features_of_the_truth_can_be_used_again():
    lpips = random_lpips()
    x, y = torch.rand(2, 2, 3, 32, 32) * 2 - 1
    torch.testing.assert_close(lpips.distance(lpips.features(x), lpips.features(y)), lpips(x, y))


def test_the_name_tells_the_weights():
    assert random_lpips("caffe").name == "lpips_vgg_caffe"
    assert random_lpips("torchvision").name == "lpips_vgg"


def test_heads_must_fit_the_network():
    with pytest.raises(ValueError, match="expected heads of lengths"):
        LPIPS(VGG16(WIDTHS), [torch.rand(3)] * 5)


def test_load_names_what_is_wrong(tmp_path):
    vgg, heads = tmp_path / "vgg.safetensors", tmp_path / "heads.safetensors"
    save_file(VGG16(WIDTHS).state_dict(), vgg, {"preprocess": "caffe"})
    with pytest.raises(CheckpointError, match=r"heads\.safetensors: no such file"):
        load_lpips(vgg, heads)
    save_file({f"lin{index}.weight": torch.rand(1, 3, 1, 1) for index in range(5)}, heads)
    with pytest.raises(CheckpointError, match="expected heads of lengths"):
        load_lpips(vgg, heads)
    save_file({"other": torch.rand(1)}, heads)
    with pytest.raises(CheckpointError, match=r"expected lin0\.weight.*found other"):
        load_lpips(vgg, heads)
    heads.write_bytes(b"?")
    with pytest.raises(CheckpointError, match=r"heads\.safetensors: refused"):
        load_lpips(vgg, heads)


def torchvision_layers(kind):
    """The `features` of torchvision's network, which is not needed, with random weights."""
    torch.manual_seed(0)
    widths = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512)
    layers, channels = [], 3
    if kind == "vgg":
        for width in widths:
            if width:
                layers += [torch.nn.Conv2d(channels, width, 3, padding=1), torch.nn.ReLU()]
                channels = width
            else:
                layers.append(torch.nn.MaxPool2d(2))
    else:
        for width, kernel, stride, padding, pooled in (
            (64, 11, 4, 2, True),
            (192, 5, 1, 2, True),
            (384, 3, 1, 1, False),
            (256, 3, 1, 1, False),
            (256, 3, 1, 1, True),
        ):
            layers += [torch.nn.Conv2d(channels, width, kernel, stride, padding), torch.nn.ReLU()]
            layers += [torch.nn.MaxPool2d(3, 2)] * pooled
            channels = width
    for layer in layers:
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight)
            torch.nn.init.normal_(layer.bias, std=0.1)
    return torch.nn.Sequential(*layers)


@pytest.mark.parametrize("kind", ["vgg", "alex"])
def test_the_official_files_give_the_official_distance(kind, tmp_path, monkeypatch):
    theirs = pytest.importorskip("torchmetrics.functional.image.lpips")
    layers = torchvision_layers(kind)
    monkeypatch.setattr(theirs, "_get_tv_model_features", lambda *_: layers)
    path = tmp_path / "network.pth"
    state = {f"features.{name}": value for name, value in layers.state_dict().items()}
    # torchvision's VGG-16 is a file of 2017.
    torch.save(state, path, _use_new_zipfile_serialization=kind == "alex")
    ours = load_lpips(path, Path(theirs.__file__).parent / "lpips_models" / f"{kind}.pth")
    assert ours.name == f"lpips_{kind}"
    x, y = torch.rand(2, 2, 3, 64, 72) * 2 - 1
    expected = theirs._LPIPS(net=kind)(x, y).flatten()
    torch.testing.assert_close(ours(x, y), expected, rtol=1e-4, atol=1e-6)


def test_alexnet_is_a_loss_too():
    torch.manual_seed(0)
    lpips = LPIPS(AlexNet(WIDTHS), [torch.rand(width) for width in WIDTHS])
    gt = torch.rand(1, 3, 63, 63) * 2 - 1
    image = noisy(gt, 0.3).requires_grad_()
    (gradient,) = torch.autograd.grad(lpips(image, gt).sum(), image)
    assert gradient.abs().sum() > 0
    assert not any(p.requires_grad for p in lpips.parameters())


def test_a_file_of_another_network_is_refused(tmp_path):
    path, heads = tmp_path / "network.pth", tmp_path / "heads.safetensors"
    torch.save({"features.0.weight": torch.zeros(4, 3, 3, 3)}, path)
    with pytest.raises(CheckpointError, match=r"network\.pth: expected torchvision's AlexNet"):
        load_lpips(path, heads)
    torch.save({"features.28.weight": torch.zeros(4, 3, 3, 3)}, path)
    with pytest.raises(CheckpointError, match=r"network\.pth: expected the 13 convolutions"):
        load_lpips(path, heads)


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared frozen networks")
def test_real_weights_rank_damage():
    data = pytest.importorskip("skimage.data")
    lpips = load_lpips(SHARED / "vgg16_caffe.safetensors", SHARED / "lpips_vgg_heads.safetensors")
    gt = torch.from_numpy(data.astronaut()[:128, 160:288].copy()).permute(2, 0, 1)[None] / 127.5 - 1
    distances = [lpips(noisy(gt, spread), gt).item() for spread in (0, 0.02, 0.1, 0.5)]
    print(f"lpips_vgg_caffe under noise of 0, .02, .1, .5: {distances}")
    assert distances[0] == 0
    assert 0 < distances[1] < distances[2] < distances[3] < 2
