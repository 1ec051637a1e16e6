"""Weights of other restorers, against a stand-in with spandrel's interface (0.4)."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from panini.errors import CheckpointError, MissingExtraError
from panini.evaluation import System
from panini.peers import load_peer


class UnsupportedModelError(Exception):
    pass


class Network(nn.Conv2d):
    """Gives the image and something else, as GFP-GAN does, and draws noise as it does."""

    def forward(self, image: Tensor) -> tuple[Tensor, None]:
        return super().forward(image) + 0.01 * torch.randn(image.shape), None


class ModelBase:
    def __init__(
        self, state: dict[str, Tensor], kind: str, channels: int = 3, scale: int = 1
    ) -> None:
        self.model = Network(3, 3, 1)
        self.model.load_state_dict(state)
        self.architecture = SimpleNamespace(id=kind, name=kind)
        self.input_channels, self.output_channels = channels, 3
        self.scale = scale
        self.seen: list[Tensor] = []

    def eval(self) -> ModelBase:
        self.model.eval()
        return self

    def __call__(self, image: Tensor) -> Tensor:
        assert image.shape[0] == 1
        self.seen.append(image)
        out = self.model(image)[0].clamp(0, 1)
        return out.repeat_interleave(self.scale, 2).repeat_interleave(self.scale, 3)


class ImageModelDescriptor(ModelBase):
    pass


class MaskedImageModelDescriptor(ModelBase):
    pass


class ModelLoader:
    """Knows networks by their keys."""

    def __init__(self, device: torch.device) -> None:
        assert isinstance(device, torch.device)

    def load_from_state_dict(self, state: dict) -> ModelBase:
        state = state.get("params_ema", state)
        marks = {name: state.pop(name) for name in list(state) if name.startswith("mark_")}
        if "weight" not in state:
            raise UnsupportedModelError
        kind = "GFPGAN" if "mark_gfpgan" in marks else "Standin"
        if "mark_masked" in marks:
            return MaskedImageModelDescriptor(state, kind)
        channels = 1 if "mark_grey" in marks else 3
        return ImageModelDescriptor(state, kind, channels, scale=2 if "mark_large" in marks else 1)


@pytest.fixture
def spandrel(monkeypatch) -> ModuleType:
    module = ModuleType("spandrel")
    for kind in (
        *(UnsupportedModelError, ImageModelDescriptor, MaskedImageModelDescriptor, ModelLoader),
    ):
        setattr(module, kind.__name__, kind)
    monkeypatch.setitem(sys.modules, "spandrel", module)
    monkeypatch.setitem(sys.modules, "spandrel_extra_arches", None)
    return module


def weights(**more: Tensor) -> dict[str, Tensor]:
    identity = torch.eye(3).reshape(3, 3, 1, 1)
    return {"weight": identity, "bias": torch.full((3,), 0.25), **more}


def saved(folder: Path, content: object, name: str = "GFPGANv1.4.pth") -> Path:
    path = folder / name
    torch.save(content, path)
    return path


def test_faces_go_in_and_out_in_our_range(spandrel, tmp_path) -> None:
    system: System = load_peer(saved(tmp_path, {"params_ema": weights()}))
    assert (system.name, system.task, system.in_size) == ("GFPGANv1.4", None, 512)
    lq = torch.full((2, 3, 512, 512), -0.5)  # 0.25 in spandrel's range
    drawn = system(lq)
    assert drawn.theta is None
    assert drawn.image.shape == (2, 3, 512, 512)
    assert drawn.image.mean().item() == pytest.approx(0.0, abs=1e-3)
    assert all(face.min() >= 0 and face.max() <= 1 for face in system.network.seen)


def test_it_may_have_another_name_than_its_file(spandrel, tmp_path) -> None:
    path = saved(tmp_path, weights())
    assert load_peer(path, name="first").name == "first"
    assert load_peer(path, name="first").identity == load_peer(path).identity


def test_networks_of_signed_faces_are_called_without_the_descriptor(spandrel, tmp_path) -> None:
    system = load_peer(saved(tmp_path, {"params_ema": weights(mark_gfpgan=torch.ones(1))}))
    image = system(torch.full((1, 3, 512, 512), -0.5)).image
    assert image.mean().item() == pytest.approx(-0.25, abs=1e-3)
    assert system(torch.ones(1, 3, 512, 512)).image.max().item() == 1.0
    assert system.network.seen == []


def test_other_sizes_are_brought_to_512(spandrel, tmp_path) -> None:
    system = load_peer(saved(tmp_path, weights(mark_large=torch.ones(1))))
    assert system(torch.zeros(1, 3, 64, 64)).image.shape == (1, 3, 512, 512)
    assert system.network.seen[0].shape == (1, 3, 512, 512)


def test_noise_is_the_same_for_every_face_and_touches_no_other(spandrel, tmp_path) -> None:
    system = load_peer(saved(tmp_path, weights()))
    state = torch.get_rng_state()
    one, other = system(torch.zeros(2, 3, 512, 512)).image
    assert torch.equal(one, other)
    assert one.std() > 0
    assert torch.equal(state, torch.get_rng_state())


def test_identity_is_that_of_the_file(spandrel, tmp_path) -> None:
    first, again = (load_peer(saved(tmp_path, weights())).identity for _ in range(2))
    other = weights()
    other["bias"] += 1
    assert first == again != load_peer(saved(tmp_path, other)).identity


def test_extra_architectures_are_used_where_they_are(spandrel, tmp_path, monkeypatch) -> None:
    calls: list[bool] = []
    extra = ModuleType("spandrel_extra_arches")
    extra.install = lambda *, ignore_duplicates: calls.append(ignore_duplicates)
    monkeypatch.setitem(sys.modules, "spandrel_extra_arches", extra)
    load_peer(saved(tmp_path, weights()))
    assert calls == [True]


class Evil:
    def __reduce__(self):
        return print, ("a pickle was run",)


def test_nothing_in_a_file_is_run(spandrel, tmp_path, capsys) -> None:
    path = saved(tmp_path, {"params": weights(), "more": Evil()})
    with pytest.raises(CheckpointError, match=r"GFPGANv1\.4\.pth: refused: .*print"):
        load_peer(path)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"other": torch.ones(1)}, "is no network that spandrel knows; .*GPEN, GLEAN and pSp"),
        ([torch.ones(1)], "holds no weights of a restorer"),
        ({"weight": torch.ones(2)}, r"its tensors do not fit the network they look like \(.*\)"),
        (weights(mark_masked=torch.ones(1)), "Standin takes a mask"),
        (weights(mark_grey=torch.ones(1)), "Standin goes from 1 to 3 channels"),
    ],
)
def test_files_of_other_things_are_refused(spandrel, tmp_path, content, message) -> None:
    with pytest.raises(CheckpointError, match=rf"GFPGANv1\.4\.pth: {message}") as told:
        load_peer(saved(tmp_path, content))
    assert "\n" not in str(told.value)


def test_a_missing_file_is_told_before_a_missing_package(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(CheckpointError, match="no such file"):
        load_peer(tmp_path / "none.pth")


def test_a_missing_package_is_answered_with_its_extra(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'panini-net\[peers\]'"):
        load_peer(saved(tmp_path, weights()))


def test_a_torchvision_of_another_torch_is_told(tmp_path, monkeypatch) -> None:
    package = tmp_path / "spandrel.py"
    package.write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.delitem(sys.modules, "spandrel", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingExtraError, match="torchvision does not run beside torch") as told:
        load_peer(saved(tmp_path, weights()))
    assert "operator torchvision::nms does not exist" in str(told.value)
    assert "\n" not in str(told.value)
