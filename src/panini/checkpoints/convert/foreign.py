"""Foreign checkpoints, a row of `FORMATS` each, and the one way in which all are mapped to ours.

A row says where the network's tensors are, one name that only this format has, what lies beside
the network and is left aside, and the table of names. A mapping uses every tensor of the network
once and leaves none of ours without one, or it is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from panini.checkpoints.convert import authors, stylegan2
from panini.checkpoints.kinds import Config, KindName, Recognition, Weights, check_fit, outline
from panini.checkpoints.pickle_names import MAX_KEY, Module, UnsafeError
from panini.checkpoints.torch_files import flatten, read_tree, reading
from panini.errors import CheckpointError
from panini.models.degradation_encoder import DegradationEncoderConfig
from panini.models.ops import blur_kernel
from panini.models.panini_net import named_config

Names = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Format:
    """A foreign format."""

    name: str
    title: str
    kind: KindName
    prefixes: tuple[str, ...]
    """Where the network's tensors are: the most wanted first, the bare network last."""
    signature: str
    """A name, below a prefix, that only this format has."""
    beside: tuple[str, ...] = ()
    """Starts of the names of what is left aside by design."""
    table: Callable[[Mapping[str, Tensor], Module], tuple[Config, Names]]
    """Config and names (theirs, without prefix, → ours) from the tensors and the pickled module."""
    extra: Names = field(default_factory=dict)
    """Tensors outside of the prefix that belong to the network, where they are there."""
    filters: tuple[str, float] | None = None
    """End of the names of fixed blur filters, and their sum; they are checked, then dropped."""


def _authors(own: Mapping[str, Tensor], _: Module) -> tuple[Config, Names]:
    task = "sr16" if "choice_vector" in own else "mfr"
    names = authors.sr_names() if task == "sr16" else authors.mfr_names()
    return named_config(f"{task}-1024"), {
        theirs.removeprefix("generator."): ours for theirs, ours in names.items()
    }


def _moco(_own: Mapping[str, Tensor], _: Module) -> tuple[Config, Names]:
    return DegradationEncoderConfig(kind="paper"), authors.encoder_names()


def _counted(dialect: stylegan2.Dialect) -> Callable[..., tuple[Config, Names]]:
    def table(own: Mapping[str, Tensor], _: Module) -> tuple[Config, Names]:
        config = stylegan2.counted_config(own, dialect)
        return config, stylegan2.counted_names(dialect, config)

    return table


def _nvidia(own: Mapping[str, Tensor], module: Module) -> tuple[Config, Names]:
    config = stylegan2.nvidia_config(own, module)
    return config, stylegan2.nvidia_names(config)


_MMCV = ("state_dict.generator_ema.", "state_dict.generator.", "generator_ema.", "generator.", "")
_MMCV_BESIDE = tuple(
    f"{top}{part}"
    for top in ("state_dict.", "")
    for part in ("generator.", "discriminator", "perceptual_loss.", "optimizer.", "meta.")
)

FORMATS = (
    Format(
        name="authors",
        title="the authors' Panini-Net",
        kind="panini-net",
        prefixes=_MMCV,
        signature="AFS_maskGen.mapping.0.weight",
        beside=_MMCV_BESIDE,
        table=_authors,
        filters=(".kernel", 4.0),
    ),
    Format(
        name="moco",
        title="the authors' degradation encoder (MoCo)",
        kind="degradation-encoder",
        prefixes=("state_dict.module.encoder_q.", "state_dict.encoder_q.", "module.encoder_q."),
        signature="E.0.weight",
        beside=tuple(
            f"{top}{part}"
            for top in ("state_dict.module.", "state_dict.", "module.", "")
            for part in ("encoder_k.", "queue", "optimizer.")
        ),
        table=_moco,
    ),
    Format(
        name="mmgen",
        title="StyleGAN2 of mmgen or mmedit",
        kind="stylegan2-prior",
        prefixes=_MMCV,
        signature="style_mapping.1.linear.weight_orig",
        beside=_MMCV_BESIDE,
        table=_counted(stylegan2.MMGEN),
        filters=(".kernel", 4.0),
    ),
    Format(
        name="rosinality",
        title="StyleGAN2 of rosinality's stylegan2-pytorch",
        kind="stylegan2-prior",
        prefixes=("g_ema.", "g.", ""),
        signature="conv1.conv.modulation.weight",
        beside=("g.", "d.", "g_optim.", "d_optim.", "args.", "ada_aug_p"),
        table=_counted(stylegan2.ROSINALITY),
        extra={"latent_avg": "w_avg"},
        filters=(".kernel", 4.0),
    ),
    Format(
        name="nvidia",
        title="StyleGAN2 of NVIDIA's stylegan2-ada-pytorch or stylegan3",
        kind="stylegan2-prior",
        prefixes=("G_ema.", "G.", ""),
        signature="synthesis.b4.const",
        beside=("G.", "D.", "augment_pipe.", "training_set_kwargs."),
        table=_nvidia,
        filters=(".resample_filter", 1.0),
    ),
)

