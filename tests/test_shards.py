from __future__ import annotations

import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from panini.errors import DataError
from panini.shards import iter_shard


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
    with pytest.raises(DataError, match=r"x\.tar:face\.webp: not a readable image"):
        next(iter_shard(path))


def test_a_shard_cut_short_is_an_error(tmp_path):
    path = tmp_path / "x.tar"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    write_shard(path, {f"{index}.webp": encode(noise, lossless=True) for index in range(3)})
    whole = path.read_bytes()
    path.write_bytes(whole[: 512 + 6000])
    with pytest.raises(DataError, match=r"x\.tar"):
        list(iter_shard(path))
