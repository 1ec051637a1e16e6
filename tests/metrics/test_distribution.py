from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from panini.errors import CheckpointError
from panini.features.inception import FidInception
from panini.features.vgg16 import VGG16
from panini.metrics.distribution import (
    FeatureNetwork,
    frechet_distance,
    kernel_distance,
    load_feature_network,
    spread,
)
from panini.metrics.weights import read_tensors

WIDTHS = (2, 2, 3, 3, 4)


def sets(counts=(300, 200), width=16):
    generator = np.random.default_rng(0)
    mixing = generator.normal(size=(width, width))
    a, b = (generator.normal(size=(count, width)) for count in counts)
    return a @ mixing, 1.3 * b @ mixing + 0.4


@pytest.mark.parametrize("counts", [(300, 200), (10, 40), (9, 12)])
def test_frechet_agrees_with_torchmetrics(counts):
    fid = pytest.importorskip("torchmetrics.image.fid")
    a, b = sets(counts)
    moments = [torch.from_numpy(x) for y in (a, b) for x in (y.mean(0), np.cov(y.T))]
    expected = fid._compute_fid(*moments).item()
    # A root of the product of two matrices of low rank is known to half the digits.
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-5)


def test_frechet_agrees_with_the_root_of_a_matrix():
    linalg = pytest.importorskip("scipy.linalg")
    a, b = sets()
    root = linalg.sqrtm(np.cov(a.T) @ np.cov(b.T)).real
    spread = np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + spread
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-8)


def test_frechet_of_one_feature_is_that_of_two_bells():
    a, b = np.array([[0.0], [2.0]]), np.array([[1.0], [2.0], [3.0], [10.0]])
    expected = (1 - 4) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2
    assert frechet_distance(a, b) == pytest.approx(expected)


def test_a_set_is_at_no_distance_from_itself():
    a, b = sets()
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a))


def test_kernel_agrees_with_torchmetrics():
    kid = pytest.importorskip("torchmetrics.image.kid")
    a, b = sets((30, 30))
    expected = kid.poly_mmd(torch.from_numpy(a), torch.from_numpy(b)).item()
    found = kernel_distance(a, b, subsets=3, size=30)
    assert found.mean == pytest.approx(expected, rel=1e-9)
    # All is drawn each time.
    assert found.deviation == pytest.approx(0, abs=1e-9)


def test_kernel_by_hand():
    a, b = np.array([[1.0], [2.0]]), np.array([[0.0], [3.0]])
    within = (3**3) + (1**3)
    across = (1**3 + 4**3 + 1**3 + 7**3) / 4
    assert kernel_distance(a, b, subsets=1, size=2).mean == pytest.approx(within - 2 * across)


def test_kernel_is_unbiased_and_can_be_made_again():
    generator = np.random.default_rng(1)
    a, b = generator.normal(size=(2, 400, 6))
    found = kernel_distance(a, b, seed=5)
    assert abs(found.mean) < found.deviation
    assert found == kernel_distance(a, b, seed=5)
    assert found != kernel_distance(a, b, seed=6)
    assert kernel_distance(a + 1, b).mean > 10 * found.deviation


def kernel_of_all(a, b):
    return kernel_distance(a, b, subsets=1, size=len(a)).mean


@pytest.mark.parametrize("distance", [frechet_distance, kernel_of_all])
def test_the_spread_is_that_over_other_faces(distance):
    generator = np.random.default_rng(2)

    def faces():
        true = generator.normal(size=(80, 4))
        return 1.2 * true + generator.normal(size=(80, 4)) + 0.3, true

    drawn = [faces() for _ in range(60)]
    expected = np.std([distance(*pair) for pair in drawn])
    found = np.mean([spread(distance, *pair) for pair in drawn[:20]])
    assert found == pytest.approx(expected, rel=0.35)


