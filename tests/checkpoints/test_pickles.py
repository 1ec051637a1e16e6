"""Hostile and damaged checkpoints: one line each, nothing executed, no memory taken."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from panini.checkpoints import recognise
from panini.checkpoints.pickle_names import NAMES, Module
from panini.checkpoints.torch_files import flatten, read_tree
from panini.errors import CheckpointError

LIMIT_MB = 256
"""What reading a hostile file may take beyond what the process has."""


class Call:
    """Pickles as a call."""

    def __init__(self, function, *arguments) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def error_of(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        flatten(read_tree(path))
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    assert len(message) < 600
    return message


def zipped(path: Path, pickled: bytes, *, compression=zipfile.ZIP_STORED, **entries) -> Path:
    """A file in the layout of torch.save."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        for name, content in entries.items():
            archive.writestr(f"archive/{name.replace('__', '/')}", content)
    return path


def legacy(*pickles: bytes) -> bytes:
    """The old layout of torch.save: greeting, object, keys."""
    info = {"protocol_version": 1001, "little_endian": True}
    greeting = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, info)]
    return b"".join([*greeting, *pickles])


def tensor_pickle(
    count: int, offset: int, size: tuple, stride: tuple, around=lambda tensor: tensor
) -> bytes:
    """A pickle of {"a": a tensor of a storage "0"}, with any numbers."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj):
            return ("storage", torch.FloatStorage, "0", "cpu", count) if obj == "STORAGE" else None

    buffer = io.BytesIO()
    rebuild = torch._utils._rebuild_tensor_v2
    tensor = Call(rebuild, "STORAGE", offset, size, stride, False, OrderedDict())
    Pickler(buffer, 2).dump({"a": around(tensor)})
    return buffer.getvalue()


# ----------------------------------------------------------------------------------------------
# What is read


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_what_torch_saves_comes_back(tmp_path, new):
    wide = torch.arange(12.0).view(3, 4)
    content = {
        "a": {"turned": wide.T, "row": wide[1], "half": torch.ones(3).half(), "none": None},
        "b": [torch.tensor(7), (nn.Parameter(torch.zeros(2, 0)), "text")],
        "c": OrderedDict(x=torch.tensor([True, False]), y=np.float64(0.5), z={1, 2}),
        3: torch.tensor([1.5], dtype=torch.bfloat16),
    }
    path = tmp_path / "a.pt"
    torch.save(content, path, _use_new_zipfile_serialization=new)
    tree = read_tree(path)
    assert tree["c"]["y"] == 0.5
    assert tree["c"]["z"] == {1, 2}
    found = flatten(tree)
    assert list(found) == ["3", "c.x", "b.0", "b.1.0", "a.turned", "a.row", "a.half"]
    for name, tensor in (
        ("a.turned", wide.T),
        ("a.row", wide[1]),
        ("b.0", torch.tensor(7)),
        ("b.1.0", torch.zeros(2, 0)),
        ("c.x", torch.tensor([True, False])),
        ("3", torch.tensor([1.5], dtype=torch.bfloat16)),
    ):
        assert torch.equal(found[name], tensor), name


def test_nvidias_objects_are_state_and_a_name(nvidia):
    module = nvidia.module({"mapping.fc0.weight": torch.ones(2, 2), "w_avg": torch.zeros(2)})
    tree = read_tree(nvidia({"G_ema": module, "training_set_kwargs": {"path": "x"}}))
    generator = tree["G_ema"]
    assert isinstance(generator, Module)
    assert generator.class_name == "Generator"
    assert generator.child("mapping.fc0").state["bias_gain"] == 0.01
    assert generator.child("no.such").state == {}
    assert set(flatten(tree)) == {"G_ema.mapping.fc0.weight", "G_ema.w_avg"}


def test_tensors_are_windows_of_the_file(tmp_path):
    """Nothing is copied: a number changed in the file after reading is changed in the tensor."""
    path = tmp_path / "a.pt"
    torch.save({"a": torch.full((4096,), 3.0)}, path)
    tensor = flatten(read_tree(path))["a"]
    data = path.read_bytes()
    at = data.index(struct.pack("<f", 3.0) * 4)
    with path.open("r+b") as file:
        file.seek(at)
        file.write(struct.pack("<f", 5.0))
    assert tensor[0] == 5.0


def test_the_names_that_a_pickle_may_use_make_data_only():
    for name in NAMES:
        assert name.split(".")[0] not in ("os", "sys", "posix", "subprocess", "importlib", "nt")
    assert "builtins.getattr" not in NAMES
    assert "builtins.eval" not in NAMES


# ----------------------------------------------------------------------------------------------
# What is refused


@pytest.fixture
def canary(tmp_path) -> Path:
    """A file that comes to be if something is executed."""
    path = tmp_path / "canary"
    yield path
    assert not path.exists()


def commands(canary: Path) -> list[object]:
    code = f"open({str(canary)!r}, 'w')"
    return [
        Call(os.system, f"touch {canary}"),
        Call(exec, code),
        Call(eval, code),
        Call(subprocess.Popen, ["touch", str(canary)]),
        Call(getattr, "os", "system"),
        Call(torch.load, str(canary)),
        Call(type(sys.stdout), canary),
    ]


def test_the_canary_sings_in_an_ordinary_unpickler(tmp_path):
    """The attack is real: the same bytes run where pickles are trusted."""
    path = tmp_path / "canary"
    pickle.loads(pickle.dumps(Call(os.system, f"touch {path}")))
    assert path.exists()


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("layout", ["zip", "legacy", "plain", "nvidia", "nested"])
def test_a_call_is_refused_by_name_and_not_made(layout, protocol, tmp_path, canary, nvidia):
    path = tmp_path / "a.pkl"
    for command in commands(canary)[:5]:
        pickled = pickle.dumps({"state_dict": command}, protocol)
        if layout == "zip":
            zipped(path, pickled)
        elif layout == "legacy":
            path.write_bytes(legacy(pickled, pickle.dumps([], 2)))
        elif layout == "plain":
            path.write_bytes(pickled)
        elif layout == "nvidia":
            module = nvidia.module({"w_avg": torch.zeros(1)})
            module.trap = command
            nvidia({"G_ema": module}, path, protocol=protocol)
        else:
            inner = legacy(pickled, pickle.dumps([], 2))
            outer = Call(torch.storage._load_from_bytes, inner)
            path.write_bytes(pickle.dumps({"a": outer}, max(protocol, 3)))
        message = error_of(path)
        assert "refused: its pickle asks for '" in message
        assert message.endswith("which is no tensor and no plain container; nothing was run")
    assert "'builtins.getattr'" in message or "'__builtin__.getattr'" in message


def test_the_source_in_a_pickle_is_not_run(tmp_path, canary, nvidia):
    module = nvidia.module({"w_avg": torch.zeros(1)})
    type(module).source, kept = f"open({str(canary)!r}, 'w')", type(module).source
    try:
        path = nvidia({"G_ema": module})
    finally:
        type(module).source = kept
    assert str(canary).encode() in path.read_bytes()
    assert set(flatten(read_tree(path))) == {"G_ema.w_avg"}


@pytest.mark.parametrize(
    ("pickled", "reason"),
    [
        (b"(S'touch x'\nios\nsystem\n.", "the opcode INST"),
        (b"cos\nsystem\n.", "asks for 'os.system'"),
        (b"c__builtin__\nset\n](K\x01K\x02e\x85R.", None),
        (b"(ccollections\nOrderedDict\no.", "the opcode OBJ"),
        (b"\x82\x01.", "the opcode EXT1"),
        (b"K\x01Pabc\n.", "the opcode PERSID"),
        (b"}K\x05Q.", "something that is no storage"),
        (b"ctorch\nFloatStorage\n)R.", "its pickle calls a dtype"),
        (b"ccollections\nOrderedDict\nK\x01R.", "its pickle calls a Function"),
        (b"}(])K\x01u.", "a key of type list"),
        (b"}))s.", "a key of type tuple"),
        (b"]}K\x01K\x02s\x85a.", None),
        (b"K\x01K\x02a.", "a int used as a list"),
        (b"}\x8a\x08" + (1 << 60).to_bytes(8, "little") + b"K\x01s.", None),
        (b"}\x8a\x08" + (1 << 61).to_bytes(8, "little") + b"K\x01s.", "of more than 60 bits"),
        (b"]p%d\n." % (1 << 61), "of more than 60 bits"),
        (b"ctorch\nSize\n(K\x02K\x03t\x85R.", None),
        (b"ctorch\nSize\n(X\x02\x00\x00\x00abtR.", "a tensor without a shape"),
        (b"(K\x01K\x02K\x03K\x04K\x05K\x06K\x07tQ.", "something that is no storage"),
        (b"\x8c\x02os\x94K\x01\x93.", "a int in the place of a name"),
        (b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x04\x00\x00\x00utf7tR.", "as latin-1"),
        (b"cnumpy\ndtype\n(U\x02O8tR.", "a NumPy number of a type"),
        (b"h\x07.", "not a whole checkpoint"),
        (b"0.", "not a whole checkpoint"),
        (b"", "not a whole checkpoint"),
    ],
)
def test_opcodes_do_what_they_may_and_no_more(tmp_path, pickled, reason):
    path = tmp_path / "a.pt"
    zipped(path, b"\x80\x02" + pickled)
    if reason is None:
        read_tree(path)
    else:
        assert reason in error_of(path)


@pytest.mark.parametrize(
    ("count", "offset", "size", "stride", "reason"),
    [
        (4, 0, (2, 2), (2, 1), None),
        (4, 1, (2, 2), (2, 1), "a tensor of shape (2, 2) in a storage of 4 numbers"),
        (4, 0, (5,), (1,), "a tensor of shape (5,) in a storage of 4"),
        (4, 0, (2, 2), (3, 1), "in a storage of 4"),
        (4, 0, (10**9, 10**9), (0, 0), "in a storage of 4"),
        (4, 0, (2**62,), (1,), "a tensor of impossible size"),
        (4, -1, (1,), (1,), "a tensor of impossible size"),
        (4, 0, (1,), (-1,), "a tensor of impossible size"),
        (4, 0, ("x",), (1,), "a tensor of impossible size"),
        (4, 0, (1,) * 99, (1,) * 99, "a tensor without a shape"),
        (4, 0, (1, 1), (1,), "not a whole checkpoint"),
        (5, 0, (4,), (1,), "it promises 5 numbers in 16 bytes"),
        (2**50, 0, (4,), (1,), "numbers in 16 bytes"),
        (-1, 0, (4,), (1,), "a storage that is a view"),
    ],
)
def test_a_tensor_must_lie_in_its_storage(tmp_path, count, offset, size, stride, reason):
    path = zipped(tmp_path / "a.pt", tensor_pickle(count, offset, size, stride), data__0=bytes(16))
    if reason is None:
        assert flatten(read_tree(path))["a"].shape == size
    else:
        assert reason in error_of(path)


def test_containers_that_are_not_read_are_named(tmp_path):
    path = tmp_path / "a.pt"
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    assert "a tar archive" in error_of(path)
    zipped(path, b"", constants__pkl=b"")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"")
        archive.writestr("a/constants.pkl", b"")
    assert "a TorchScript program" in error_of(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", b"")
    assert "a zip file, but not of torch.save" in error_of(path)
    zipped(path, pickle.dumps({}, 2), byteorder=b"big")
    assert "the other byte order" in error_of(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(nn.Linear(1, 1), path)
    assert "asks for 'torch.nn.modules.linear.Linear'" in error_of(path)
    assert "neither a zip file, nor a pickle, nor safetensors" in error_of(
        Path(path.write_text("<html>") and path)
    )
    assert error_of(tmp_path / "no.pt").endswith("no such file")


def test_a_tensorflow_pickle_is_refused_by_name(tmp_path):
    path = tmp_path / "stylegan2-ffhq-config-f.pkl"
    path.write_bytes(b"\x80\x03cdnnlib.tflib.network\nNetwork\n)\x81.")
    assert "asks for 'dnnlib.tflib.network.Network'" in error_of(path)


# ----------------------------------------------------------------------------------------------
# Damage


def small_files(folder: Path, nvidia) -> list[Path]:
    content = {"a": torch.arange(6.0), "b": {"c": torch.ones(2, 2)}}
    torch.save(content, folder / "zip.pt")
    torch.save(content, folder / "legacy.pt", _use_new_zipfile_serialization=False)
    save_file({"a": torch.arange(6.0)}, folder / "bare.safetensors")
    module = nvidia.module({"mapping.fc0.weight": torch.ones(2, 2)})
    return [
        folder / "zip.pt",
        folder / "legacy.pt",
        folder / "bare.safetensors",
        nvidia({"G_ema": module}, folder / "nvidia.pkl"),
    ]


def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path, nvidia):
    for path in small_files(tmp_path, nvidia):
        whole = path.read_bytes()
        for end in [*range(0, 40), *range(40, len(whole), max(len(whole) // 40, 1)), -1]:
            path.write_bytes(whole[:end])
            error_of(path)


def test_changed_bytes_never_do_more_than_change_numbers(tmp_path, nvidia):
    originals = {path: path.read_bytes() for path in small_files(tmp_path, nvidia)}

    @settings(max_examples=150)
    @given(st.sampled_from(sorted(originals)), st.integers(0, 1 << 20), st.binary(max_size=3))
    def change(path, at, new):
        content = bytearray(originals[path])
        at %= len(content)
        content[at : at + len(new)] = new
        path.write_bytes(content)
        with contextlib.suppress(CheckpointError):
            recognise(path)
            flatten(read_tree(path))

    change()


# ----------------------------------------------------------------------------------------------
# Memory

MEASURE = """
import json, resource, sys
from pathlib import Path
import torch
from panini.checkpoints import recognise
from panini.errors import CheckpointError

