"""Everything that a stage reads, at a size that trains in milliseconds."""

from __future__ import annotations

import io
import tarfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from panini.checkpoints import save_model, save_tensors
from panini.data import draw_prior_faces
from panini.features.vgg16 import VGG16
from panini.models.degradation_encoder import DegradationEncoder, DegradationEncoderConfig
from panini.models.mobile_stylegan import MobileStyleGAN, MobileStyleGANConfig
from panini.models.panini_net import PaniniNet, named_config

DEGRADATIONS = [
    {"low_side": (16, 100), "sigma": (0.5, 4.5), "noise": (0.0, 15.0), "jpeg": (50, 95)}
]


def procedural_face(seed: int, side: int = 64) -> np.ndarray:
    """Skin, eyes and mouth in random colours and places."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side - 0.5
    image = np.ones((side, side, 3)) * random.uniform(0, 255, 3)

    def paint(centre, radii, colour):
        inside = ((y - centre[0]) / radii[0]) ** 2 + ((x - centre[1]) / radii[1]) ** 2 < 1
        image[inside] = colour

    shift = random.uniform(-0.05, 0.05, 2)
    paint(shift, (0.45, 0.33), random.uniform(100, 255, 3))
    for eye in (-0.13, 0.13):
        paint(shift + np.array((-0.1, eye)), (0.04, 0.07), random.uniform(0, 120, 3))
    paint(shift + np.array((0.22, 0)), (0.04, 0.12), random.uniform(0, 200, 3))
    return image.astype(np.uint8)


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("training")


@pytest.fixture(scope="session")
def shard(folder) -> Path:
    path = folder / "faces.tar"
    with tarfile.open(path, "w") as archive:
        for index in range(8):
            buffer = io.BytesIO()
            Image.fromarray(procedural_face(index)).save(buffer, "PNG")
            info = tarfile.TarInfo(f"{index}.png")
            info.size = buffer.tell()
            buffer.seek(0)
            archive.addfile(info, buffer)
    return path


@pytest.fixture(scope="session")
def prior(folder) -> Path:
    path = folder / "prior.safetensors"
    torch.manual_seed(0)
    config = named_config("tiny").prior
    assert isinstance(config, MobileStyleGANConfig)
    net = MobileStyleGAN(config)
    net.estimate_w_avg(1000, torch.Generator().manual_seed(0))
    save_tensors(net.state_dict(), path, kind="mobile-prior", meta={"config": asdict(config)})
    return path


@pytest.fixture(scope="session")
def prior_faces(folder, prior) -> Path:
    from panini.checkpoints import load_prior

    list(draw_prior_faces(load_prior(prior), folder / "faces", 6, truncation=0.7, seed=0))
    return folder / "faces"


@pytest.fixture(scope="session")
def encoder_weights(folder) -> Path:
    path = folder / "degradation_encoder.safetensors"
    torch.manual_seed(1)
    net = DegradationEncoder(DegradationEncoderConfig(kind="mobile"))
    meta = {"config": {"kind": "mobile"}}
    save_tensors(net.state_dict(), path, kind="degradation-encoder", meta=meta)
    return path


@pytest.fixture(scope="session")
def tiny_weights(folder) -> Path:
    path = folder / "tiny.safetensors"
    torch.manual_seed(2)
    save_model(PaniniNet.named("tiny"), path, provenance={})
    return path


@pytest.fixture(scope="session")
def vgg(folder) -> Path:
    path = folder / "vgg.safetensors"
    torch.manual_seed(3)
    save_file(VGG16((4, 4, 4, 8, 8)).state_dict(), path, {"preprocess": "caffe"})
    return path


@pytest.fixture(scope="session")
def heads(folder) -> Path:
    path = folder / "heads.safetensors"
    widths = enumerate((4, 4, 4, 8, 8))
    save_file({f"lin{i}.weight": torch.ones(1, width, 1, 1) for i, width in widths}, path)
    return path


@pytest.fixture(scope="session")
def shard_group(shard) -> dict:
    return {
        "source": {"kind": "shards", "paths": [shard]},
        "count": 2,
        "gt_size": 64,
        "scales": [64],
    }


@pytest.fixture(scope="session")
def prior_group(prior_faces) -> dict:
    source = {"kind": "prior", "paths": [prior_faces]}
    return {"source": source, "count": 2, "gt_size": 128, "scales": [64, 128], "flip": False}


def data(*groups: dict) -> dict:
    return {"groups": groups, "degradations": DEGRADATIONS, "lq_size": 128, "num_workers": 0}


class StoppedError(Exception):
    """Stands for the plug that is pulled."""


@pytest.fixture(scope="session")
def kit():
    """What the tests of all stages do with one."""
    return Kit()


class Kit:
    data = staticmethod(data)

    @staticmethod
    def batch(stage, step: int = 0, *, paired: bool = False) -> list:
        """The batch of a step, as `fit` would give it."""
        from panini.data import FaceBatches, Finisher

        data, seed = stage.config.data, stage.config.seed
        finish = Finisher(data, seed, stage.engine.device)
        return finish(FaceBatches(data, seed, paired=paired)[step], (step, 0, 0))

    @staticmethod
    def state(config) -> dict:
        """Tensors and metadata of a run's newest checkpoint."""
        from panini.checkpoints import load_tensors
        from panini.training.checkpointing import KIND, Checkpoints

        tensors, meta = load_tensors(Checkpoints(config.out, 1).all()[-1], kind=KIND)
        return {"tensors": tensors, "meta": meta}

    @staticmethod
    def stop_before(stage, step: int) -> None:
        """Let a stage's run end in mid-air before a step."""
        inner = stage.step

        def limited(batch, at, nimg):
            if at == step:
                raise StoppedError
            return inner(batch, at, nimg)

        stage.step = limited

    def check_resume(self, build, recipe, *, paired: bool = False) -> None:
        """A run cut off after two steps and taken up again ends as an uninterrupted one does.

        Args:
            build: Recipe → stage.
            recipe: (folder name, **changes) → recipe of four steps.
            paired: As `fit` takes it.
        """
        from panini.training.run import fit

        whole = recipe("whole")
        fit(build(whole), whole, paired=paired)
        cut = recipe("cut", checkpoint_every_s=-1.0)
        stage = build(cut)
        self.stop_before(stage, 2)
        with pytest.raises(StoppedError):
            fit(stage, cut, paired=paired)
        assert self.state(cut)["meta"]["progress"]["step"] == 2
        stage = build(cut)
        torch.manual_seed(999)  # nothing may hang on the global generator
        np.random.seed(999)  # noqa: NPY002
        fit(stage, cut, paired=paired)
        expected, found = self.state(whole), self.state(cut)
        assert expected["meta"]["progress"]["step"] == 4
        assert different(expected, found) == []

    @staticmethod
    def changed(module, before: dict) -> set[str]:
        """Names of a module's tensors that differ from an earlier copy of its state."""
        now = module.state_dict()
        return {name for name, value in before.items() if not torch.equal(value, now[name])}

    @staticmethod
    def copy_of(module) -> dict:
        return {name: value.clone() for name, value in module.state_dict().items()}


def different(first, second, path: str = "") -> list[str]:
    """Paths at which two nested states are not equal bit for bit."""
    if isinstance(first, dict):
        assert first.keys() == second.keys(), path
        return [d for key in first for d in different(first[key], second[key], f"{path}/{key}")]
    if isinstance(first, list | tuple):
        assert len(first) == len(second), path
        pairs = enumerate(zip(first, second, strict=True))
        return [d for index, (a, b) in pairs for d in different(a, b, f"{path}/{index}")]
    same = torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second
    return [] if same else [path]
