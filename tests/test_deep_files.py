"""16 bits a channel out of PNGs and TIFFs that other hands made."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from panini.decoding import narrow, turn
from panini.errors import ImageError
from panini.images import read_rgb
from panini.photos import Photo, load_photo

HEIGHT, WIDTH = 24, 40
NOTES = b"Maker's notes, with an offset inside: \x00\x00\x01\x90"


@pytest.fixture(scope="module")
def deep() -> np.ndarray:
    """A smooth colour picture of 16 bits, whose low bits are noise."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    smooth = np.stack([x * 6, y * 10, 255 - x * 3], axis=2) * 257
    noise = np.random.default_rng(0).integers(-120, 120, smooth.shape)
    return np.clip(smooth + noise, 0, 65535).astype(np.uint16)


@pytest.fixture(scope="module")
def alpha() -> np.ndarray:
    """From clear on the left to solid on the right, 16 bits."""
    return np.tile(np.linspace(0, 65535, WIDTH).astype(np.uint16), (HEIGHT, 1))


def exif_block(orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Maker"
    exif[ExifTags.Base.ImageDescription] = "At the lake"
    exif[ExifTags.Base.Orientation] = orientation
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "1931:07:05 12:00:00"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.MakerNote] = NOTES
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    return exif.tobytes()


def load(content: bytes, folder: Path, name: str = "photo") -> Photo:
    path = folder / name
    path.write_bytes(content)
    return load_photo(path)