REFUSED = {
    ".to_style1.weight": (
        "a generator of lucidrains' stylegan2-pytorch, which is another function: it enlarges"
        " bilinearly where StyleGAN2 has a blurred transposed convolution, adds fresh noise through"
        " a linear layer a channel where StyleGAN2 has one strength and a bias, and has no gain of"
        " √2, so no renaming maps it"
    ),
    "synthesis.input.freqs": (
        "an alias-free generator of StyleGAN3, which has no features at 4 to 64 px to fuse;"
        " expected one of config stylegan2"
    ),
}
"""Part of a name → why its format cannot be mapped."""


def read_foreign(path: Path) -> Weights:
    """Weights of a foreign file under our names, mapped from the file; the mean style may lack.

    Raises:
        CheckpointError: It is damaged, hostile, or none that can be mapped; one line says why.
    """
    tree = read_tree(path)
    with reading(path):
        flat = flatten(tree)
        for form in FORMATS:
            for prefix in form.prefixes:
                if prefix + form.signature in flat:
                    return _map(path, _Found(form, prefix, flat, _module(tree, prefix)))
    raise CheckpointError(f"{path}: {_why_unknown(flat)}")


@dataclass(frozen=True)
class _Found:
    """A format in a file."""

    form: Format
    prefix: str
    flat: dict[str, Tensor]
    module: Module

    def own(self) -> dict[str, Tensor]:
        """The network's tensors, without prefix."""
        start = len(self.prefix)
        return {name[start:]: t for name, t in self.flat.items() if name.startswith(self.prefix)}

    def left_aside(self) -> dict[str, int]:
        """Counts of what lies beside the network.

        Raises:
            CheckpointError: Something there is not known.
        """
        beside: Counter[str] = Counter()
        for name in self.flat:
            if name.startswith(self.prefix) or name in self.form.extra:
                continue
            start = next((part for part in self.form.beside if name.startswith(part)), None)
            if start is None:
                raise CheckpointError(f"{self.form.title}, but with an unknown tensor {name!r}")
            beside[start] += 1
        return dict(beside)


def _map(path: Path, found: _Found) -> Weights:
    form = found.form
    try:
        own = _without_filters(found.own(), form.filters)
        config, names = form.table(own, found.module)
        for theirs, ours in form.extra.items():
            if theirs in found.flat:
                own[theirs] = found.flat[theirs]
                names = {**names, theirs: ours}
        beside = found.left_aside()
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    net = outline(form.kind, config, path)
    state = _renamed(path, form, own, names, net.state_dict())
    recognition = Recognition(
        format=form.name,
        title=form.title,
        kind=form.kind,
        config=config,
        parameters=sum(parameter.numel() for parameter in net.parameters()),
        tensors=len(state),
        ema="ema" in found.prefix,
        left_aside=beside,
        notes=_notes(found.module),
        provenance=_arguments(found.module),
    )
    return Weights(recognition=recognition, state=state)


