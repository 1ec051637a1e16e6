"""Weights on disk: what goes in comes out, and what is wrong is said in one line."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from panini.checkpoints import (
    SPECS,
    Spec,
    convert,
    io,
    load_model,
    load_prior,
    load_state,
    load_tensors,
    save_model,
    save_tensors,
    specs,
)
from panini.errors import CheckpointError
from panini.models.mobile_stylegan import MobileStyleGAN, MobileStyleGANConfig
from panini.models.panini_net import PaniniNet

STATE = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(7)}


@pytest.fixture(scope="module")
def net() -> PaniniNet:
    torch.manual_seed(0)
    return PaniniNet.named("tiny").requires_grad_(False)


@pytest.fixture(scope="module")
def saved(net, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "tiny.safetensors"
    save_model(net, path, provenance={"images": 7})
    return path


def error_of(*call) -> str:
    """The message of the CheckpointError that a call raises: one line."""
    function, *arguments = call
    with pytest.raises(CheckpointError) as caught:
        function(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


# ----------------------------------------------------------------------------------------------
# Tensors


def test_tensors_and_metadata_come_back(tmp_path):
    path = tmp_path / "new" / "folder" / "a.safetensors"
    meta = {"config": {"sides": [4, 8], "kind": "x"}, "provenance": {"images": 3, "note": "é"}}
    save_tensors(STATE, path, kind="test", meta=meta)
    state, found = load_tensors(path, kind="test")
    assert found == meta
    assert state.keys() == STATE.keys()
    assert all(torch.equal(state[name], STATE[name]) for name in STATE)
    assert list(path.parent.iterdir()) == [path]


def test_views_and_parameters_can_be_written(tmp_path):
    path = tmp_path / "a.safetensors"
    wide = torch.arange(12.0).view(3, 4)
    parameter = torch.nn.Parameter(torch.ones(2))
    save_tensors({"turned": wide.T, "p": parameter}, path, kind="test", meta={})
    state, _ = load_tensors(path, kind="test")
    assert torch.equal(state["turned"], wide.T)
    assert torch.equal(state["p"], torch.ones(2))


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    synced = []

    def fsync(_handle):
        assert not path.exists()
        (partial,) = tmp_path.iterdir()
        synced.append(partial.stat().st_size)

    monkeypatch.setattr(io.os, "fsync", fsync)
    save_tensors(STATE, path, kind="test", meta={})
    assert synced == [path.stat().st_size]


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    save_tensors(STATE, path, kind="test", meta={})
    before = path.read_bytes()

    def full(_tensors, partial, metadata):
        partial.write_bytes(b"half a file")
        raise SafetensorError("No space left on device")

    monkeypatch.setattr(io, "save_file", full)
    message = error_of(lambda: save_tensors({}, path, kind="test", meta={}))
    assert message == f"{path}: cannot be written (No space left on device)"
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "a.safetensors"
    message = error_of(lambda: save_tensors(STATE, path, kind="test", meta={}))
    assert message.startswith(f"{path}: cannot be written")


def test_missing_foreign_damaged_and_other_files_are_told_apart(tmp_path):
    path = tmp_path / "a.safetensors"

    def load():
        return load_tensors(path, kind="panini-net")

    assert error_of(load) == f"{path}: no such file"
    save_file(STATE, path)
    assert "expected panini-net weights of ours, found a foreign file" in error_of(load)
    save_tensors(STATE, path, kind="mobile-prior", meta={})
    assert "expected panini-net weights of ours, found mobile-prior" in error_of(load)
    save_file(STATE, path, {"format": "pt", "kind": "panini-net"})
    assert "expected panini-net weights of ours" in error_of(load)
    save_file(STATE, path, {"format": io.FORMAT, "kind": "panini-net", "config": "{half"})
    assert "not a whole safetensors file" in error_of(load)
    save_tensors(STATE, path, kind="panini-net", meta={})
    path.write_bytes(path.read_bytes()[:-4])
    assert "not a whole safetensors file" in error_of(load)
    path.write_bytes(b"")
    assert "fetch or make it again" in error_of(load)


def test_every_tensor_must_fit(tmp_path):
    module = torch.nn.Linear(2, 3)
    good = module.state_dict()
    source = tmp_path / "a.safetensors"
    before = module.weight.clone()

    def complaint(state) -> str:
        return error_of(load_state, module, state, source)

    assert complaint({"bias": good["bias"]}) == f"{source}: 1 missing tensors, first: 'weight'"
    extra = good | {"x": torch.zeros(1), "y": torch.zeros(1)}
    assert complaint(extra) == f"{source}: 2 unknown tensors, first: 'x', 'y'"
    wrong = good | {"weight": torch.zeros(3, 4)}
    assert complaint(wrong) == f"{source}: 1 misshapen tensors, first: 'weight' (3, 4) for (3, 2)"
    assert torch.equal(module.weight, before)
    load_state(module, {"weight": torch.ones(3, 2), "bias": torch.ones(3)}, source)
    assert torch.equal(module.weight, torch.ones(3, 2))


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_every_number_must_be_finite(tmp_path, value):
    module = torch.nn.Linear(2, 3)
    before = module.weight.clone()
    state = {"weight": torch.ones(3, 2), "bias": torch.tensor([0.0, value, 1.0])}
    source = tmp_path / "a.safetensors"
    for dtype in (torch.float32, torch.float16):
        broken = {name: tensor.to(dtype) for name, tensor in state.items()}
        assert error_of(load_state, module, broken, source) == (
            f"{source}: 'bias' holds infinities or NaNs, expected finite numbers; fetch or make"
            " the file again"
        )
    assert torch.equal(module.weight, before)
    # Finite in the file, but not in the network.
    large = state | {"bias": torch.full((3,), 1e300, dtype=torch.float64)}
    assert "'bias' holds infinities" in error_of(load_state, module, large, source)


def test_numbers_must_be_of_the_networks_sort(tmp_path):
    module = torch.nn.BatchNorm1d(2)
    state = module.state_dict()
    source = tmp_path / "a.safetensors"
    bytes_ = state | {"weight": torch.ones(2, dtype=torch.int8)}
    assert error_of(load_state, module, bytes_, source) == (
        f"{source}: 'weight' holds numbers of type torch.int8, expected torch.float32; convert the"
        " file again from its source"
    )
    counted = state | {"num_batches_tracked": torch.tensor(1.0)}
    assert "'num_batches_tracked' holds" in error_of(load_state, module, counted, source)


# ----------------------------------------------------------------------------------------------
# Networks


def test_a_network_comes_back_as_it_was(net, saved):
    loaded = load_model(saved)
    assert loaded.config == net.config
    assert not loaded.training
    for (name, value), (_, again) in zip(
        net.state_dict().items(), loaded.state_dict().items(), strict=True
    ):
        assert torch.equal(value, again), name
    _, meta = load_tensors(saved, kind="panini-net")
    assert meta["provenance"] == {"images": 7}
    assert load_model(str(saved)).config == net.config


def test_float16_halves_the_file_and_loads_as_float32(net, saved, tmp_path):
    path = tmp_path / "half.safetensors"
    save_model(net, path, provenance={}, dtype=torch.float16)
    assert path.stat().st_size < 0.55 * saved.stat().st_size
    state, _ = load_tensors(path, kind="panini-net")
    assert state["encoder.stem.weight"].dtype == torch.float16
    counter = "degradation_encoder.blocks.0.norm.num_batches_tracked"
    assert state[counter].dtype == torch.int64
    loaded = load_model(path)
    for name, value in loaded.state_dict().items():
        original = net.state_dict()[name]
        assert value.dtype == original.dtype
        torch.testing.assert_close(value, original, rtol=1e-3, atol=1e-6)
    assert {p.dtype for p in net.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("meta", "reason"),
    [
        ({}, "not a Panini-Net configuration: TypeError"),
        ({"config": {}}, "not a Panini-Net configuration: KeyError('prior')"),
        ({"config": {"prior": {"kind": "diffusion"}}}, "not a Panini-Net configuration"),
    ],
)
def test_a_config_that_builds_no_network_is_refused(tmp_path, meta, reason):
    path = tmp_path / "a.safetensors"
    save_tensors(STATE, path, kind="panini-net", meta=meta)
    message = error_of(load_model, path)
    assert message.startswith(f"{path}: its configuration is unusable")
    assert reason in message


def test_weights_of_another_network_are_refused(net, tmp_path):
    path = tmp_path / "a.safetensors"
    save_tensors(STATE, path, kind="panini-net", meta={"config": net.config.to_dict()})
    assert "missing tensors, first: 'prior.constant'" in error_of(load_model, path)


def test_broken_weights_are_neither_loaded_nor_converted(net, tmp_path):
    path, out = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    state["encoder.stem.weight"].flatten()[0] = torch.inf
    save_tensors(state, path, kind="panini-net", meta={"config": net.config.to_dict()})
    for call in ((load_model, path), (convert, path, out)):
        assert error_of(*call).startswith(f"{path}: 'encoder.stem.weight' holds infinities")
    assert not out.exists()


# ----------------------------------------------------------------------------------------------
# Shipped models


def test_an_unknown_name_lists_the_known(monkeypatch):
    spec = Spec(file="x.safetensors", sha256="0" * 64, licence="")
    monkeypatch.setattr(io, "SPECS", {"one": spec, "two": spec})
    message = error_of(load_model, "moblie-mfr")
    assert message == "moblie-mfr: unknown model; known: one, two; or give a weights file"
    monkeypatch.setattr(io, "SPECS", {})
    assert "known: none installed" in error_of(load_model, "mobile-mfr")
    assert error_of(load_model, "no/such.safetensors") == "no/such.safetensors: no such file"


def test_a_shipped_file_is_checked_before_it_is_read(saved, tmp_path, monkeypatch):
    monkeypatch.setattr(specs, "WEIGHTS", tmp_path)
    file = tmp_path / "tiny.safetensors"
    spec = Spec(file=file.name, sha256=io.sha256_of(saved), licence="")
    assert spec.path == file
    monkeypatch.setattr(io, "SPECS", {"tiny": spec})
    assert error_of(load_model, "tiny") == f"tiny: {file} is missing; install panini-net again"
    content = bytearray(saved.read_bytes())
    file.write_bytes(content)
    assert load_model("tiny").config.out_size == 128
    content[-1] ^= 1
    file.write_bytes(content)
    assert error_of(load_model, "tiny") == f"tiny: {file} is damaged; install panini-net again"


@pytest.mark.parametrize("name", list(SPECS))
def test_shipped_models_load(name):
    spec = SPECS[name]
    assert spec.licence
    assert spec.path.stat().st_size <= 60_000_000
    assert sum(p.numel() for p in load_model(name).parameters()) <= 30_000_000


# ----------------------------------------------------------------------------------------------
# Priors

SMALL = MobileStyleGANConfig(size=16, w_dim=8, mapping_layers=1, base_channels=8, channels=(8,))


def test_a_prior_says_its_shape(tmp_path):
    path = tmp_path / "prior.safetensors"
    prior = MobileStyleGAN(SMALL)
    save_tensors(prior.state_dict(), path, kind="mobile-prior", meta={"config": asdict(SMALL)})
    loaded = load_prior(path)
    assert loaded.config == SMALL
    assert not loaded.training
    z = torch.ones(1, 8)
    torch.testing.assert_close(loaded(z), prior(z))


def test_a_prior_that_does_not_say_its_shape_is_the_public_one(tmp_path):
    path = tmp_path / "prior.safetensors"
    save_tensors(MobileStyleGAN(SMALL).state_dict(), path, kind="mobile-prior", meta={})
    # The public model has a head at 1024 px.
    message = error_of(load_prior, path)
    assert "missing tensors, first: 'mapping_layers.1.weight'" in message


@pytest.mark.parametrize("config", [{"size": 100}, {"colour": 1}, {"channels": 3}])
def test_a_prior_of_an_impossible_shape_is_refused(tmp_path, config):
    path = tmp_path / "prior.safetensors"
    config = json.loads(json.dumps(asdict(SMALL) | config))
    save_tensors({}, path, kind="mobile-prior", meta={"config": config})
    assert error_of(load_prior, path).startswith(f"{path}: its configuration is unusable")
