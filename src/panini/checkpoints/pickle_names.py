"""What a pickle may name: tensors and plain containers, made by functions of ours.

Everything that a stranger's pickle can reach is in this file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

MAX_SIDE = 1 << 40
"""No axis of a tensor is longer; keeps sums far from 64 bits."""
MAX_AXES = 16
MAX_KEY = 1 << 60
"""No whole number in the place of a key is larger: their hashes stay apart."""


class UnsafeError(ValueError):
    """A file is hostile, or asks for something that is not data."""


@dataclass(eq=False)
class Storage:
    """The numbers that tensors are views of."""

    dtype: torch.dtype
    count: int
    data: memoryview | None
    """Where they are; None while the place is not yet known."""

    @cached_property
    def flat(self) -> Tensor:
        """All of them, mapped: no memory is used before a number is looked at."""
        if self.count == 0 or self.data is None:
            return torch.empty(0, dtype=self.dtype)
        return torch.frombuffer(self.data, dtype=self.dtype, count=self.count)


@dataclass(eq=False)
class Module:
    """A pickled network: its class is only a name, its state plain data."""

    class_name: str
    state: dict[str, Any]

    def members(self) -> dict[str, Any]:
        """Parameters, buffers and modules by name."""
        found: dict[str, Any] = {}
        for group in ("_parameters", "_buffers", "_modules"):
            members = self.state.get(group)
            found |= members if isinstance(members, dict) else {}
        return found

    def child(self, path: str) -> Module:
        """The module of a dotted name; an empty one if there is none."""
        module = self
        for name in path.split("."):
            child = module.members().get(name)
            module = child if isinstance(child, Module) else Module("", {})
        return module


class Record(dict[str, Any]):
    """A bag of attributes, such as parsed command-line arguments."""


@dataclass
class NumpyType:
    """A type of numbers, by NumPy's code."""

    code: str


@dataclass(frozen=True)
class Function:
    """What a name of a pickle may be called for."""

    call: Callable[..., Any]
    copies: bool = False
    """Whether what it makes grows with its first argument."""


def text_of(value: Any) -> str:
    """A string, and nothing that would have to be printed: printing a tree may never end.

    Raises:
        UnsafeError: It is something else.
    """
    if not isinstance(value, str):
        raise UnsafeError(f"a {type(value).__name__} in the place of a name")
    return value


def scalar_of(value: Any) -> Any:
    """A plain value, fit for a key: hashing a deep tuple would overflow the interpreter's stack.

    Raises:
        UnsafeError: It is a container, or a number of which many could have the same hash.
    """
    if isinstance(value, int) and abs(value) > MAX_KEY:
        raise UnsafeError("a key that is a number of more than 60 bits")
    if value is None or isinstance(value, str | int | float):
        return value
    raise UnsafeError(f"a key of type {type(value).__name__}")


def dict_of(pairs: Iterable[Any] = ()) -> dict[Any, Any]:
    """A dictionary of plain keys."""
    return {scalar_of(key): value for key, value in pairs}


def set_of(items: Iterable[Any] = ()) -> set[Any]:
    """A set of plain values."""
    return {scalar_of(item) for item in items}


def _lengths(values: Any) -> tuple[int, ...]:
    if not isinstance(values, tuple | list) or len(values) > MAX_AXES:
        raise UnsafeError("a tensor without a shape")
    if any(type(value) is not int or not 0 <= value < MAX_SIDE for value in values):
        raise UnsafeError("a tensor of impossible size")
    return tuple(values)


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_rest: Any) -> Tensor | None:
    """A view of a storage that lies inside it and is no larger (`expand` is refused)."""
    if not isinstance(storage, Storage):
        raise UnsafeError("a tensor without a storage")
    shape, steps, (start,) = _lengths(size), _lengths(stride), _lengths((offset,))
    count = math.prod(shape)
    last = start + sum((side - 1) * step for side, step in zip(shape, steps, strict=True))
    if count > storage.count or (count and last >= storage.count):
        raise UnsafeError(f"a tensor of shape {shape} in a storage of {storage.count} numbers")
    if storage.data is None:
        return None
    return storage.flat.as_strided(shape, steps, start)


def _persistent(meta: Any) -> Module:
    """NVIDIA's object with its source beside it: the source stays unread."""
    if not isinstance(meta, dict) or not isinstance(meta.get("state"), dict):
        raise UnsafeError("a persistent object without a state")
    return Module(text_of(meta.get("class_name")), meta["state"])


def _encode(text: str, encoding: str) -> memoryview:
    if encoding not in ("latin1", "latin-1"):
        raise UnsafeError("bytes that are not encoded as latin-1")
    return memoryview(bytearray(text, "latin-1"))


def _numpy_type(code: Any, *_rest: Any) -> NumpyType:
    if code not in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"):
        raise UnsafeError("a NumPy number of a type that is none")
    return NumpyType(code)


def _numpy_scalar(kind: Any, data: Any) -> Any:
    if not isinstance(kind, NumpyType) or not isinstance(data, memoryview):
        raise UnsafeError("a NumPy number without a type")
    return np.frombuffer(data, kind.code, 1)[0].item()


_STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
}

NAMES: dict[str, Any] = {
    "collections.OrderedDict": Function(dict_of, copies=True),
    "dnnlib.util.EasyDict": Function(dict_of, copies=True),
    "argparse.Namespace": Function(lambda: Record()),
    "builtins.set": Function(set_of, copies=True),
    "builtins.frozenset": Function(set_of, copies=True),
    "builtins.bytearray": Function(memoryview),
    "__builtin__.set": Function(set_of, copies=True),
    "__builtin__.frozenset": Function(set_of, copies=True),
    "_codecs.encode": Function(_encode, copies=True),
    "numpy.dtype": Function(_numpy_type),
    "numpy.core.multiarray.scalar": Function(_numpy_scalar),
    "numpy._core.multiarray.scalar": Function(_numpy_scalar),
    "torch.Size": Function(_lengths),
    "torch.device": Function(lambda *parts: parts),
    "torch._utils._rebuild_tensor": Function(_tensor),
    "torch._utils._rebuild_tensor_v2": Function(_tensor),
    "torch._utils._rebuild_parameter": Function(lambda data, *_: data),
    "torch_utils.persistence._reconstruct_persistent_obj": Function(_persistent),
    **{f"torch.{name}": dtype for name, dtype in _STORAGES.items()},
    **{str(dtype): dtype for dtype in _STORAGES.values()},
}
"""Everything that a pickle may name: a function of ours, or a type of numbers."""
