"""Files that a recipe names and that are not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from panini.errors import CheckpointError, ConfigError, DataError, PaniniError
from panini.training import degradation, prior, restoration, warmup
from panini.training.inputs import check_inputs


@pytest.fixture
def recipe(shard_group, tiny_weights, vgg, kit, tmp_path):
    def make(**changes) -> restoration.RestorationRunConfig:
        fields = {
            "out": tmp_path / "run",
            "init": tiny_weights,
            "images": 4,
            "perceptual": {"vgg": vgg},
            "data": kit.data(shard_group),
        }
        return restoration.RestorationRunConfig.model_validate(fields | changes)

    return make


def told(config, error: type[PaniniError]) -> str:
    with pytest.raises(error) as caught:
        check_inputs(config)
    return str(caught.value)


def test_what_is_there_is_taken(recipe):
    check_inputs(recipe())
    check_inputs(recipe(init="mobile-mfr"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"init": "w.safetensors"}, "init: w.safetensors: no such file; run panini train warmup"),
        ({"init": "mobile"}, "init: mobile: no such file, and no shipped model; known: mobile-mfr"),
        (
            {"init": None, "start": {"prior": "p.pt", "degradation_encoder": "mobile-mfr"}},
            "start.prior: p.pt: no such file; make it with panini convert, or run panini train pr",
        ),
        (
            {"init": None, "start": {"prior": "mobile-mfr", "degradation_encoder": "d.pt"}},
            "start.degradation_encoder: d.pt: no such file; run panini train degradation first",
        ),
        (
            {"perceptual": {"vgg": "vgg.pth"}},
            "perceptual.vgg: vgg.pth: no such file; name it with --set perceptual.vgg=PATH",
        ),
        (
            {"window": 64, "adversarial": {"init": "d.pth", "scale": 64}},
            "adversarial.init: d.pth: no such file; name the file that the prior was converted",
        ),
    ],
)
def test_missing_weights_are_told_with_their_key_and_what_to_do(recipe, changes, message):
    assert told(recipe(**changes), CheckpointError).startswith(message)


def test_missing_sources_are_told_with_their_key_and_what_to_do(recipe, shard, kit, shard_group):
    def sources(kind: str, *paths: Path | str) -> dict:
        group = shard_group | {"source": {"kind": kind, "paths": paths}}
        return kit.data(shard_group, group)

    message = told(recipe(data=sources("shards", shard, "x.tar")), DataError)
    key = "data.groups.1.source.paths.1"
    assert message == f"{key}: x.tar: no such file or folder; name it with --set {key}=PATH"
    message = told(recipe(data=sources("prior", "faces")), DataError)
    assert message.endswith("paths.0: faces: no such file or folder; make it with panini sample")
    message = told(recipe(data=sources("prior_live", "p.pt")), CheckpointError)
    assert "source.paths.0: p.pt: no such file; make it with panini convert" in message


def test_a_place_where_nothing_can_be_written_is_told(recipe, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    message = told(recipe(out=tmp_path / "file" / "run"), ConfigError)
    assert message == f"out: {tmp_path / 'file'}: is a file, expected a folder; name another place"
    monkeypatch.setattr("panini.training.inputs.os.access", lambda *_: False)
    message = told(recipe(out=tmp_path / "a" / "b"), ConfigError)
    assert message == f"out: {tmp_path}: may not be written to; name another place"


def test_every_stage_looks_first(recipe, shard_group, kit, tmp_path):
    gone = shard_group | {"source": {"kind": "prior", "paths": ["gone"]}, "flip": False}
    fields = {"out": tmp_path / "run", "images": 4, "data": kit.data(gone)}
    prior_fields = {"gan": {"init": "gone.pt"}}
    warmup_fields = {"prior": "gone.pt"}
    for run in (
        lambda: restoration.train(recipe(data=kit.data(gone))),
        lambda: degradation.train(degradation.DegradationRunConfig.model_validate(fields)),
        lambda: prior.train(prior.PriorRunConfig.model_validate(fields | prior_fields)),
        lambda: warmup.train(warmup.WarmupRunConfig.model_validate(fields | warmup_fields)),
    ):
        with pytest.raises(PaniniError, match=r"gone.*: no such file.*; (make|name) it with"):
            run()
    assert not (tmp_path / "run").exists()
