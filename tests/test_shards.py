from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zlib

import numpy as np
import pytest
from PIL import Image

from panini.errors import DataError
from panini.shards import index_members, iter_members, iter_shard


def write_shard(path, members):
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def encode(array, **options):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "WEBP", **options)
    return buffer.getvalue()


def test_images_come_in_order_as_rgb(tmp_path):
    colour = np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    grey = np.full((4, 4), 100, dtype=np.uint8)
    members = {
        "b.webp": encode(colour, lossless=True),
        "notes.txt": b"nothing",
        "a.webp": encode(grey, lossless=True),
    }
    write_shard(tmp_path / "x.tar", members)
    (first, image), (second, from_grey) = iter_shard(tmp_path / "x.tar")
    assert (first, second) == ("b", "a")
    np.testing.assert_array_equal(image, colour)
    assert from_grey.shape == (4, 4, 3)


def test_what_is_wrong_is_named(tmp_path):
    path = tmp_path / "x.tar"
    with pytest.raises(DataError, match="no such file"):
        next(iter_shard(path))
    path.write_bytes(b"this is no tar file" * 100)
    with pytest.raises(DataError, match="not a whole tar file"):
        next(iter_shard(path))
    write_shard(path, {"readme.txt": b"hello"})
    with pytest.raises(DataError, match="no images in it"):
        next(iter_shard(path))
    write_shard(path, {"face.webp": b"RIFF0000WEBP"})
    told = r"x\.tar:face\.webp: not a readable image .*; replace it, or leave it out"
    with pytest.raises(DataError, match=told):
        next(iter_shard(path))
    path.write_bytes(gzip.compress(b"this is no tar file" * 100))
    with pytest.raises(DataError, match=r"not a whole tar file \([^\n]*\); copy it again, or name"):
        next(iter_shard(path))


def bomb() -> bytes:
    """A PNG whose header promises 900 million pixels."""
    buffer = io.BytesIO()
    Image.new("L", (1, 1)).save(buffer, "PNG")
    content = bytearray(buffer.getvalue())
    content[16:24] = (30_000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return bytes(content)


def test_a_huge_header_is_no_readable_image(tmp_path):
    path = tmp_path / "x.tar"
    write_shard(path, {"bomb.png": bomb()})
    with pytest.raises(DataError, match=r"x\.tar:bomb\.png: not a readable image \(Image size"):
        next(iter_shard(path))


def test_what_is_wrong_with_an_image_is_the_same_twice(tmp_path):
    path = tmp_path / "x.tar"
    write_shard(path, {"face.webp": b"nothing"})
    messages = set()
    for _ in range(3):
        with pytest.raises(DataError) as caught:
            next(iter_shard(path))
        messages.add(str(caught.value))
    assert len(messages) == 1


def test_an_index_says_where_the_images_lie(tmp_path):
    path = tmp_path / "x.tar"
    write_shard(path, {"a.png": b"first", "a.json": b"{}", "sub/b.WEBP": b"the second"})
    index = index_members(path)
    assert [(member.name, member.read()) for member in index] == list(iter_members(path))
    assert index[1].where == f"{path}:sub/b.WEBP"
    path.unlink()
    with pytest.raises(DataError, match=r"x\.tar:a\.png: cannot be read \(No such file"):
        index[0].read()


def test_an_index_tells_what_is_wrong(tmp_path):
    path = tmp_path / "x.tar"
    with pytest.raises(DataError, match="no such file; expected a tar shard"):
        index_members(path)
    write_shard(path, {"readme.txt": b"hello"})
    with pytest.raises(DataError, match="no images in it"):
        index_members(path)
    path.write_bytes(b"this is no tar file" * 100)
    with pytest.raises(DataError, match="not a whole tar file"):
        index_members(path)
    write_shard(path, {f"{index}.png": bytes(6000) for index in range(3)})
    path.write_bytes(path.read_bytes()[: 512 + 3000])
    with pytest.raises(DataError, match="not a whole tar file"):
        index_members(path)


def test_hidden_members_are_no_faces(tmp_path):
    face = encode(np.zeros((4, 4, 3), dtype=np.uint8))
    write_shard(tmp_path / "x.tar", {"./._a.webp": b"of macOS", "./a.webp": face})
    assert [member.name for member in index_members(tmp_path / "x.tar")] == ["./a.webp"]
    assert [key for key, _ in iter_shard(tmp_path / "x.tar")] == ["a"]


def test_whatever_pillow_raises_is_told(tmp_path, monkeypatch):
    write_shard(tmp_path / "x.tar", {"a.webp": encode(np.zeros((4, 4, 3), dtype=np.uint8))})
    for error in (RuntimeError, EOFError, IndexError, struct.error):

        def fails(*_, error=error):
            raise error("empty image item")

        monkeypatch.setattr(Image, "open", fails)
        with pytest.raises(DataError, match=r"a\.webp: not a readable image \(empty image item\)"):
            next(iter_shard(tmp_path / "x.tar"))


def test_a_compressed_shard_cannot_be_indexed_but_read(tmp_path):
    path = tmp_path / "x.tar"
    write_shard(path, {"a.png": b"first"})
    path.write_bytes(gzip.compress(path.read_bytes()))
    assert list(iter_members(path)) == [("a.png", b"first")]
    with pytest.raises(DataError, match=r"x\.tar: is compressed; unpack it"):
        index_members(path)


def test_a_shard_cut_short_is_an_error(tmp_path):
    path = tmp_path / "x.tar"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    write_shard(path, {f"{index}.webp": encode(noise, lossless=True) for index in range(3)})
    whole = path.read_bytes()
    path.write_bytes(whole[: 512 + 6000])
    with pytest.raises(DataError, match=r"x\.tar"):
        list(iter_shard(path))
