"""Foreign checkpoint files: which container it is, and the tensors in it, mapped rather than read.

Every size that a file states is held against the bytes that are there before anything is made of
it. Tensors are windows of the mapped file: a page is read when it is used, once.
"""

from __future__ import annotations

import mmap
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from panini.checkpoints.io import check_is_file, is_safetensors
from panini.checkpoints.kinds import printable
from panini.checkpoints.pickle_names import Module, Storage, UnsafeError, text_of
from panini.checkpoints.pickles import Budget, Machine, Reader
from panini.errors import CheckpointError

MAX_NODES = 200_000
"""Containers and values that a checkpoint is searched for tensors in."""
MAX_NAME = 512

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a zip entry: signature, lengths of name and extra

# What damaged bytes make the standard library, NumPy and torch raise.
_DAMAGE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    RuntimeError,
    SafetensorError,
    TypeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns whatever goes wrong with a file into one line about it.

    Raises:
        CheckpointError: Instead of what was raised inside.
    """
    try:
        yield
    except UnsafeError as error:
        raise CheckpointError(f"{path}: refused: {_line(error)}") from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from error
    except _DAMAGE as error:
        raise CheckpointError(
            f"{path}: not a whole checkpoint ({_line(error) or type(error).__name__});"
            " fetch or make it again"
        ) from error


def read_tree(path: Path) -> Any:
    """What a checkpoint holds, as plain containers, tensors and `Module`; nothing is run.

    Args:
        path: A file of `torch.save`, new (zip) or old, NVIDIA's pickle, or safetensors.

    Raises:
        CheckpointError: The file is missing, damaged, hostile, or none of these.
    """
    with reading(path):
        check_is_file(path)
        if is_safetensors(path):
            return _read_safetensors(path)
        data = _map(path)
        head = bytes(data[:512])
        if head[:4] == b"PK\3\4":
            return _read_zip(path, data)
        if head[:1] == b"\x80":
            return _read_stream(data, Budget(len(data)))
        if head[257:262] == b"ustar":
            raise UnsafeError("a tar archive; unpack it, or save it again with a newer PyTorch")
        raise UnsafeError("neither a zip file, nor a pickle, nor safetensors")


def flatten(tree: Any) -> dict[str, Tensor]:
    """All tensors of a tree by dotted name: "state_dict.generator.conv1.weight".

    Raises:
        UnsafeError: The tree is too large, or contains itself.
    """
    found: dict[str, Tensor] = {}
    todo: list[tuple[str, Any]] = [("", tree)]
    seen = 0
    while todo:
        prefix, node = todo.pop()
        for key, value in _children(node):
            seen += 1
            name = f"{prefix}{key}"
            if seen > MAX_NODES or len(name) > MAX_NAME:
                raise UnsafeError("it is nested without end")
            if isinstance(value, Tensor):
                found[name] = value
            elif isinstance(value, dict | list | tuple | Module):
                todo.append((f"{name}.", value))
    return found


def _children(node: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(node, Module):
        node = node.members()
    if isinstance(node, dict):
        yield from node.items()
    elif isinstance(node, list | tuple):
        yield from enumerate(node)


def _line(error: BaseException) -> str:
    return printable(" ".join(str(error).split()))[:300]


def _map(path: Path) -> memoryview:
    with path.open("rb") as file:
        # Private and writable, as torch wants its memory; nobody writes to it.
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def _no_persistent(_: Any) -> Any:
    raise UnsafeError("a tensor outside of a PyTorch file")


def _storage_id(identity: Any) -> tuple[torch.dtype, str, int]:
    """Type, key and length from ("storage", type, key, device, length, no view)."""
    if not isinstance(identity, tuple) or len(identity) not in (5, 6):
        raise UnsafeError("its pickle refers to something that is no storage")
    kind, dtype, key, _, count, *view = identity
    if kind != "storage" or not isinstance(dtype, torch.dtype) or type(count) is not int:
        raise UnsafeError("its pickle refers to something that is no storage")
    if view not in ([], [None]) or count < 0:
        raise UnsafeError("a storage that is a view of another")
    return dtype, text_of(key), count


def _read_zip(path: Path, data: memoryview) -> Any:
    """The format of torch.save since 1.6: a zip of one pickle and a file a storage."""
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
    roots = [name.removesuffix("data.pkl") for name in entries if name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise UnsafeError("a zip file, but not of torch.save: it has no data.pkl")
    root = roots[0]
    if f"{root}constants.pkl" in entries:
        raise UnsafeError("a TorchScript program; expected the weights alone (a state dict)")
    order = entries.get(f"{root}byteorder")
    if order is not None and bytes(_entry(data, order)) != b"little":
        raise UnsafeError("numbers of the other byte order")
    storages: dict[tuple[str, torch.dtype], Storage] = {}

    def load(identity: Any) -> Storage:
        dtype, key, count = _storage_id(identity)
        if (key, dtype) not in storages:
            content = _entry(data, entries[f"{root}data/{key}"])
            if count * dtype.itemsize > len(content):
                raise UnsafeError(f"it promises {count} numbers in {len(content)} bytes")
            storages[key, dtype] = Storage(dtype, count, content)
        return storages[key, dtype]

    pickled = _entry(data, entries[f"{root}data.pkl"])
    return Machine(Reader(pickled), Budget(len(pickled)), load).run()


def _entry(data: memoryview, entry: zipfile.ZipInfo) -> memoryview:
    """Content of a zip entry where it lies. torch never compresses, so a zip bomb ends here."""
    if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
        raise UnsafeError(
            f"{entry.filename[:100]!r} is compressed ({entry.compress_size} bytes for"
            f" {entry.file_size}), which torch.save never does"
        )
    signature, name, extra = _LOCAL_HEADER.unpack_from(data, entry.header_offset)
    if signature != b"PK\3\4" or entry.flag_bits & 1:
        raise UnsafeError("a zip entry that is not where the directory says, or encrypted")
    start = entry.header_offset + _LOCAL_HEADER.size + name + extra
    return Reader(data, start).take(entry.file_size)


def _read_stream(data: memoryview, budget: Budget) -> Any:
    """A pickle: NVIDIA's, or the first of those that torch.save wrote before 1.6."""

    def load_bytes(content: Any) -> Storage:
        storage = _read_legacy(Reader(memoryview(content)), budget)
        if not isinstance(storage, Storage):
            raise UnsafeError("a nested checkpoint that is no storage")
        return storage

    first = Machine(Reader(data), budget, _no_persistent, load_bytes).run()
    if isinstance(first, int) and first == _MAGIC:
        return _read_legacy(Reader(data), budget)
    return first


def _read_legacy(reader: Reader, budget: Budget) -> Any:
    """Three pickles of greeting, one of the object, one of storage keys, then the storages."""

    def run(persistent: Callable[[Any], Any] = _no_persistent) -> Any:
        return Machine(reader, budget, persistent).run()

    if run() != _MAGIC or run() != _PROTOCOL:
        raise UnsafeError("a version of torch.save that is not known")
    if not run().get("little_endian", True):
        raise UnsafeError("numbers of the other byte order")
    start = reader.position
    storages: dict[str, Storage] = {}

    def note(identity: Any) -> Storage:
        dtype, key, count = _storage_id(identity)
        return storages.setdefault(key, Storage(dtype, count, None))

    # The storages come after the object: once to learn of them, and once more to use them.
    run(note)
    for key in run():
        storage = storages[text_of(key)]
        if int.from_bytes(reader.take(8), "little") != storage.count:
            raise UnsafeError("a storage of another length than its tensors say")
        storage.data = reader.take(storage.count * storage.dtype.itemsize)
    if any(storage.data is None for storage in storages.values()):
        raise UnsafeError("a storage that is not in the file")
    reader = Reader(reader.data, start)
    return run(lambda identity: storages[_storage_id(identity)[1]])
