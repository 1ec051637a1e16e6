"""Every checkpoint that can be loaded, in one way: ours, foreign ones, the mobile prior's wheel.

`recognise` says what a file is, `read` gives its weights under our names, `convert` writes them,
and `load_model`, `load_prior` and `load_degradation_encoder` build the network.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from panini.checkpoints.convert import mobile_prior
from panini.checkpoints.convert.foreign import read_foreign
from panini.checkpoints.convert.stylegan2 import W_AVG_SAMPLES, mean_style
from panini.checkpoints.io import (
    OWN_PRIOR,
    Header,
    load_state,
    load_tensors,
    read_header,
    resolve,
    save_tensors,
    sha256_of,
)
from panini.checkpoints.kinds import (
    KINDS,
    KindName,
    Recognition,
    Weights,
    check_fit,
    check_values,
    config_of,
    outline,
    to_json,
)
from panini.checkpoints.torch_files import reading
from panini.errors import CheckpointError
from panini.models.degradation_encoder import DegradationEncoder
from panini.models.mobile_stylegan import MobileStyleGAN, MobileStyleGANConfig
from panini.models.panini_net import PaniniConfig, PaniniNet
from panini.models.stylegan2 import StyleGAN2, StyleGAN2Config


def recognise(path: str | os.PathLike[str]) -> Recognition:
    """Say what a file is, from its names and shapes; nothing of it is run, little is read.

    Args:
        path: Any file (or the mobile prior's folder), a shipped model's name, or hf://owner/repo.

    Raises:
        CheckpointError: It is damaged, hostile, or none that can be mapped; one line says why.
    """
    return _read(resolve(path), tensors=False).recognition


def read(path: str | os.PathLike[str]) -> Weights:
    """A file's weights under our names, complete; see `recognise`."""
    return _with_mean_style(_read(resolve(path), tensors=True))


def convert(
    path: str | os.PathLike[str], out: str | os.PathLike[str], *, overwrite: bool = False
) -> Recognition:
    """Write any file that is recognised as safetensors of ours, with config and provenance.

    Args:
        path: See `recognise`.
        out: The .safetensors file; written whole or not at all.
        overwrite: Whether `out` may be replaced.

    Raises:
        CheckpointError: As of `recognise`; or its numbers are not finite; or `out` exists or cannot
            be written.
    """
    source, out = resolve(path), Path(out)
    if out.suffix != ".safetensors":
        raise CheckpointError(f"{out}: expected a name that ends in .safetensors")
    if out.exists() and not overwrite:
        raise CheckpointError(f"{out}: exists already; add --overwrite to replace it")
    weights = read(source)
    found = weights.recognition
    check_values(outline(found.kind, found.config, source).state_dict(), weights.state, source)
    provenance = dict(found.provenance)
    if found.format not in ("ours", "random-face"):
        origin = {"source": source.name, "sha256": sha256_of(source), "format": found.title}
        provenance = origin | {"ema": found.ema, "notes": list(found.notes)} | provenance
    meta = {"config": to_json(found.config), "provenance": provenance}
    kept = {OWN_PRIOR + name: tensor for name, tensor in _own_prior(source).items()}
    save_tensors(weights.state | kept, out, kind=found.kind, meta=meta)
    return found


def load_model(name_or_path: str | os.PathLike[str], *, own_prior: bool = False) -> PaniniNet:
    """A trained network, float32, in eval mode, on the CPU.

    Args:
        name_or_path: A shipped model's name ("mobile-mfr"), a file of ours or of the authors,
            or hf://owner/repo on the Hugging Face hub.
        own_prior: With the prior as it was before restoration changed it, see `load_network_prior`.

    Raises:
        CheckpointError: Unknown name; a file that is missing, damaged, or no Panini-Net.
    """
    net = _build(name_or_path, "panini-net")
    assert isinstance(net, PaniniNet)
    if own_prior:
        _undo_restoration(net.prior, resolve(name_or_path))
    return net


def load_prior(path: str | os.PathLike[str]) -> StyleGAN2 | MobileStyleGAN:
    """A face generator of any format, float32, in eval mode, on the CPU.

    Raises:
        CheckpointError: The file is missing, damaged, or no prior.
    """
    net = _build(path, "stylegan2-prior", "mobile-prior")
    assert isinstance(net, StyleGAN2 | MobileStyleGAN)
    return net


def load_network_prior(name_or_path: str | os.PathLike[str]) -> StyleGAN2 | MobileStyleGAN:
    """The face generator of a network, as it was before restoration changed it.

    Restoration may train the prior above the fused levels: what it then draws alone are no faces to
    learn from. A file of ours keeps the tensors that it had; of other files it is the prior inside.

    Args:
        name_or_path: What `load_model` takes.

    Raises:
        CheckpointError: As `load_model`; or what is kept does not fit.
    """
    prior = load_model(name_or_path, own_prior=True).prior
    assert isinstance(prior, StyleGAN2 | MobileStyleGAN)
    return prior


def _undo_restoration(prior: torch.nn.Module, source: Path) -> None:
    """Put back what a network's file keeps of its prior as it was."""
    if own := _own_prior(source):
        load_state(prior, prior.state_dict() | own, source)


def _own_prior(source: Path) -> dict[str, Tensor]:
    """The prior's tensors that a network's file keeps as they were, by their names in the prior."""
    header = None if source.is_dir() else read_header(source)
    kept = [] if header is None else [n for n in header.shapes if n.startswith(OWN_PRIOR)]
    if not kept:
        return {}
    state, _ = load_tensors(source, kind="panini-net", names=kept)
    return {name.removeprefix(OWN_PRIOR): tensor for name, tensor in state.items()}


def load_degradation_encoder(name_or_path: str | os.PathLike[str]) -> DegradationEncoder:
    """A degradation encoder, or that of a network, in eval mode, on the CPU.

    Args:
        name_or_path: A file of stage 1, the authors' MoCo file, or what `load_model` takes.

    Raises:
        CheckpointError: The file is missing, damaged, or has no degradation encoder.
    """
    net = _build(name_or_path, "degradation-encoder", "panini-net")
    if isinstance(net, PaniniNet):
        if net.config.degradation_encoder is None:
            raise CheckpointError(f"{name_or_path}: this network has no degradation encoder")
        net = net.degradation_encoder
    assert isinstance(net, DegradationEncoder)
    return net


def _build(path: str | os.PathLike[str], *kinds: KindName) -> torch.nn.Module:
    source = resolve(path)
    weights = read(source)
    found = weights.recognition
    if found.kind not in kinds:
        wanted = " or ".join(KINDS[kind].title for kind in kinds)
        raise CheckpointError(f"{source}: expected a {wanted}, found a {KINDS[found.kind].title}")
    net = KINDS[found.kind].build(found.config)
    load_state(net, weights.state, source)
    return net.eval()


def _read(path: Path, *, tensors: bool) -> Weights:
    """Weights of a file; without `tensors`, the state may be empty."""
    with reading(path):
        is_wheel = mobile_prior.is_mobile_prior(path)
    if is_wheel:
        return _read_wheel(path, tensors=tensors)
    header = read_header(path)
    return read_foreign(path) if header is None else _read_ours(path, header, tensors=tensors)


def _read_ours(path: Path, header: Header, *, tensors: bool) -> Weights:
    if header.kind not in KINDS:
        raise CheckpointError(f"{path}: holds {header.kind!r}, which this version does not know")
    kind = cast(KindName, header.kind)
    # Old files of the mobile prior do not say their shape: it is the public model's.
    fields = header.meta.get("config", {} if kind == "mobile-prior" else None)
    shapes = {n: shape for n, shape in header.shapes.items() if not n.startswith(OWN_PRIOR)}
    config = config_of(kind, fields, len(shapes), path)
    net = outline(kind, config, path)
    check_fit({name: t.shape for name, t in net.state_dict().items()}, shapes, path)
    provenance = header.meta.get("provenance")
    recognition = Recognition(
        format="ours",
        title="panini-net weights",
        kind=kind,
        config=config,
        parameters=sum(parameter.numel() for parameter in net.parameters()),
        tensors=len(shapes),
        provenance=provenance if isinstance(provenance, dict) else {},
    )
    state = load_tensors(path, kind=kind, names=shapes)[0] if tensors else {}
    return Weights(recognition=recognition, state=state)


def _read_wheel(path: Path, *, tensors: bool) -> Weights:
    net = outline("mobile-prior", MobileStyleGANConfig(), path)
    notes = ("w_avg and the image heads below 1024 px are derived; a conversion takes a minute",)
    recognition = Recognition(
        format="random-face",
        title="the mobile prior's wheel",
        kind="mobile-prior",
        config=MobileStyleGANConfig(),
        parameters=sum(parameter.numel() for parameter in net.parameters()),
        tensors=len(mobile_prior.read_mobile_prior(path)),
        notes=notes,
        provenance=mobile_prior.PROVENANCE,
    )
    if not tensors:
        return Weights(recognition=recognition, state={})
    prior, quality = mobile_prior.build_mobile_prior(path)
    heads = (f"image head {side} px derived, {psnr:.1f} dB" for side, psnr in quality.items())
    recognition = replace(recognition, config=prior.config, notes=tuple(heads))
    return Weights(recognition=recognition, state=prior.state_dict())


def _with_mean_style(weights: Weights) -> Weights:
    """Add the mean of w where a format does not store it."""
    found = weights.recognition
    prefix = "prior." if isinstance(found.config, PaniniConfig) else ""
    prior = found.config.prior if isinstance(found.config, PaniniConfig) else found.config
    if not isinstance(prior, StyleGAN2Config) or f"{prefix}w_avg" in weights.state:
        return weights
    mean: Tensor = mean_style(weights.state, prior, prefix)
    note = f"the mean style is estimated from {W_AVG_SAMPLES} latents: the file has none"
    return Weights(
        recognition=replace(found, notes=(*found.notes, note)),
        state=weights.state | {f"{prefix}w_avg": mean},
    )
