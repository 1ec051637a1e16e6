from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from panini.errors import CheckpointError
from panini.features.identity import IdentityNet, chip_window, ffhq_to_chip, load_identity
from panini.images import to_tensor
from panini.shards import iter_shard

GOLDEN = Path(__file__).parents[1] / "golden" / "dlib_identity.npz"
SHARED = Path(__file__).parents[2].parent / "shared"


def random_net(seed=0):
    torch.manual_seed(seed)
    return IdentityNet(width=4)


def foreign_state(network):
    """The network's tensors under the names and in the layout of the file."""
    state = {}
    for key, value in network.state_dict().items():
        if key == "fc.weight":
            state["fc"] = value.T.contiguous()
        elif key.endswith("conv.weight"):
            name = key.replace(".weight", ".filters")
            state[name] = value.permute(2, 3, 1, 0).contiguous()
        else:
            name = key if ".conv.bias" in key else key.replace(".bias", ".scale.biases")
            state[name.replace(".gain", ".scale.weights")] = value
    return state


def test_the_network_has_the_size_of_dlibs():
    network = IdentityNet()
    filters = sum(p.numel() for p in network.parameters() if p.ndim > 1)
    assert filters == 5_603_936
    assert len(network.blocks) == 14
    assert network(torch.zeros(2, 3, 150, 150)).shape == (2, 128)


def test_load_brings_names_and_layout_to_ours(tmp_path):
    network = random_net()
    path = tmp_path / "identity.safetensors"
    save_file(foreign_state(network), path)
    chips = torch.rand(1, 3, 150, 150) * 2 - 1
    torch.testing.assert_close(load_identity(path)(chips), network(chips))


def test_load_names_what_is_wrong(tmp_path):
    path = tmp_path / "identity.safetensors"
    with pytest.raises(CheckpointError, match="no such file"):
        load_identity(path)
    path.write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="not a readable"):
        load_identity(path)
    save_file({"other": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="expected the layers conv32_down"):
        load_identity(path)


def test_only_chips_of_150_px_are_taken():
    with pytest.raises(ValueError, match="cut them with ffhq_to_chip"):
        random_net()(torch.zeros(1, 3, 128, 128))


def test_the_chip_puts_the_eyes_where_dlib_wants_them():
    left, top, side = chip_window()
    eyes = [(192.98, 239.95), (318.90, 240.19)]
    found = [((x / 512 - left) / side * 150, (y / 512 - top) / side * 150) for x, y in eyes]
    for (x, y), (expected_x, expected_y) in zip(found, [(47.8, 47.4), (100.2, 47.4)], strict=True):
        assert abs(x - expected_x) < 1
        assert abs(y - expected_y) < 1


@pytest.mark.parametrize("size", [128, 256, 512])
def test_a_ramp_is_cut_out_exactly(size):
    ramp = ((torch.arange(size) + 0.5) / size).expand(1, 3, size, size)
    left, top, side = chip_window()
    steps = (torch.arange(150) + 0.5) / 150 * side
    chip = ffhq_to_chip(ramp)
    torch.testing.assert_close(chip[0, 0, 75], left + steps, atol=5e-4, rtol=0)
    chip = ffhq_to_chip(ramp.transpose(2, 3))
    torch.testing.assert_close(chip[0, 0, :, 75], top + steps, atol=5e-4, rtol=0)


def test_a_large_face_does_not_alias_in_the_chip():
    stripes = (torch.arange(1024) % 2 * 2.0 - 1).expand(1, 3, 1024, 1024)
    assert ffhq_to_chip(stripes).abs().max() < 0.1


def test_the_gradient_reaches_the_image():
    images = torch.rand(1, 3, 64, 64, requires_grad=True)
    random_net().describe(images).sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


def test_rectangles_are_refused():
    with pytest.raises(ValueError, match="square"):
        ffhq_to_chip(torch.zeros(1, 3, 64, 32))


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the weights of the face descriptor")
def test_descriptors_are_those_of_dlibs_own_network():
    network = load_identity(SHARED / "models" / "face_identity.safetensors")
    golden = np.load(GOLDEN)
    descriptor = network(to_tensor(golden["chip"]))[0].numpy()
    # The file holds weights of 8 bits, at 0.04 from dlib's; with dlib's own, we are at 2e-6.
    assert np.linalg.norm(descriptor - golden["descriptor"]) < 0.05
    # dlib finds the face, its landmarks and its chip in another way: it is the same person.
    assert np.linalg.norm(descriptor - golden["own"]) < 0.3
    assert np.linalg.norm(golden["descriptor"]) == pytest.approx(1.455, abs=0.01)


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared networks and faces")
def test_real_weights_know_a_person_again():
    network = load_identity(SHARED / "models" / "face_identity.safetensors")
    shard = iter_shard(SHARED / "data" / "celebahq-val-1024-000.tar")
    faces = torch.stack([torch.from_numpy(next(shard)[1]) for _ in range(8)])
    faces = F.interpolate(faces.permute(0, 3, 1, 2) / 127.5 - 1, size=256, mode="area")
    coarse = F.interpolate(F.avg_pool2d(faces, 4), size=256, mode="bilinear")
    truth, seen = network.describe(faces), network.describe(coarse)
    same = (truth - seen).norm(dim=1)
    others = torch.pdist(truth)
    print(f"same face at 64 px: {same.mean():.3f}, other faces: {others.mean():.3f}")
    assert same.max() < 0.45
    assert others.min() > same.max()
    assert (others > 0.6).float().mean() > 0.9


def test_a_chip_cut_in_inference_mode_leaves_later_ones_differentiable():
    with torch.inference_mode():
        ffhq_to_chip(torch.zeros(1, 3, 97, 97))
    face = torch.zeros(1, 3, 97, 97, requires_grad=True)
    ffhq_to_chip(face).sum().backward()
    assert face.grad is not None
