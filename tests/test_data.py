"""Sources of faces, and batches that are a pure function of (seed, step)."""

from __future__ import annotations

import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from panini.data import (
    DataConfig,
    FaceBatches,
    Finisher,
    GroupConfig,
    Share,
    batches,
    draw_prior_faces,
    open_source,
    resize,
    to_float,
)
from panini.data import SourceConfig as Source
from panini.data.batch import _vary, jitter, recolour
from panini.degradations import DegradationParams
from panini.errors import CheckpointError, DataError
from panini.images import to_uint8
from panini.models.mobile_stylegan import MobileStyleGAN, MobileStyleGANConfig

MILD = {"low_side": (96, 96), "sigma": (0.5, 0.5), "noise": (0.0, 0.0), "jpeg": (95, 95)}
VARIED = {"low_side": (16, 100), "sigma": (0.5, 4.5), "noise": (0.0, 15.0), "jpeg": (50, 95)}


def face(seed: int, side: int = 48) -> np.ndarray:
    """Smooth colours that no mirror image repeats."""
    y, x = np.mgrid[:side, :side] / side
    phases = np.random.default_rng(seed).uniform(0, 6, 3)
    waves = [np.sin(5 * x + 3 * y**2 + phase) for phase in phases]
    return np.uint8(127.5 + 120 * np.stack(waves, axis=-1))


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def write_shard(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture(scope="module")
def shard(tmp_path_factory) -> Path:
    members = {f"{index:03}.png": png(face(index)) for index in range(6)}
    return write_shard(tmp_path_factory.mktemp("data") / "faces.tar", members)


@pytest.fixture(scope="module")
def prior() -> MobileStyleGAN:
    torch.manual_seed(0)
    config = MobileStyleGANConfig(
        size=64, w_dim=8, mapping_layers=2, base_channels=8, channels=(8, 8, 8)
    )
    return MobileStyleGAN(config)


@pytest.fixture(scope="module")
def prior_folder(prior, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("prior") / "faces"
    assert list(draw_prior_faces(prior, folder, 4, truncation=0.5, seed=3)) == [0, 1, 2, 3]
    return folder


def config(*groups: dict, **fields) -> DataConfig:
    defaults = {"degradations": [VARIED], "lq_size": 128, "num_workers": 0}
    return DataConfig.model_validate({"groups": groups, **defaults, **fields})


def group(path: Path, kind: str = "shards", **fields) -> dict:
    source = {"kind": kind, "paths": [path]}
    return {"source": source, "count": 4, "gt_size": 64, **fields}


def same(first, second) -> bool:
    return all(
        torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y
        for part, other in zip(first, second, strict=True)
        for x, y in zip(part, other, strict=True)
    )


# ----------------------------------------------------------------------------------------------
# Batches


def test_a_rate_that_would_enlarge_is_refused(shard):
    with pytest.raises(ValidationError, match=r"rate: expected factors of 1 or more, got 0\.5"):
        config(group(shard), degradations=[{"rate": (0.5, 4)}])


def test_a_batch_has_the_shapes_of_its_groups(shard, prior_folder):
    data = FaceBatches(
        config(group(shard, count=3), group(prior_folder, "prior", gt_size=128, flip=False)), seed=0
    )
    real, drawn = data[0]
    assert real.lq.dtype == real.gt.dtype == torch.uint8
    assert (real.lq.shape, real.gt.shape) == ((3, 3, 128, 128), (3, 3, 64, 64))
    assert (drawn.lq.shape, drawn.gt.shape) == ((4, 3, 128, 128), (4, 3, 128, 128))
    assert real.w.shape == (3, 0)
    assert drawn.w.shape == (4, 8)
    assert drawn.w.dtype == torch.float32


def test_faces_are_degraded_at_512_px_unless_told_otherwise(shard):
    data = FaceBatches(
        DataConfig.model_validate({"groups": [group(shard)], "degradations": [{}]}), 0
    )
    assert data[0][0].lq.shape == (4, 3, 512, 512)


def test_batches_are_pure_functions_of_seed_and_step(shard):
    data = FaceBatches(config(group(shard)), seed=5)
    first, second = data[0], data[1]
    assert not same(first, second)
    again = FaceBatches(config(group(shard)), seed=5)
    assert same(again[1], second)
    assert same(again[0], first)
    assert not same(FaceBatches(config(group(shard)), seed=6)[0], first)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_run_sees_what_an_uninterrupted_one_sees(shard, workers):
    data = FaceBatches(config(group(shard), num_workers=workers), seed=1)
    whole = list(batches(data, 0, 4))
    resumed = list(batches(data, 2, 4))
    assert len(whole) == 4
    assert same(whole[2], resumed[0])
    assert same(whole[3], resumed[1])
    assert same(whole[1], data[1])


@pytest.mark.parametrize("workers", [0, 1])
def test_what_ends_the_batches_is_told_in_a_line(tmp_path, workers):
    path = write_shard(tmp_path / "s.tar", {"a.png": b"no image"})
    loader = batches(FaceBatches(config(group(path), num_workers=workers), seed=0), 0, 2)
    with pytest.raises(DataError) as caught:
        next(loader)
    message = str(caught.value)
    assert message.startswith("50 faces in a row cannot be read, the last: ")
    assert "\n" not in message


def test_the_degraded_face_shows_the_face_of_the_truth(shard):
    data = FaceBatches(config(group(shard, gt_size=128), degradations=[MILD]), seed=0)
    for step in range(3):
        (part,) = data[step]
        difference = to_float(part.lq) - to_float(part.gt)
        assert difference.abs().mean() < 0.03  # mirrored faces too


def test_half_of_the_faces_are_mirrored(shard):
    fields = {"degradations": [MILD]}
    data = FaceBatches(config(group(shard, count=32), **fields), seed=0)
    straight = FaceBatches(config(group(shard, count=32, flip=False), **fields), seed=0)
    faces = {to_key(torch.from_numpy(resize(face(i), 64)).permute(2, 0, 1)) for i in range(6)}
    (part,) = straight[0]
    assert all(to_key(image) in faces for image in part.gt)
    (part,) = data[0]
    mirrored = sum(to_key(image) not in faces for image in part.gt)
    assert 8 <= mirrored <= 24
    assert all(to_key(image) in faces or to_key(image.flip(-1)) in faces for image in part.gt)


def to_key(image: torch.Tensor) -> bytes:
    return image.contiguous().numpy().tobytes()


def record_params(monkeypatch) -> list[DegradationParams]:
    """What `degrade` is called with from now on."""
    from panini.data import batch as data

    calls: list[DegradationParams] = []

    def spy(image, params, generator):
        calls.append(params)
        return image

    monkeypatch.setattr(data, "degrade", spy)
    return calls


def test_pairs_are_different_faces_under_the_same_degradation(shard, monkeypatch):
    calls = record_params(monkeypatch)
    (part,) = FaceBatches(config(group(shard, count=16)), seed=0, paired=True)[0]
    assert calls[0::2] == calls[1::2]
    assert len(set(calls)) == 8
    pairs = zip(part.gt[0::2], part.gt[1::2], strict=True)
    assert sum(not torch.equal(query, key) for query, key in pairs) >= 5


def test_without_pairs_every_face_has_its_own_degradation(shard, monkeypatch):
    calls = record_params(monkeypatch)
    FaceBatches(config(group(shard, count=16)), seed=0)[0]
    assert len(set(calls)) == 16


def test_degradations_are_mixed_by_their_weights(shard, monkeypatch):
    calls = record_params(monkeypatch)
    strong = VARIED | {"low_side": (4, 4)}
    mixed = config(
        group(shard, count=200), degradations=[MILD, strong], degradation_weights=(3.0, 1.0)
    )
    FaceBatches(mixed, seed=0)[0]
    assert {round(128 / params.rate) for params in calls} == {96, 4}
    assert 25 <= sum(params.rate > 2 for params in calls) <= 75


def test_weights_must_match_the_degradations(shard):
    with pytest.raises(DataError, match="1 degradations need as many degradation_weights, got 2"):
        FaceBatches(config(group(shard), degradation_weights=(0.5, 0.5)), seed=0)


@pytest.mark.parametrize(
    "fields", [{"count": 0}, {"gt_size": 100}, {"gt_size": 0}, {"colour": "red"}]
)
def test_impossible_groups_are_refused(shard, fields):
    with pytest.raises(ValidationError, match=next(iter(fields))):
        config(group(shard, **fields))


# ----------------------------------------------------------------------------------------------
# Sources


def test_a_shard_gives_its_images_and_passes_over_the_rest(tmp_path):
    members = {"a.png": png(face(0)), "a.json": b"{}", "b.png": png(face(1))}
    source = open_source(Source(kind="shards", paths=[write_shard(tmp_path / "s.tar", members)]))
    assert len(source) == 2
    sample = source.sample(1)
    assert np.array_equal(sample.image, face(1))
    assert sample.w is None


def test_shards_are_strung_together(shard, tmp_path):
    other = write_shard(tmp_path / "s.tar", {"x.png": png(face(9))})
    source = open_source(Source(kind="shards", paths=[shard, other]))
    assert len(source) == 7
    assert np.array_equal(source.sample(6).image, face(9))


def test_a_folder_gives_its_images(tmp_path):
    for index in range(2):
        (tmp_path / f"{index}.png").write_bytes(png(face(index)))
    (tmp_path / "notes.txt").write_text("no image")
    source = open_source(Source(kind="folder", paths=[tmp_path]))
    assert len(source) == 2
    assert np.array_equal(source.sample(0).image, face(0))


def test_a_shard_stays_on_the_disk(shard, monkeypatch):
    """Of FFHQ, 90 GB encoded: what is kept is where the faces lie."""
    source = open_source(Source(kind="shards", paths=[shard]))
    assert len(pickle.dumps(source)) < shard.stat().st_size / 10
    assert np.array_equal(source.sample(3).image, face(3))


def test_a_folder_gives_the_images_of_the_folders_in_it(tmp_path):
    for index, name in enumerate(("00000/00000.png", "00000/00001.png", "01000/01000.PNG")):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(png(face(index)))
    (tmp_path / ".thumbnails").mkdir()
    (tmp_path / ".thumbnails" / "x.png").write_bytes(png(face(9)))
    (tmp_path / "LICENSE.txt").write_text("no image")
    source = open_source(Source(kind="folder", paths=[tmp_path]))
    assert len(source) == 3
    assert all(np.array_equal(source.sample(i).image, face(i)) for i in range(3))


def test_a_prior_folder_gives_faces_with_the_w_that_made_them(prior, prior_folder):
    source = open_source(Source(kind="prior", paths=[prior_folder]))
    assert len(source) == 4
    for index in range(4):
        sample = source.sample(index)
        assert sample.w is not None
        with torch.no_grad():
            again = prior.synthesis(prior.broadcast(torch.from_numpy(sample.w)[None]))
        assert np.array_equal(sample.image, to_uint8(again)[0])


def test_prior_faces_are_truncated_and_seeded(prior, prior_folder, tmp_path):
    list(draw_prior_faces(prior, tmp_path / "same", 4, truncation=0.5, seed=3))
    assert np.array_equal(np.load(tmp_path / "same/w.npy"), np.load(prior_folder / "w.npy"))
    list(draw_prior_faces(prior, tmp_path / "mean", 4, truncation=1.0, seed=3))
    full, cut = np.load(tmp_path / "mean/w.npy"), np.load(prior_folder / "w.npy")
    mean = prior.w_avg.numpy()
    psi = np.linalg.norm(cut - mean, axis=1) / np.linalg.norm(full - mean, axis=1)
    assert ((psi >= 0.5) & (psi <= 1)).all()
    assert psi.std() > 0.01


def test_an_unfinished_prior_folder_is_no_source(prior, tmp_path):
    folder = tmp_path / "faces"
    list(draw_prior_faces(prior, folder, 2, truncation=1.0, seed=0))
    drawing = draw_prior_faces(prior, folder, 3, truncation=1.0, seed=0)
    next(drawing)
    drawing.close()
    with pytest.raises(DataError, match=r"expected images.npy and w.npy of `panini sample`"):
        open_source(Source(kind="prior", paths=[folder]))


def test_processes_and_accumulated_batches_share_a_step(shard):
    """What several see together is what one with as many more faces would see."""

    def faces(count: int, share: Share, number: int) -> torch.Tensor:
        return FaceBatches(config(group(shard, count=count)), seed=5, share=share)[number][0].lq

    whole = faces(8, Share(), 1)
    by_two = [faces(4, Share(rank=rank, world=2), 1) for rank in (0, 1)]
    assert torch.equal(torch.cat(by_two), whole)
    in_turn = [faces(4, Share(accumulate=2), number) for number in (2, 3)]
    assert torch.equal(torch.cat(in_turn), whole)
    both = [
        faces(2, Share(rank=rank, world=2, accumulate=2), number)
        for number in (2, 3)
        for rank in (0, 1)
    ]
    assert torch.equal(torch.cat(both), whole)


def test_a_curriculum_changes_the_mix_over_the_images(shard, monkeypatch):
    calls = record_params(monkeypatch)
    phases = [{"until": 8, "weights": (1.0, 0.0)}, {"until": 16, "weights": (0.0, 1.0)}]
    strong = VARIED | {"low_side": (4, 4)}
    fields = {"degradations": [MILD, strong], "degradation_weights": (1.0, 0.0)}
    data = FaceBatches(config(group(shard), curriculum=phases, **fields), seed=0)
    for step in range(6):
        data[step]
    sides = [round(128 / params.rate) for params in calls]
    assert sides == [96] * 8 + [4] * 8 + [96] * 8
    with pytest.raises(ValidationError, match="curriculum: expected phases in the order of until"):
        config(group(shard), curriculum=phases[::-1], **fields)


def test_faces_in_order_are_the_first_of_the_source(shard):
    data = FaceBatches(config(group(shard, flip=False, gt_size=64)), seed=0, in_order=True)
    shown = [to_key(image) for step in (0, 1) for image in data[step][0].gt]
    faces = [to_key(torch.from_numpy(resize(face(i), 64)).permute(2, 0, 1)) for i in range(6)]
    assert shown == [*faces, *faces[:2]]


def test_colour_jitter_changes_truth_and_input_alike(shard):
    fields = {"degradations": [MILD]}
    plain = FaceBatches(config(group(shard, gt_size=128), **fields), seed=0)[0][0]
    jittered = FaceBatches(config(group(shard, gt_size=128, colour_jitter=0.3), **fields), seed=0)
    varied = jittered[0][0]
    assert (to_float(varied.gt) - to_float(plain.gt)).abs().mean() > 0.02
    assert (to_float(varied.lq) - to_float(varied.gt)).abs().mean() < 0.03


# ----------------------------------------------------------------------------------------------
# The training device


@pytest.mark.parametrize("gt_size", [64, 128, 192])
def test_the_device_degrades_as_the_workers_do(shard, gt_size):
    quiet = VARIED | {"noise": (0.0, 0.0)}
    found = {}
    for where in ("worker", "device"):
        data = config(group(shard, gt_size=gt_size), degradations=[quiet], degrade_on=where)
        (raw,) = FaceBatches(data, seed=0)[0]
        assert (raw.lq.numel() == 0) == (where == "device")
        (part,) = Finisher(data, 0, "cpu")([raw], (0,))
        assert part.lq.shape == (4, 3, 128, 128)
        assert part.lq.dtype == torch.uint8
        found[where] = to_float(part.lq)
    # At its own size the face comes from a truth that was made smaller or larger before.
    limit = 0.01 if gt_size == 128 else 0.03
    assert (found["worker"] - found["device"]).abs().mean() < limit


def test_noise_on_the_device_follows_from_the_key(shard):
    data = config(group(shard), degrade_on="device")
    raw = FaceBatches(data, seed=0)[0]
    finish = Finisher(data, 0, "cpu")
    assert same(finish(raw, (3, 0)), finish(raw, (3, 0)))
    assert not same(finish(raw, (3, 0)), finish(raw, (4, 0)))


@pytest.fixture(scope="module")
def prior_file(prior, tmp_path_factory) -> Path:
    from dataclasses import asdict

    from panini.checkpoints import save_tensors

    path = tmp_path_factory.mktemp("prior") / "prior.safetensors"
    meta = {"config": asdict(prior.config)}
    save_tensors(prior.state_dict(), path, kind="mobile-prior", meta=meta)
    return path


def test_a_live_prior_draws_the_faces_of_its_w(prior, prior_file):
    data = config(group(prior_file, "prior_live", flip=False), group(prior_file, "prior_live"))
    dataset, finish = FaceBatches(data, seed=0), Finisher(data, 0, "cpu")
    assert dataset.faces == 0
    part, other = finish(dataset[0], (0, 0, 0))
    assert (part.lq.shape, part.gt.shape, part.w.shape) == (
        (4, 3, 128, 128),
        (4, 3, 64, 64),
        (4, 8),
    )
    with torch.no_grad():
        again = to_uint8(prior.synthesis(prior.broadcast(part.w)))
    shown = part.gt.permute(0, 2, 3, 1).numpy()
    assert np.abs(shown.astype(int) - np.stack(again)).max() <= 1
    assert not torch.equal(part.gt, other.gt)
    assert same(finish(dataset[0], (0, 0, 0)), [part, other])
    assert not torch.equal(finish(dataset[1], (1, 0, 0))[0].gt, part.gt)


def test_faces_of_a_live_prior_are_recoloured_too(prior_file):
    def drawn(jitter: float) -> torch.Tensor:
        data = config(
            group(prior_file, "prior_live", colour_jitter=jitter, gt_size=128), degradations=[MILD]
        )
        (part,) = Finisher(data, 0, "cpu")(FaceBatches(data, seed=0)[0], (0, 0, 0))
        assert (to_float(part.lq) - to_float(part.gt)).abs().mean() < 0.05
        return part.gt

    difference = to_float(drawn(0.3)) - to_float(drawn(0.0))
    assert (difference.abs().mean(dim=(1, 2, 3)) > 0.01).all()


def test_the_device_recolours_as_the_workers_do():
    faces = np.stack([face(seed) for seed in range(3)])
    fields = group(Path("x"), flip=False, colour_jitter=0.4)
    by_workers = [
        _vary(image, GroupConfig.model_validate(fields), np.random.default_rng(seed))
        for seed, image in enumerate(faces)
    ]
    factors = np.stack([jitter(0.4, np.random.default_rng(seed)) for seed in range(3)])
    images = torch.from_numpy(faces).permute(0, 3, 1, 2)
    found = recolour(images, torch.from_numpy(factors.astype(np.float32)))
    expected = torch.from_numpy(np.stack(by_workers)).permute(0, 3, 1, 2)
    assert (found.int() - expected.int()).abs().max() <= 1
    assert (found != images).float().mean() > 0.9


def test_a_live_prior_can_come_out_of_a_network(prior, tmp_path):
    from panini.checkpoints import save_model
    from panini.data import load_live_prior
    from panini.models.panini_net import PaniniNet

    net = PaniniNet.named("tiny")
    save_model(net, tmp_path / "net.safetensors", provenance={})
    found = load_live_prior(tmp_path / "net.safetensors")
    assert torch.equal(found.w_avg, net.prior.w_avg)
    (tmp_path / "other.safetensors").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"other\.safetensors"):
        load_live_prior(tmp_path / "other.safetensors")


@pytest.mark.parametrize("where", ["worker", "device"])
def test_super_resolution_only_reduces(shard, where):
    data = config(group(shard, gt_size=192), task="sr16", degradations=[], lq_size=16)
    data = data.model_copy(update={"degrade_on": where})
    (part,) = Finisher(data, 0, "cpu")(FaceBatches(data, seed=0)[0], (0,))
    assert part.lq.shape == (4, 3, 16, 16)
    small = torch.nn.functional.interpolate(to_float(part.gt), (16, 16), mode="area")
    assert (to_float(part.lq) - small).abs().mean() < 0.02


@pytest.mark.parametrize("where", ["worker", "device"])
def test_whole_faces_alone_are_not_degraded(shard, where):
    data = config(group(shard), task="none", degradations=[], degrade_on=where)
    (part,) = Finisher(data, 0, "cpu")(FaceBatches(data, seed=0)[0], (0,))
    assert part.lq.numel() == 0
    assert part.gt.shape == (4, 3, 64, 64)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"degradations": []}, "degradations: task mfr takes at least one, got 0"),
        ({"task": "sr16"}, "degradations: task sr16 takes none, got 1"),
    ],
)
def test_a_task_without_its_degradations_is_refused(shard, fields, message):
    with pytest.raises(ValidationError, match=message):
        config(group(shard), **fields)