def test_the_spread_can_be_made_again():
    a, b = sets((40, 40))
    assert spread(frechet_distance, a, b, seed=1) == spread(frechet_distance, a, b, seed=1)
    assert spread(frechet_distance, a, b, seed=1) != spread(frechet_distance, a, b, seed=2)
    assert spread(frechet_distance, a, a) == pytest.approx(0, abs=1e-9)
    assert np.isnan(spread(frechet_distance, a[:3], b[:3]))
    with pytest.raises(ValueError, match=r"the same faces in both sets, got \(40, 16\) and"):
        spread(frechet_distance, a, b[:30])


def test_large_sets_are_halved_less_often():
    calls = []
    for count in (10, 1000, 5000):
        sizes = []
        spread(lambda a, b, own=sizes: own.append(len(a)) or 0.0, *np.zeros((2, count, 1)))
        calls.append((len(sizes), set(sizes)))
    assert calls == [(100, {5}), (20, {500}), (20, {2500})]


def test_sets_that_cannot_be_compared_are_refused():
    for distance in (frechet_distance, kernel_distance):
        with pytest.raises(ValueError, match="at least two images"):
            distance(np.zeros((1, 4)), np.zeros((5, 4)))
        with pytest.raises(ValueError, match=r"got \(3, 4\) and \(3, 5\)"):
            distance(np.zeros((3, 4)), np.zeros((3, 5)))
    with pytest.raises(ValueError, match="subsets of 2 to 3 images, got 4"):
        kernel_distance(np.zeros((3, 4)), np.zeros((5, 4)), size=4)


def test_features_are_those_of_stored_images():
    network = FeatureNetwork("mean", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    images = torch.rand(2, 3, 8, 8) * 2.2 - 1.1
    stored = ((images + 1) * 127.5).clamp(0, 255).round().byte()
    features = network(images)
    assert features.dtype == np.float64
    np.testing.assert_array_equal(features, network(stored))
    expected = stored.float().mean(dim=(2, 3)).numpy() / 127.5 - 1
    np.testing.assert_allclose(features, expected, atol=1e-6)


def test_caffes_vgg_stands_in_under_its_own_name(tmp_path):
    torch.manual_seed(0)
    vgg = VGG16(WIDTHS)
    save_file(vgg.state_dict(), tmp_path / "vgg16_caffe.safetensors", {"preprocess": "caffe"})
    network = load_feature_network(tmp_path)
    assert network.name == "vgg16_caffe"
    images = (torch.randint(256, (2, 3, 224, 224)) / 127.5 - 1).float()
    expected = vgg(images, ["relu5_3"])["relu5_3"].mean(dim=(2, 3))
    np.testing.assert_allclose(network(images), expected.numpy(), rtol=1e-4)


def test_the_official_inception_is_taken_where_it_is(tmp_path):
    torch.manual_seed(0)
    inception = FidInception()
    path = tmp_path / "pt_inception-2015-12-05-6726825d.pth"
    torch.save(inception.state_dict(), path)
    (tmp_path / "inception-2015-12-05.pkl").write_bytes(b"\x80\x04a program of NVIDIA's")
    network = load_feature_network(tmp_path)
    assert network.name == "inception"
    images = torch.full((1, 3, 32, 32), 127, dtype=torch.uint8)
    expected = inception(images / 127.5 - 1)
    np.testing.assert_allclose(network(images), expected.numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["inception-2015-12-05.pkl", "vgg16-397923af.pth"])
def test_a_file_that_holds_no_weights_says_what_to_take(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x80\x04a program of NVIDIA's")
    source = {"inc": "pt_inception-2015-12-05-6726825d.pth from", "vgg": "vgg16-397923af.pth from"}
    with pytest.raises(CheckpointError, match=rf"{name}: .*; take {source[name[:3]]}"):
        read_tensors(tmp_path / name)


def test_a_folder_without_a_network_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"vgg16_caffe.*: no such file.*fid or kid"):
        load_feature_network(tmp_path)
    with pytest.raises(CheckpointError, match=r"no folder to look in.*or the official Inception"):
        load_feature_network(None)


def test_a_program_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("run",))

    torch.save({"weights": Evil()}, tmp_path / "pt_inception-2015-12-05-6726825d.pth")
    with pytest.raises(CheckpointError, match=r"6726825d\.pth: refused"):
        load_feature_network(tmp_path)
