"""Trained discriminators: out of the files that hold them beside a generator, or a run's state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from panini.checkpoints.convert.authors import discriminator_names
from panini.checkpoints.io import load_state
from panini.checkpoints.torch_files import flatten, read_tree, reading
from panini.errors import CheckpointError
from panini.models.stylegan2 import Discriminator

_THEIRS = "discriminator."
_FILTER = ".kernel"  # the fixed blur filter, which our networks build themselves


def _plain(name: str) -> str:
    return name.replace(".conv.weight_orig", ".weight").replace(".linear.weight_orig", ".weight")


# Prefix in the file → our name of a tensor's name below it; rosinality's layers are those of the
# authors' framework without the wrapping of their weights.
_PLACES: dict[str, Callable[[Mapping[str, str]], Mapping[str, str]]] = {
    "module/discriminator/": lambda theirs: {ours: ours for ours in theirs.values()},
    f"state_dict.{_THEIRS}": lambda theirs: theirs,
    _THEIRS: lambda theirs: theirs,
    "d.": lambda theirs: {_plain(name): ours for name, ours in theirs.items()},
}


def load_discriminator(net: Discriminator, path: Path) -> None:
    """Give a StyleGAN2 discriminator trained weights.

    Args:
        net: Of the size and the widths of the one in the file.
        path: A state of a run of ours (`checkpoints/NIMG.safetensors`), or a file of the authors,
            of mmgen or of rosinality that has its discriminator still. `panini convert` keeps the
            generator alone.

    Raises:
        CheckpointError: The file is missing, damaged, without a discriminator, or has another one.
    """
    tree = read_tree(path)
    with reading(path):
        flat = flatten(tree)
    for prefix, table in _PLACES.items():
        own = {
            name.removeprefix(prefix): tensor
            for name, tensor in flat.items()
            if name.startswith(prefix) and not name.endswith(_FILTER)
        }
        if own:
            theirs = discriminator_names(net.config.size).items()
            names = table({name.removeprefix(_THEIRS): ours for name, ours in theirs})
            # Unknown ones keep their name: then they are told.
            load_state(net, {names.get(k, k): tensor for k, tensor in own.items()}, path)
            return
    raise CheckpointError(
        f"{path}: holds no discriminator; expected a state of a run of ours, or the file of a "
        "StyleGAN2 of mmgen or rosinality as it was before `panini convert`"
    )