def size(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1]) * 1024

limit = size("VmSize") + int(sys.argv[1]) * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
report = {}
for path in sys.argv[2:]:
    before = size("VmRSS")
    try:
        recognise(path)
        report[path] = "accepted"
    except CheckpointError as error:
        report[path] = str(error)
print(json.dumps([report, (size("VmHWM") - before) / 2**20]))
"""


def safetensors(header: dict | bytes, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def copied(function: bytes, argument: bytes, times: int = 1000) -> bytes:
    """A pickle that names an argument once, and calls a function with it again and again."""
    named = b"\x80\x02c" + function + b"q\x00" + argument + b"q\x01"
    return named + b"00](" + b"h\x00h\x01R" * times + b"e."


def amplifiers() -> dict[str, tuple[bytes, str]]:
    """Name → a pickle that makes much of little, and what is said of it."""
    text = b"X" + struct.pack("<I", 1 << 20) + b"a" * (1 << 20) + b"X\x06\x00\x00\x00latin1\x86"
    numbers = [b"J" + struct.pack("<i", i) for i in range(50_000)]
    flat = b"](" + b"".join(numbers) + b"e\x85"
    pairs = b"](" + b"".join(number + b"N\x86" for number in numbers) + b"e\x85"
    state = b"}(" + b"".join(number + b"N" for number in numbers) + b"uq\x01"
    bags = b"\x80\x02cargparse\nNamespace\nq\x00" + state + b"](" + b"h\x00)Rh\x01b" * 1000 + b"e."
    # All of these have the hash 0.
    keys = [(i * (2**61 - 1)).to_bytes(11, "little") for i in range(20_000)]
    rows = tensor_pickle(4, 0, (4,), (1,), around=lambda tensor: Call(set, tensor))
    return {
        "text.pt": (copied(b"_codecs\nencode\n", text, 2000), "copies more text than it holds"),
        "dicts.pt": (copied(b"collections\nOrderedDict\n", pairs), "more than 500000 steps"),
        "sets.pt": (copied(b"builtins\nset\n", flat), "more than 500000 steps"),
        "sizes.pt": (copied(b"torch\nSize\n", flat), "a tensor without a shape"),
        "devices.pt": (
            copied(b"torch\ndevice\n", b"(" + b"".join(numbers) + b"t"),
            "more than 500000 steps",
        ),
        "bags.pt": (bags, "more than 500000 steps"),
        "rows.pt": (rows, "its pickle copies a Tensor"),
        "keys.pt": (
            b"\x80\x02}(" + b"".join(b"\x8a\x0b" + key + b"N" for key in keys) + b"u.",
            "of more than 60 bits",
        ),
    }


def hostile_files(folder: Path) -> dict[Path, str]:
    """File → what is said of it."""
    f32 = {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}
    wrap = {"dtype": "F32", "shape": [1 << 62, 4], "data_offsets": [0, 16]}
    zeros = bytes(300 << 20)
    loop = b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s."
    doubling = b"}" + b"".join(
        b"q%c}(X\x01\x00\x00\x00ah%cX\x01\x00\x00\x00bh%cu" % (i, i, i) for i in range(60)
    )
    contents = amplifiers() | {
        "promise.pt": (tensor_pickle(1 << 38, 0, (1 << 38,), (1,)), "numbers in 16 bytes"),
        "expand.pt": (tensor_pickle(4, 0, (1 << 38,), (0,)), "in a storage of 4 numbers"),
        "memo.pt": (b"\x80\x02}r\xff\xff\xff\xff.", "it holds no tensors"),
        "long.pt": (b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"a.", "not a whole"),
        "frame.pt": (b"\x80\x04\x95" + struct.pack("<Q", 1 << 60) + b"}.", "holds no tensors"),
        "flood.pt": (b"\x80\x02" + b"\x8f" * 1_000_000, "more than 500000 steps"),
        "loop.pt": (loop, "nested without end"),
        "doubling.pt": (b"\x80\x02" + doubling + b".", "nested without end"),
        "deep.pt": (b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".", "nested without end"),
    }
    expected = {}
    for name, (pickled, reason) in contents.items():
        expected[zipped(folder / name, pickled, data__0=bytes(16))] = reason
    bomb = zipped(
        folder / "bomb.pt",
        tensor_pickle(75 << 20, 0, (75 << 20,), (1,)),
        compression=zipfile.ZIP_DEFLATED,
        data__0=zeros,
    )
    assert bomb.stat().st_size < 1 << 20
    expected[bomb] = "is compressed ("
    raw = {
        "huge.safetensors": (safetensors({}, length=1 << 62), "a header of 4611686018427387904"),
        "long.safetensors": (safetensors(b"{}", length=1 << 30), "a header of 1073741824 bytes"),
        "offsets.safetensors": (safetensors({"a": f32}, bytes(16)), "not a whole safetensors"),
        "wrap.safetensors": (safetensors({"a": wrap}, bytes(16)), "not a whole safetensors"),
        "text.safetensors": (safetensors(b"{" * 1000), "not a whole safetensors"),
        "plain.pkl": (b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"a.", "not a whole"),
        "legacy.pt": (
            legacy(
                tensor_pickle(1 << 38, 0, (1 << 38,), (1,)),
                pickle.dumps(["0"], 2),
                struct.pack("<q", 1 << 38) + bytes(16),
            ),
            "it promises 1099511627776 bytes where 16 are left",
        ),
    }
    for name, (content, reason) in raw.items():
        (folder / name).write_bytes(content)
        expected[folder / name] = reason
    return expected


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_hostile_files_take_no_memory(tmp_path):
    expected = hostile_files(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(LIMIT_MB), *map(str, expected)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report, grown = json.loads(done.stdout)
    print(f"{len(expected)} hostile files: at most {grown:.0f} MB more, limit {LIMIT_MB} MB")
    for path, reason in expected.items():
        message = report[str(path)]
        assert message.startswith(f"{path}: "), message
        assert reason in message, path.name
        assert "\n" not in message
    assert grown < LIMIT_MB


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_reading_a_large_file_takes_none_of_its_size(tmp_path):
    """400 MB of optimizer state beside a small network: it is never touched."""
    path = tmp_path / "large.pt"
    state = {f"x.{i}": torch.zeros(25 << 20) for i in range(4)}
    torch.save({"optimizer": state, "epoch": 1}, path)
    del state
    assert path.stat().st_size > 400 << 20
    code = MEASURE.replace("resource.setrlimit(resource.RLIMIT_AS, (limit, limit))", "")
    done = subprocess.run(
        [sys.executable, "-c", code, "0", str(path)], capture_output=True, text=True, timeout=600
    )
    path.unlink()
    assert done.returncode == 0, done.stderr
    report, grown = json.loads(done.stdout)
    assert "4 tensors of no known format" in report[str(path)]
    print(f"a file of 400 MB: {grown:.0f} MB more")
    assert grown < 60