def _renamed(
    path: Path, form: Format, own: dict[str, Tensor], names: Names, net: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Each tensor under our name and in our shape, once."""
    assert len(set(names.values())) == len(names)
    # The mean style can be computed from the mapping network, and some formats do not store it.
    needed = {theirs for theirs, ours in names.items() if not ours.endswith("w_avg")}
    for problem, some in (("missing", needed - own.keys()), ("unknown", own.keys() - names.keys())):
        if some:
            first = ", ".join(repr(name[:100]) for name in sorted(some)[:3])
            raise CheckpointError(
                f"{path}: {form.title}, but {len(some)} of its tensors are {problem}: {first}"
            )
    state = {
        ours: _fitted(own[theirs], net[ours]) for theirs, ours in names.items() if theirs in own
    }
    expected = {name: net[name].shape for name in state} | {
        name: t.shape for name, t in net.items() if not name.endswith("w_avg")
    }
    check_fit(expected, {name: t.shape for name, t in state.items()}, path)
    _check_apart(path, state)
    return state


def _fitted(tensor: Tensor, target: Tensor) -> Tensor:
    """Add or drop axes of length one; another shape is left for `check_fit` to tell."""
    if tensor.is_floating_point() != target.is_floating_point():
        raise UnsafeError(f"numbers of type {tensor.dtype} in the place of {target.dtype}")
    short = [side for side in target.shape if side != 1]
    fits = [side for side in tensor.shape if side != 1] == short
    return tensor.reshape(target.shape) if fits else tensor


def _check_apart(path: Path, state: Mapping[str, Tensor]) -> None:
    """No byte of the file may be used twice, or a small file could make a huge network."""
    spans = []
    for name, tensor in state.items():
        steps = zip(tensor.shape, tensor.stride(), strict=True)
        length = 1 + sum((side - 1) * step for side, step in steps)
        spans.append((tensor.data_ptr(), length * tensor.itemsize, name))
    end, before = 0, ""
    for start, length, name in sorted(spans):
        if start < end:
            raise CheckpointError(f"{path}: refused: {name} and {before} share their numbers")
        end, before = start + length, name


def _without_filters(
    own: dict[str, Tensor], filters: tuple[str, float] | None
) -> dict[str, Tensor]:
    """Drop the fixed blur filters, which our networks make themselves, if they are the same."""
    if filters is None:
        return own
    end, total = filters
    for name, tensor in own.items():
        if not name.endswith(end):
            continue
        expected = blur_kernel(total)
        if tensor.shape != expected.shape or not torch.allclose(tensor.float(), expected, 1e-3):
            raise CheckpointError(
                f"its filter {name[:100]!r} is not [1, 3, 3, 1] with the sum {total:g}"
            )
    return {name: tensor for name, tensor in own.items() if not name.endswith(end)}


def _module(tree: Any, prefix: str) -> Module:
    """The pickled module whose tensors start with a prefix; an empty one if there is none."""
    node = tree.get(prefix.rstrip(".")) if isinstance(tree, dict) else tree
    return node if isinstance(node, Module) else Module("", {})


def _notes(module: Module) -> tuple[str, ...]:
    clamp = module.child("synthesis.b8.conv0").state.get("conv_clamp")
    if not isinstance(clamp, int | float):
        return ()
    return (
        f"made with activations clamped to ±{clamp:g}, which is not done here: the images are"
        " equal as long as none is larger",
    )


def _arguments(module: Module) -> dict[str, Any]:
    """What a pickled network was made with, as JSON."""
    arguments = module.state.get("_init_kwargs")
    return {"init_kwargs": _plain(arguments, 3)} if isinstance(arguments, dict) else {}


def _plain(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return value[:200]
    if value is None or isinstance(value, float):
        return value
    if isinstance(value, int) and abs(value) <= MAX_KEY:  # longer ones may be too long to print
        return value
    if isinstance(value, dict) and depth:
        items = list(value.items())[:50]
        return {_plain(str(key), 0): _plain(item, depth - 1) for key, item in items}
    if isinstance(value, list | tuple) and depth:
        return [_plain(item, depth - 1) for item in value[:50]]
    return type(value).__name__


def _why_unknown(flat: Mapping[str, Tensor]) -> str:
    for part, reason in REFUSED.items():
        if any(part in name for name in flat):
            return reason
    if not flat:
        return "it holds no tensors"
    known = ", ".join(form.name for form in FORMATS)
    first = ", ".join(repr(name[:100]) for name in list(flat)[:3])
    return f"{len(flat)} tensors of no known format ({known}), such as {first}"
