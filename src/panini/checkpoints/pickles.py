"""Pickles read as data: the few opcodes and names that a checkpoint needs, and nothing else.

An ordinary unpickler imports and calls whatever a file names, so loading a stranger's file runs a
stranger's program. The machine here builds tensors and plain containers. It imports nothing, calls
only the functions of `NAMES`, and refuses every other name aloud. Source code that a pickle
carries, as NVIDIA's do, is a text among others.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from panini.checkpoints.pickle_names import (
    NAMES,
    Function,
    NumpyType,
    Record,
    Storage,
    UnsafeError,
    dict_of,
    scalar_of,
    set_of,
    text_of,
)

MAX_OPCODES = 500_000
"""Of one file: a pickle of one byte an opcode must not fill the memory. The largest checkpoints of
the field have about a fifth."""
MAX_LINE = 4096


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


@dataclass
class Budget:
    """What may still be done for a file."""

    letters: int
    """That calls may copy: the file's bytes, of which an honest one copies each once at most."""
    left: int = field(default_factory=lambda: MAX_OPCODES)
    """Steps: opcodes that are run, and items that they copy."""

    def spend(self, steps: int = 1) -> None:
        """Count steps.

        Raises:
            UnsafeError: They were too many.
        """
        self.left -= steps
        if self.left < 0:
            raise UnsafeError(f"its pickle has more than {MAX_OPCODES} steps")

    def copy(self, value: Any) -> None:
        """Count what is copied of a value: a file may name it once, and copy it without end.

        Raises:
            UnsafeError: It was too much, or nothing that is copied.
        """
        if isinstance(value, list | tuple | dict | set):
            self.spend(len(value))
        elif isinstance(value, str):
            self.letters -= len(value)
            if self.letters < 0:
                raise UnsafeError("its pickle copies more text than it holds")
        else:
            # A tensor, for one, would fall apart into as many as it has rows.
            raise UnsafeError(f"its pickle copies a {type(value).__name__}")


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
            self._names = NAMES | {"torch.storage._load_from_bytes": Function(load_bytes)}
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
        self._memo[scalar_of(index)] = self._stack[-1]

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
        self._push(dict_of(zip(items[::2], items[1::2], strict=True)))

    def _op_setitem(self, _: Any) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._top(dict)[scalar_of(key)] = value

    def _op_setitems(self, _: Any) -> None:
        items = self._pop_mark()
        self._top(dict).update(dict_of(zip(items[::2], items[1::2], strict=True)))

    def _op_empty_set(self, _: Any) -> None:
        self._push(set())

    def _op_additems(self, _: Any) -> None:
        items = self._pop_mark()
        self._top(set).update(set_of(items))

    def _op_frozenset(self, _: Any) -> None:
        self._push(set_of(self._pop_mark()))

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
        if not isinstance(function, Function) or not isinstance(arguments, tuple):
            raise UnsafeError(f"its pickle calls a {type(function).__name__}")
        self._budget.spend(len(arguments))
        if function.copies and arguments:
            self._budget.copy(arguments[0])
        self._push(function.call(*arguments))

    _op_newobj = _op_reduce

    def _op_build(self, _: Any) -> None:
        state = self._stack.pop()
        target = self._stack[-1]
        if isinstance(target, Record):
            self._budget.copy(state)
            target.update(dict_of(state.items()))
        elif isinstance(target, NumpyType) and state[1] == ">":
            raise UnsafeError("numbers of the other byte order")
        # Other containers carry notes here (the version of a state dict), which nobody needs.

    def _op_binpersid(self, _: Any) -> None:
        self._push(self._persistent(self._stack.pop()))