def png(
    pixels: np.ndarray,
    colour: int,
    *chunks: tuple[bytes, bytes],
    size: tuple[int, int] | None = None,
) -> bytes:
    """A 16-bit PNG, unfiltered, with further chunks: independent of the code under test."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    width, height = size or (pixels.shape[1], pixels.shape[0])
    header = struct.pack(">2I5B", width, height, 16, colour, 0, 0, 0)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            *(chunk(*one) for one in chunks),
            chunk(b"IDAT", zlib.compress(rows)),
            chunk(b"IEND", b""),
        ]
    )


def tiff(pixels: np.ndarray, **tags: int) -> bytes:
    """An uncompressed big-endian TIFF of 16 bits: independent of the code under test."""
    height, width, channels = pixels.shape
    data = pixels.astype(">u2").tobytes()
    ifd = ImageFileDirectory_v2(prefix=b"MM")
    values = {256: width, 257: height, 258: (16,) * channels, 259: 1, 262: 2 if channels > 2 else 1}
    values |= {273: 0, 277: channels, 278: height, 279: len(data), 284: 1}
    if channels == 4:
        values[338] = 2
    for tag, value in (values | {int(tag[1:]): value for tag, value in tags.items()}).items():
        ifd[tag] = value
    return b"MM\0*\0\0\0\x08" + ifd.tobytes(8) + data


def tiff_in_planes(
    pixels: np.ndarray,
    order: Literal["<", ">"] = "<",
    /,
    *,
    rows: int = HEIGHT,
    compression: int = 1,
    **tags: int | tuple[int, ...],
) -> bytes:
    """A TIFF of (H, W, C) whose colours lie one after the other, in strips of some rows."""
    height, width, channels = pixels.shape
    bits = 8 * pixels.itemsize
    data = pixels.astype(pixels.dtype.newbyteorder(order))
    if tags.get("t317") == 2:
        data[:, 1:] -= pixels[:, :-1]
    strips = [
        data[start : start + rows, :, c].tobytes()
        for c in range(channels)
        for start in range(0, height, rows)
    ]
    if compression == 8:
        strips = [zlib.compress(strip) for strip in strips]
    ifd = ImageFileDirectory_v2(prefix=b"MM" if order == ">" else b"II")
    values = {256: width, 257: height, 258: (bits,) * channels, 259: compression, 262: 2}
    values |= {277: channels, 278: rows, 284: 2}
    values |= {273: tuple(sum(map(len, strips[:k])) for k in range(len(strips)))}
    values |= {279: tuple(map(len, strips))}
    if channels == 4 and "t262" not in tags:
        values[338] = 2
    for tag, value in (values | {int(tag[1:]): value for tag, value in tags.items()}).items():
        ifd[tag] = value
    head = b"MM\0*\0\0\0\x08" if order == ">" else b"II*\0\x08\0\0\0"
    return b"".join([head, ifd.tobytes(8), *strips])


# Grey with alpha is no kind of TIFF that programs write.
@pytest.mark.parametrize(
    ("kind", "channels"),
    [("PNG", 1), ("PNG", 2), ("PNG", 3), ("PNG", 4), ("TIFF", 1), ("TIFF", 3), ("TIFF", 4)],
)
def test_16_bits_are_read(
    kind: str, channels: int, deep: np.ndarray, alpha: np.ndarray, tmp_path: Path
) -> None:
    colours = deep[..., :1] if channels < 3 else deep
    pixels = np.concatenate([colours, alpha[..., None]], axis=2) if channels in (2, 4) else colours
    content = png(pixels, {1: 0, 2: 4, 3: 2, 4: 6}[channels]) if kind == "PNG" else tiff(pixels)
    photo = load(content, tmp_path)
    expected = np.repeat(colours, 3, axis=2) if channels < 3 else colours
    assert photo.deep is not None
    assert photo.deep.dtype == np.uint16
    assert np.array_equal(photo.deep, expected)
    assert np.array_equal(photo.rgb, np.rint(expected / 257))
    assert photo.grey == (channels < 3)
    if channels in (2, 4):
        assert photo.alpha is not None
        assert np.array_equal(photo.alpha, alpha)
    else:
        assert photo.alpha is None


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("rows", [HEIGHT, 7])
@pytest.mark.parametrize(
    "packed", [{}, {"compression": 8}, {"compression": 8, "t317": 2}], ids=["raw", "zip", "predict"]
)
def test_separate_planes(
    order: Literal["<", ">"],
    rows: int,
    packed: dict[str, int],
    deep: np.ndarray,
    alpha: np.ndarray,
    tmp_path: Path,
) -> None:
    pixels = np.concatenate([deep, alpha[..., None]], axis=2)
    for channels in (3, 4):
        content = tiff_in_planes(pixels[..., :channels], order, rows=rows, **packed)
        photo = load(content, tmp_path)
        assert photo.deep is not None
        assert np.array_equal(photo.deep, deep)
        assert (photo.alpha is None) == (channels == 3)
        if photo.alpha is not None:
            assert np.array_equal(photo.alpha, alpha)
    turned = load(tiff_in_planes(deep, order, rows=rows, t274=6, **packed), tmp_path)
    assert turned.deep is not None
    assert np.array_equal(turned.deep, turn(deep, 6))
    # Who wants 8 bits gets them from Pillow, which cuts the low ones off.
    (tmp_path / "a.tif").write_bytes(tiff_in_planes(deep, order, rows=rows, **packed))
    assert np.abs(read_rgb(tmp_path / "a.tif").astype(int) - narrow(deep)).max() <= 1
    with Image.open(tmp_path / "a.tif") as image:
        assert np.abs(load_photo(image).rgb.astype(int) - narrow(deep)).max() <= 1


def test_separate_planes_of_several_images(
    deep: np.ndarray, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = bytearray(tiff_in_planes(deep))
    (count,) = struct.unpack_from("<H", content, 8)
    again = content[8 : 14 + 12 * count]  # The same picture once more.
    struct.pack_into("<I", content, 10 + 12 * count, len(content))
    photo = load(bytes(content + again), tmp_path)
    assert photo.deep is not None
    assert np.array_equal(photo.deep, deep)
    # Without the lengths of the strips they are Pillow's to read.
    lengths, other = (struct.pack("<HHI", tag, 4, 3) for tag in (279, 65000))
    photo = load(bytes(content + again).replace(lengths, other), tmp_path)
    assert photo.deep is None
    assert np.abs(photo.rgb.astype(int) - narrow(deep)).max() <= 1
    assert "only 8 of them are kept" in caplog.text


def test_separate_planes_of_8_bits(deep: np.ndarray, tmp_path: Path) -> None:
    rgb = narrow(deep)
    for packed in ({}, {"compression": 8}, {"rows": 7}):
        photo = load(tiff_in_planes(rgb, **packed), tmp_path)
        assert np.array_equal(photo.rgb, rgb)
        assert photo.deep is None


def test_single_plane_is_no_separate_one(deep: np.ndarray, tmp_path: Path) -> None:
    grey = deep[..., :1]
    for black, values in ((0, 65535 - grey), (1, grey)):
        photo = load(tiff_in_planes(values, t262=black, t258=16), tmp_path)
        assert photo.deep is not None
        assert np.array_equal(photo.deep[..., :1], grey)
        eight = load(tiff_in_planes(narrow(values)[..., None], t262=black, t258=8), tmp_path)
        assert np.array_equal(eight.rgb[..., 0], narrow(grey))


def test_separate_planes_that_pillow_cannot_read(deep: np.ndarray, tmp_path: Path) -> None:
    four = np.concatenate([deep, deep[..., :1]], axis=2)
    cmyk, multiplied = tiff_in_planes(four, t262=5), tiff_in_planes(four, t338=1)
    for content in (cmyk, multiplied):
        with pytest.raises(ImageError, match=r"photo: .*separate planes; save it interleaved"):
            load(content, tmp_path)


@pytest.mark.parametrize("packed", [{}, {"compression": 8}])
def test_truncated_planes(packed: dict[str, int], deep: np.ndarray, tmp_path: Path) -> None:
    whole = tiff_in_planes(deep, **packed)
    with pytest.raises(ImageError, match=r"photo: .*truncated"):
        load(whole[: int(len(whole) * 0.6)], tmp_path)


def test_opencv_is_silent(
    deep: np.ndarray, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    level = cv2.utils.logging.getLogLevel()
    assert load(tiff(deep, t65000=1), tmp_path).deep is not None
    assert capfd.readouterr().err == ""
    assert cv2.utils.logging.getLogLevel() == level


@pytest.mark.parametrize(("extra", "is_alpha"), [(0, False), (1, True), (2, True)])
def test_fourth_channel_is_alpha_where_the_tiff_says_so(
    extra: int, is_alpha: bool, deep: np.ndarray, alpha: np.ndarray, tmp_path: Path
) -> None:
    pixels = np.concatenate([deep, alpha[..., None]], axis=2)
    photo = load(tiff(pixels, t338=extra), tmp_path)
    assert (photo.alpha is not None) == is_alpha
    if extra != 1:  # else the colours are multiplied by it
        assert photo.deep is not None
        assert np.array_equal(photo.deep, deep)


def test_transparent_level_of_16_bits(deep: np.ndarray, tmp_path: Path) -> None:
    colour = struct.pack(">3H", *map(int, deep[3, 4]))
    photo = load(png(deep, 2, (b"tRNS", colour)), tmp_path)
    assert photo.alpha is not None
    assert np.array_equal(np.argwhere(photo.alpha == 0), [(3, 4)])
    assert np.array_equal(photo.deep, deep)  # pyright: ignore
    grey = load(png(deep[..., :1], 0, (b"tRNS", colour[:2])), tmp_path)
    assert grey.alpha is not None
    assert np.array_equal(grey.alpha == 0, deep[..., 0] == deep[3, 4, 0])


def test_16_bits_that_opencv_cannot_read(
    deep: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(cv2, "imdecode", lambda *_: None)
    photo = load(png(deep, 2), tmp_path)
    assert photo.deep is None
    assert np.abs(photo.rgb.astype(int) - narrow(deep)).max() <= 1  # Pillow cuts the low bits off
    assert "only 8 of them are kept" in caplog.text


@pytest.mark.parametrize("value", [2, 6, 7])
def test_orientation_of_16_bits(
    value: int, deep: np.ndarray, alpha: np.ndarray, tmp_path: Path
) -> None:
    pixels = np.concatenate([deep, alpha[..., None]], axis=2)
    exif = exif_block(value).removeprefix(b"Exif\0\0")
    for content in (
        png(pixels, 6, (b"eXIf", exif)),
        tiff(pixels, t274=value),
        tiff(deep, t274=value),
        tiff(deep[..., :1], t274=value),
    ):
        photo = load(content, tmp_path)
        assert photo.deep is not None
        assert np.array_equal(photo.deep[..., 0], turn(deep[..., 0], value))
        if photo.alpha is not None:
            assert np.array_equal(photo.alpha, turn(alpha, value))


@pytest.mark.parametrize("kind", ["PNG", "large PNG", "TIFF"])
def test_size_is_refused_before_decoding(kind: str, tmp_path: Path) -> None:
    pixel = np.zeros((1, 1, 3))
    if kind == "TIFF":
        content = tiff(pixel, t256=30000, t257=30000)
    else:  # the large one is too large for us, not for Pillow
        content = png(pixel, 2, size=(9000, 9000) if kind == "large PNG" else (30000, 30000))
    (tmp_path / "a.img").write_bytes(content)
    with pytest.raises(ImageError, match=r"(30000x30000|9000x9000) px is more than 80 megapixels"):
        load_photo(tmp_path / "a.img", max_pixels=80_000_000)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("share", [0.1, 0.6])
def test_truncated(kind: str, share: float, deep: np.ndarray, tmp_path: Path) -> None:
    whole = png(deep, 2) if kind == "PNG" else tiff(deep)
    with pytest.raises(ImageError, match=r"photo: .*truncated"):
        load(whole[: int(len(whole) * share)], tmp_path)


@pytest.mark.parametrize("length", [0, 10**6])
def test_lengths_of_planes_that_cannot_be_are_not_believed(
    deep: np.ndarray, length: int, tmp_path: Path
) -> None:
    count = 3 * deep.shape[0]
    photo = load(tiff_in_planes(deep, rows=1, t279=(length,) * count), tmp_path)
    assert photo.deep is None
    np.testing.assert_allclose(photo.rgb, deep >> 8, atol=1)
