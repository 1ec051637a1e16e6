"""Pickles read as data: the few opcodes and names that a checkpoint needs, and nothing else.

An ordinary unpickler imports and calls whatever a file names, so loading a stranger's file runs a
stranger's program. The machine here builds tensors and plain containers. It imports nothing, calls
only the functions of `NAMES`, and refuses every other name aloud. Source code that a pickle
carries, as NVIDIA's do, is a text among others.
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

MAX_OPCODES = 1_000_000
"""Of one file; a pickle of one byte an opcode must not fill the memory. The authors' largest
checkpoint has about a tenth."""
MAX_LINE = 4096
MAX_SIDE = 1 << 40
"""No axis of a tensor is longer; keeps sums far from 64 bits."""
MAX_AXES = 16


class UnsafeError(ValueError):
    """A pickle is hostile, or asks for something that is not data."""


class Reader:
    """A position in bytes that are mapped, not read; what `pickletools` asks of a file."""

    def __init__(self, data: memoryview, position: int = 0) -> None:
        self.data = data
        self.position = position

    def read(self, count: int) -> bytes:
        """The next bytes, fewer at the end."""
        start, self.position = self.position, min(self.position + count, len(self.data))
        return bytes(self.data[start : self.position])

    def readline(self) -> bytes:
        """The next bytes to the end of the line, which must be near."""
        head = bytes(self.data[self.position : self.position + MAX_LINE])
        return self.read(head.find(b"\n") + 1)

    def tell(self) -> int:
        """The position."""
        return self.position

    def take(self, count: int) -> memoryview:
        """The next bytes, all of them, where they are.

        Raises:
            UnsafeError: The file ends before.
        """
        start, end = self.position, self.position + count
        if count < 0 or end > len(self.data):
            raise UnsafeError(f"it promises {count} bytes where {len(self.data) - start} are left")
        self.position = end
        return self.data[start:end]


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
class _NumpyType:
    code: str


@dataclass(frozen=True)
class _Function:
    """What a name of a pickle may be called for."""

    call: Callable[..., Any]


@dataclass
class Budget:
    """Opcodes that may still be run on a file."""

    left: int = field(default_factory=lambda: MAX_OPCODES)

    def spend(self) -> None:
        """Count one.

        Raises:
            UnsafeError: It was one too many.
        """
        self.left -= 1
        if self.left < 0:
            raise UnsafeError(f"its pickle has more than {MAX_OPCODES} steps")


def text_of(value: Any) -> str:
    """A string, and nothing that would have to be printed: printing a tree may never end.

    Raises:
        UnsafeError: It is something else.
    """
    if not isinstance(value, str):
        raise UnsafeError(f"a {type(value).__name__} in the place of a name")
    return value


def _scalar(value: Any) -> Any:
    # Keys of plain values only: hashing a deep tuple would overflow the interpreter's own stack.
    if value is None or isinstance(value, str | int | float):
        return value
    raise UnsafeError(f"a key of type {type(value).__name__}")


def _dict(pairs: Iterable[Any] = ()) -> dict[Any, Any]:
    return {_scalar(key): value for key, value in pairs}


def _set(items: Iterable[Any] = ()) -> set[Any]:
    return {_scalar(item) for item in items}


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
    return memoryview(text.encode("latin-1"))


def _numpy_type(code: Any, *_rest: Any) -> _NumpyType:
    if code not in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"):
        raise UnsafeError("a NumPy number of a type that is none")
    return _NumpyType(code)


def _numpy_scalar(kind: Any, data: Any) -> Any:
    if not isinstance(kind, _NumpyType) or not isinstance(data, memoryview):
        raise UnsafeError("a NumPy number without a type")
    return np.frombuffer(bytes(data), kind.code, 1)[0].item()


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
    "collections.OrderedDict": _Function(_dict),
    "dnnlib.util.EasyDict": _Function(_dict),
    "argparse.Namespace": _Function(lambda: Record()),
    "builtins.set": _Function(_set),
    "builtins.frozenset": _Function(_set),
    "builtins.bytearray": _Function(memoryview),
    "__builtin__.set": _Function(_set),
    "__builtin__.frozenset": _Function(_set),
    "_codecs.encode": _Function(_encode),
    "numpy.dtype": _Function(_numpy_type),
    "numpy.core.multiarray.scalar": _Function(_numpy_scalar),
    "numpy._core.multiarray.scalar": _Function(_numpy_scalar),
    "torch.Size": _Function(tuple),
    "torch.device": _Function(lambda *parts: parts),
    "torch._utils._rebuild_tensor": _Function(_tensor),
    "torch._utils._rebuild_tensor_v2": _Function(_tensor),
    "torch._utils._rebuild_parameter": _Function(lambda data, *_: data),
    "torch_utils.persistence._reconstruct_persistent_obj": _Function(_persistent),
    **{f"torch.{name}": dtype for name, dtype in _STORAGES.items()},
    **{str(dtype): dtype for dtype in _STORAGES.values()},
}
"""Everything that a pickle may name: a function of ours, or a type of numbers."""


class Machine:
    """Runs one pickle.

    Args:
        reader: Where the pickle starts; stands behind it afterwards.
        budget: Shared by all pickles of a file.
        persistent: Gives what a persistent id stands for.
        load_bytes: Gives the storage of a nested checkpoint; None refuses those.
    """

    def __init__(
        self,
        reader: Reader,
        budget: Budget,
        persistent: Callable[[Any], Any],
        load_bytes: Callable[[memoryview], Storage] | None = None,
    ) -> None:
        self._reader = reader
        self._budget = budget
        self._persistent = persistent
        self._names: Mapping[str, Any] = NAMES
        if load_bytes is not None:
            self._names = NAMES | {"torch.storage._load_from_bytes": _Function(load_bytes)}
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        """The object that was pickled.

        Raises:
            UnsafeError: It is not only data; its name is told.
            ValueError: The pickle is damaged; also IndexError, KeyError and TypeError.
        """
        for opcode, argument, _ in pickletools.genops(self._reader):  # type: ignore[arg-type]
            self._budget.spend()
            if opcode.name == "STOP":
                return self._stack.pop()
            step = getattr(self, f"_op_{opcode.name.lower()}", None)
            if step is None:
                raise UnsafeError(f"its pickle has the opcode {opcode.name}")
            step(argument)
        raise ValueError("a pickle without an end")

    def _ignore(self, _argument: Any) -> None:
        pass

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _push_bytes(self, value: bytes) -> None:
        end = self._reader.position
        self._push(self._reader.data[end - len(value) : end])

    def _pop_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._below.pop()
        return items

    def _top(self, kind: type) -> Any:
        if not isinstance(self._stack[-1], kind):
            raise UnsafeError(f"a {type(self._stack[-1]).__name__} used as a {kind.__name__}")
        return self._stack[-1]

    _op_proto = _op_frame = _ignore
    _op_int = _op_binint = _op_binint1 = _op_binint2 = _op_long = _op_long1 = _op_long4 = _push
    _op_float = _op_binfloat = _push
    _op_string = _op_binstring = _op_short_binstring = _push
    _op_unicode = _op_short_binunicode = _op_binunicode = _op_binunicode8 = _push
    _op_binbytes = _op_short_binbytes = _op_binbytes8 = _op_bytearray8 = _push_bytes

    def _op_none(self, _: Any) -> None:
        self._push(None)

    def _op_newtrue(self, _: Any) -> None:
        self._push(True)

    def _op_newfalse(self, _: Any) -> None:
        self._push(False)

    def _op_mark(self, _: Any) -> None:
        self._below.append(self._stack)
        self._stack = []

    def _op_pop(self, _: Any) -> None:
        self._stack.pop()

    def _op_pop_mark(self, _: Any) -> None:
        self._pop_mark()

    def _op_dup(self, _: Any) -> None:
        self._push(self._stack[-1])

    def _put(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    def _get(self, index: int) -> None:
        self._push(self._memo[index])

    _op_put = _op_binput = _op_long_binput = _put
    _op_get = _op_binget = _op_long_binget = _get

    def _op_memoize(self, _: Any) -> None:
        self._put(len(self._memo))

    def _op_empty_list(self, _: Any) -> None:
        self._push([])

    def _op_list(self, _: Any) -> None:
        self._push(self._pop_mark())

    def _op_append(self, _: Any) -> None:
        item = self._stack.pop()
        self._top(list).append(item)

    def _op_appends(self, _: Any) -> None:
        items = self._pop_mark()
        self._top(list).extend(items)

    def _op_empty_tuple(self, _: Any) -> None:
        self._push(())

    def _op_tuple(self, _: Any) -> None:
        self._push(tuple(self._pop_mark()))

    def _fold(self, count: int) -> None:
        self._stack[-count:] = [tuple(self._stack[-count:])]

    def _op_tuple1(self, _: Any) -> None:
        self._fold(1)

    def _op_tuple2(self, _: Any) -> None:
        self._fold(2)

    def _op_tuple3(self, _: Any) -> None:
        self._fold(3)

    def _op_empty_dict(self, _: Any) -> None:
        self._push({})

    def _op_dict(self, _: Any) -> None:
        items = self._pop_mark()
        self._push(_dict(zip(items[::2], items[1::2], strict=True)))

    def _op_setitem(self, _: Any) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._top(dict)[_scalar(key)] = value

    def _op_setitems(self, _: Any) -> None:
        items = self._pop_mark()
        self._top(dict).update(_dict(zip(items[::2], items[1::2], strict=True)))

    def _op_empty_set(self, _: Any) -> None:
        self._push(set())

    def _op_additems(self, _: Any) -> None:
        items = self._pop_mark()
        self._top(set).update(_set(items))

    def _op_frozenset(self, _: Any) -> None:
        self._push(_set(self._pop_mark()))

    def _op_global(self, name: str) -> None:
        self._find(*name.split(" ", 1))

    def _op_stack_global(self, _: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self._find(text_of(module), text_of(name))

    def _find(self, module: str, name: str) -> None:
        full = f"{module}.{name}"
        if full not in self._names:
            raise UnsafeError(
                f"its pickle asks for {full[:200]!r}, which is no tensor and no plain container;"
                " nothing was run"
            )
        self._push(self._names[full])

    def _op_reduce(self, _: Any) -> None:
        arguments = self._stack.pop()
        function = self._stack.pop()
        if not isinstance(function, _Function) or not isinstance(arguments, tuple):
            raise UnsafeError(f"its pickle calls a {type(function).__name__}")
        self._push(function.call(*arguments))

    _op_newobj = _op_reduce

    def _op_build(self, _: Any) -> None:
        state = self._stack.pop()
        target = self._stack[-1]
        if isinstance(target, Record):
            target.update(_dict(state.items()))
        elif isinstance(target, _NumpyType) and state[1] == ">":
            raise UnsafeError("numbers of the other byte order")
        # Other containers carry notes here (the version of a state dict), which nobody needs.

    def _op_binpersid(self, _: Any) -> None:
        self._push(self._persistent(self._stack.pop()))