# ----------------------------------------------------------------------------------------------
# Damaged faces


@pytest.fixture
def half_broken(tmp_path) -> Path:
    members = {f"{index}.png": png(face(index)) for index in range(3)}
    return write_shard(tmp_path / "s.tar", members | {"bad.png": b"garbage", "worse.png": b""})


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("decoded_mb", [0, 10])
def test_damaged_faces_are_passed_over_and_named(half_broken, workers, decoded_mb):
    parts = group(half_broken, count=16)
    parts["source"]["decoded_mb"] = decoded_mb
    data = FaceBatches(config(parts, num_workers=workers), seed=0)
    (part,) = next(batches(data, 0, 1))
    assert part.gt.shape == (16, 3, 64, 64)
    reasons = {reason.partition(": not a readable image")[0] for reason in part.skipped}
    assert reasons == {f"{half_broken}:bad.png", f"{half_broken}:worse.png"}


def test_a_source_of_damaged_faces_alone_is_given_up(tmp_path):
    shard = write_shard(tmp_path / "s.tar", {"bad.png": b"garbage"})
    with pytest.raises(DataError, match=r"50 faces in a row cannot be read, the last: .*bad\.png"):
        FaceBatches(config(group(shard)), seed=0)[0]


def test_decoded_shards_give_the_same_faces(shard):
    def batch(decoded_mb: int, workers: int):
        parts = group(shard)
        parts["source"]["decoded_mb"] = decoded_mb
        data = FaceBatches(config(parts, num_workers=workers), seed=0)
        return data[0], data.sources[0]

    plain, source = batch(0, 0)
    assert source.decoded is None
    for workers in (0, 2):
        kept, source = batch(1, workers)
        assert len(source.decoded) == 6
        assert same(plain, kept)
    parts = group(shard)
    with pytest.raises(ValidationError, match="decoded_mb"):
        config({**parts, "source": parts["source"] | {"decoded_mb": -1}})


@pytest.mark.parametrize("kind", ["shards", "folder", "prior"])
def test_a_missing_source_is_named(tmp_path, kind):
    with pytest.raises(DataError, match="none: no such file or folder"):
        open_source(Source(kind=kind, paths=[tmp_path / "none"]))


def test_sources_without_faces_are_refused(tmp_path):
    shard = write_shard(tmp_path / "empty.tar", {"a.json": b"{}"})
    with pytest.raises(DataError, match=r"empty\.tar: no images in it"):
        open_source(Source(kind="shards", paths=[shard]))
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="folder: the folder holds no image"):
        open_source(Source(kind="folder", paths=[tmp_path / "folder"]))
    with pytest.raises(ValidationError, match="paths"):
        Source(kind="folder", paths=[])


def test_files_that_are_no_shards_are_refused(tmp_path, shard):
    path = tmp_path / "s.tar"
    for content in (b"", b"no tar" * 200, shard.read_bytes()[:1500]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"s\.tar: (not a whole tar file|no images in it)"):
            open_source(Source(kind="shards", paths=[path]))


def test_two_prior_folders_are_refused(prior_folder):
    with pytest.raises(DataError, match="a prior source has one folder, got 2"):
        open_source(Source(kind="prior", paths=[prior_folder, prior_folder]))


@pytest.mark.parametrize("name", ["w.npy", "images.npy"])
def test_a_damaged_prior_folder_is_refused(tmp_path, prior_folder, name):
    for file in prior_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    for content in (b"", b"garbage", (tmp_path / name).read_bytes()[:90]):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=r"expected images\.npy and w\.npy"):
            open_source(Source(kind="prior", paths=[tmp_path]))


def test_a_damaged_image_is_named(tmp_path):
    whole = png(face(0))
    for content in (b"", b"garbage", whole[: len(whole) // 2]):
        shard = write_shard(tmp_path / "s.tar", {"k.png": content})
        with pytest.raises(DataError, match=r"s\.tar:k\.png: not a readable image"):
            open_source(Source(kind="shards", paths=[shard])).sample(0)
        (tmp_path / "k.png").write_bytes(content)
        with pytest.raises(DataError, match=r"k\.png: not a readable image"):
            open_source(Source(kind="folder", paths=[tmp_path / "k.png"])).sample(0)


def test_a_face_that_is_not_square_is_refused(tmp_path):
    shard = write_shard(tmp_path / "s.tar", {"k.png": png(face(0)[:40])})
    with pytest.raises(DataError, match=r"k\.png: expected a square, aligned face, found 48x40 px"):
        open_source(Source(kind="shards", paths=[shard])).sample(0)


# ----------------------------------------------------------------------------------------------
# Pixels


def test_resize_takes_area_means_downwards():
    image = face(0)
    small = resize(image, 24)
    means = image.reshape(24, 2, 24, 2, 3).mean(axis=(1, 3))
    assert np.abs(small - means).max() <= 0.51
    assert resize(image, 48).tobytes() == image.tobytes()
    assert resize(image[:, ::-1], 48).flags.c_contiguous
    assert resize(image, 96).shape == (96, 96, 3)


def test_to_float_spans_minus_one_to_one():
    assert to_float(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1.0, 1.0]
