"""Files of every kind are read: pixels, alpha, orientation, limits and damage."""

from __future__ import annotations

import struct
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps, TiffImagePlugin

from panini.decoding import narrow, turn
from panini.errors import ImageError, MissingExtraError
from panini.photos import Photo, WriteOptions, load_photo, suffix_for, write_photo

HEIGHT, WIDTH = 24, 40


@pytest.fixture(scope="module")
def rgb() -> np.ndarray:
    """A smooth colour picture."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.stack([x * 6, y * 10, 255 - x * 3], axis=2).astype(np.uint8)


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


def exif_block(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Maker"
    exif[ExifTags.Base.Orientation] = orientation
    return exif.tobytes()


def deviation(a: np.ndarray, b: np.ndarray) -> int:
    assert a.shape == b.shape
    return int(np.abs(a.astype(int) - b.astype(int)).max())


def by_pillow(image: Image.Image, kind: str, **options: object) -> bytes:
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def load(content: bytes, folder: Path, name: str = "photo") -> Photo:
    path = folder / name
    path.write_bytes(content)
    return load_photo(path)


KINDS = {  # kind → (suffix, largest deviation, options of Pillow's writer)
    "AVIF": (".avif", 6, {"quality": 95, "subsampling": "4:4:4"}),
    "BMP": (".bmp", 0, {}),
    "GIF": (".gif", 24, {}),
    "HEIF": (".heic", 6, {"quality": 95, "chroma": 444}),
    "JPEG": (".jpg", 6, {"quality": 95, "subsampling": 0}),
    "PNG": (".png", 0, {}),
    "PPM": (".ppm", 0, {}),
    "TIFF": (".tiff", 0, {}),
    "WEBP": (".webp", 0, {"lossless": True}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_kinds_are_read(kind: str, mode: str, rgb: np.ndarray, tmp_path: Path) -> None:
    suffix, tolerance, options = KINDS[kind]
    image = Image.fromarray(rgb).convert(mode)
    if (kind, mode) == ("AVIF", "L"):
        options = {"quality": 95}
    photo = load(by_pillow(image, kind, **options), tmp_path, f"Photo{suffix.upper()}")
    assert deviation(photo.rgb, np.asarray(image.convert("RGB"))) <= tolerance
    assert photo.grey == (mode == "L" and kind != "WEBP")
    assert (photo.deep, photo.alpha, photo.suffix) == (None, None, suffix)
    assert photo.size == (WIDTH, HEIGHT)


@pytest.mark.parametrize(
    ("kind", "mode", "tolerance"),
    [
        ("PNG", "RGBA", 0),
        ("PNG", "LA", 0),
        ("WEBP", "RGBA", 0),
        ("TIFF", "RGBA", 0),
        ("TIFF", "LA", 0),
        ("AVIF", "RGBA", 2),
        ("HEIF", "RGBA", 2),
    ],
)
def test_alpha_is_read_beside_the_colours(
    kind: str, mode: str, tolerance: int, rgb: np.ndarray, alpha: np.ndarray, tmp_path: Path
) -> None:
    image = Image.fromarray(rgb).convert(mode)
    image.putalpha(Image.fromarray(narrow(alpha)))
    options = {"exact": True, **KINDS[kind][2]} if kind == "WEBP" else KINDS[kind][2]
    photo = load(by_pillow(image, kind, **options), tmp_path)
    assert photo.alpha is not None
    assert photo.alpha.dtype == np.uint8
    assert deviation(photo.alpha, narrow(alpha)) <= tolerance
    assert deviation(photo.rgb, np.asarray(image.convert("RGBA"))[..., :3]) <= KINDS[kind][1]
    assert photo.grey == (mode == "LA")


def test_palettes(rgb: np.ndarray, tmp_path: Path) -> None:
    image = Image.fromarray(rgb).quantize(16)
    expected = np.asarray(image.convert("RGB"))
    for kind in ("PNG", "GIF"):
        photo = load(by_pillow(image, kind), tmp_path)
        assert np.array_equal(photo.rgb, expected)
        assert not photo.grey
    clear = load(by_pillow(image, "GIF", transparency=3), tmp_path)
    assert clear.alpha is not None
    assert np.array_equal(clear.alpha == 0, np.asarray(image) == 3)
    grey = load(by_pillow(Image.fromarray(rgb).convert("L").quantize(16), "PNG"), tmp_path)
    assert grey.grey
    assert load(by_pillow(Image.fromarray(rgb).convert("1"), "TIFF"), tmp_path).grey


def test_first_frame_of_several(rgb: np.ndarray, tmp_path: Path, caplog) -> None:
    frames = [Image.fromarray(rgb), Image.fromarray(255 - rgb)]
    for kind in ("GIF", "TIFF", "WEBP", "PNG"):
        content = by_pillow(frames[0], kind, save_all=True, append_images=frames[1:])
        caplog.clear()
        assert deviation(load(content, tmp_path).rgb, rgb) <= 40
        assert "holds 2 images, of which only the first is read" in caplog.text


def test_deep_grey_whose_white_is_zero(deep: np.ndarray, tmp_path: Path) -> None:
    grey = deep[..., 0]
    content = by_pillow(Image.fromarray(65535 - grey), "TIFF", tiffinfo={262: 0})
    photo = load(content, tmp_path)
    assert photo.deep is not None
    assert np.array_equal(photo.deep[..., 0], grey)


def test_more_than_16_bits_are_refused(tmp_path: Path) -> None:
    values = np.linspace(0, 2**31 - 1, 64).astype(np.int32).reshape(8, 8)
    with pytest.raises(ImageError, match="has grey levels of more than 16 bits; save it with 16"):
        load(by_pillow(Image.fromarray(values), "TIFF"), tmp_path)


def test_floats_and_long_integers_become_16_bits(deep: np.ndarray, tmp_path: Path) -> None:
    grey = deep[..., 0]
    for values in (grey / np.float32(65535), grey.astype(np.int32)):
        photo = load(by_pillow(Image.fromarray(values), "TIFF"), tmp_path)
        assert photo.deep is not None
        assert deviation(photo.deep[..., 1], grey) <= 1
        assert photo.grey


@pytest.mark.parametrize(
    ("lowest", "highest", "black", "white"),
    [(0, 1.02, 0, 1), (-0.05, 1, 0, 1), (0, 260, 0, 255), (0, np.inf, 0, 1), (np.nan, 1, 0, 1)],
)
def test_floats_a_little_beyond(
    lowest: float, highest: float, black: float, white: float, tmp_path: Path
) -> None:
    values = np.linspace(black, white, 64, dtype=np.float32)
    expected = np.rint((values - black) / (white - black) * 65535)
    values[0], values[-1] = lowest, highest
    photo = load(by_pillow(Image.fromarray(values.reshape(8, 8)), "TIFF"), tmp_path)
    assert photo.deep is not None
    assert deviation(photo.deep[..., 0], expected.reshape(8, 8)) <= 1


@pytest.mark.parametrize(("lowest", "highest"), [(0, 65535), (0, 2), (-1, 1), (-100, 255)])
def test_floats_of_another_range_are_refused(lowest: float, highest: float, tmp_path: Path) -> None:
    values = np.linspace(lowest, highest, 64, dtype=np.float32).reshape(8, 8)
    told = f"has grey levels from {lowest} to {highest}, expected 0 to 1 or .*; save it with 16"
    with pytest.raises(ImageError, match=told):
        load(by_pillow(Image.fromarray(values), "TIFF"), tmp_path)
    with pytest.raises(ImageError, match=f"image: {told}"):
        load_photo(Image.fromarray(values))


def test_12_bits_become_16(tmp_path: Path) -> None:
    levels = np.linspace(0, 4095, 64).round().astype(int).reshape(8, 8)
    tags = {256: 8, 257: 8, 258: 12, 259: 1, 262: 1, 273: 0, 277: 1, 278: 8, 279: 96}
    directory = TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II")
    for tag, value in tags.items():
        directory[tag] = value
    # Two levels lie in three bytes, the high bits first.
    packed = bytes.fromhex("".join(f"{level:03x}" for level in levels.flat))
    photo = load(b"II*\0\x08\0\0\0" + directory.tobytes(8) + packed, tmp_path)
    assert photo.deep is not None
    assert np.array_equal(photo.deep[..., 0], np.rint(levels * (65535 / 4095)))
    assert photo.rgb.max() == 255


def test_every_level_is_narrowed_as_it_is_rounded() -> None:
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    assert np.array_equal(narrow(levels), np.rint(levels / 257))


TO_LAB = (b"prtr", b"CMYK", b"Lab ")


def cmyk_profile() -> bytes:
    """A profile under which each full ink takes a quarter of the lightness, and no hue shows."""
    inks = [bin(corner).count("1") for corner in range(16)]
    table = b"".join(bytes([round(255 * (1 - count / 4)), 128, 128]) for count in inks)
    ramp = bytes(range(256))
    matrix = struct.pack(">9I", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + matrix + ramp * 4 + table + ramp * 3
    lut += bytes(-len(lut) % 4)
    white = b"XYZ \0\0\0\0" + struct.pack(">3I", 63190, 65536, 54061)
    tags = struct.pack(">I", 2)
    tags += b"A2B0" + struct.pack(">2I", 156, len(lut))
    tags += b"wtpt" + struct.pack(">2I", 156 + len(lut), len(white))
    head = struct.pack(">I4sI4s4s4s", 156 + len(lut) + len(white), b"lcms", 0x02100000, *TO_LAB)
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3I", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + tags + lut + white


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_goes_through_its_profile(kind: str, tmp_path: Path) -> None:
    image = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    plain = load(by_pillow(image, kind), tmp_path)
    assert plain.rgb[8, 8, 0] < 30
    assert plain.rgb[8, 8, 2] > 200
    photo = load(by_pillow(image, kind, icc_profile=cmyk_profile()), tmp_path)
    # L* = 75 of no hue is 185 in sRGB.
    assert deviation(photo.rgb, np.full((16, 16, 3), 185, np.uint8)) <= 6
    assert photo.metadata.icc_profile is None


@pytest.mark.parametrize("value", range(1, 9))
def test_turned_as_pillow_turns(value: int, rgb: np.ndarray) -> None:
    image = Image.fromarray(rgb)
    image.getexif()[ExifTags.Base.Orientation] = value
    expected = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(turn(rgb, value), expected)
    assert np.array_equal(turn(rgb[..., 0], value), expected[..., 0])


@pytest.mark.parametrize("value", [3, 6, 7])
@pytest.mark.parametrize("kind", ["AVIF", "JPEG", "PNG", "TIFF", "WEBP"])
def test_orientation_is_applied_once(
    kind: str, value: int, rgb: np.ndarray, tmp_path: Path
) -> None:
    suffix, tolerance, options = KINDS[kind]
    content = by_pillow(Image.fromarray(rgb), kind, exif=exif_block(value), **options)
    photo = load(content, tmp_path, f"a{suffix}")
    assert deviation(photo.rgb, turn(rgb, value)) <= tolerance
    write_photo(tmp_path / f"b{suffix}", photo, WriteOptions())
    again = load_photo(tmp_path / f"b{suffix}")
    assert deviation(again.rgb, turn(rgb, value)) <= 2 * tolerance + (24 if kind == "WEBP" else 0)
    with Image.open(tmp_path / f"b{suffix}") as image:
        assert image.getexif().get(ExifTags.Base.Orientation, 1) == 1
        assert image.getexif()[ExifTags.Base.Make] == "Maker"


def test_orientation_of_a_phone_file(rgb: np.ndarray, tmp_path: Path) -> None:
    content = by_pillow(Image.fromarray(rgb), "HEIF", exif=exif_block(6), quality=95)
    photo = load(content, tmp_path)
    assert deviation(photo.rgb, turn(rgb, 6)) <= 12
    assert b"Maker" in (photo.metadata.exif or b"")


def bomb(kind: str) -> bytes:
    """A file of a few bytes that claims to be large."""
    if kind == "BMP":
        header = struct.pack("<IIIIiiHHIIIIII", 60, 0, 54, 40, 30000, 30000, 1, 24, *[0] * 6)
        return b"BM" + header + bytes(40)
    if kind == "GIF":
        content = by_pillow(Image.new("P", (1, 1)), "GIF")
        return content[:6] + struct.pack("<HH", 30000, 30000) + content[10:]
    return b"P6 30000 30000 255\n" + bytes(40)


@pytest.mark.parametrize("kind", ["BMP", "GIF", "PPM"])
def test_size_is_refused_before_decoding(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.img"
    path.write_bytes(bomb(kind))
    with pytest.raises(ImageError, match=r"a\.img: 30000x30000 px is more than 179 megapixels"):
        load_photo(path)


def test_size_that_pillow_does_not_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def give_up(*_: object) -> None:
        raise Image.DecompressionBombError

    path = tmp_path / "a.img"
    path.write_bytes(bomb("BMP"))
    Image.init()
    monkeypatch.setitem(Image.OPEN, "BMP", (give_up, None))
    with pytest.raises(ImageError, match=r"a\.img: more than 179 megapixels"):
        load_photo(path)


def test_whole_file_of_a_kind_that_is_not_read(rgb: np.ndarray, tmp_path: Path) -> None:
    content = bytearray(by_pillow(Image.fromarray(rgb), "TIFF"))
    # The same bytes, said to be of numbers that no colour picture of Pillow's has.
    (count,) = struct.unpack_from("<H", content, 8)
    (place,) = (p for p in range(10, 10 + 12 * count, 12) if content[p : p + 2] == b"\x1c\x01")
    struct.pack_into("<HHIHH", content, place, 339, 3, 1, 3, 0)
    with pytest.raises(ImageError, match=r"photo: .*of a kind that is not read .*floating point"):
        load(bytes(content), tmp_path)


def test_limit_of_the_caller(rgb: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(rgb).save(tmp_path / "a.png")
    for source in (tmp_path / "a.png", rgb, Image.fromarray(rgb)):
        assert load_photo(source, max_pixels=960).size == (WIDTH, HEIGHT)
        with pytest.raises(ImageError, match=r"40x24 px is more than 0\.000959 megapixels"):
            load_photo(source, max_pixels=959)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.02, 0.6])
def test_truncated(kind: str, share: float, rgb: np.ndarray, tmp_path: Path) -> None:
    whole = by_pillow(Image.fromarray(rgb), kind)
    path = tmp_path / "a.img"
    path.write_bytes(whole[: max(12, int(len(whole) * share))])
    with pytest.raises(ImageError, match=r"a\.img: ") as caught:
        load_photo(path)
    assert "\n" not in str(caught.value)
    assert "truncated" in str(caught.value) or "not an image" in str(caught.value)


def test_name_of_another_kind(rgb: np.ndarray, tmp_path: Path) -> None:
    image = Image.fromarray(rgb)
    for kind, name in (("PNG", "a.jpg"), ("HEIF", "b.jpg"), ("JPEG", "c.heic"), ("WEBP", "d.png")):
        photo = load(by_pillow(image, kind), tmp_path, name)
        assert deviation(photo.rgb, rgb) < 60
        assert photo.suffix == Path(name).suffix
    assert load(by_pillow(image, "JPEG"), tmp_path, "e").suffix == ".jpg"
    assert load(by_pillow(image, "WEBP"), tmp_path, "f.download").suffix == ".webp"


@pytest.mark.parametrize("kind", ["EPS", "PDF", "ICO", "SGI"])
def test_other_kinds_are_no_photos(kind: str, rgb: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="not an image"):
        load(by_pillow(Image.fromarray(rgb), kind), tmp_path, "a.jpg")


def test_heic_without_its_extra(
    rgb: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    (tmp_path / "phone.jpg").write_bytes(b"....ftypheic" + bytes(40))
    with pytest.raises(MissingExtraError, match=r"phone\.jpg.*panini-net\[heif\]"):
        load_photo(tmp_path / "phone.jpg")
    with pytest.raises(MissingExtraError, match=r"a\.heic: writing HEIC.*panini-net\[heif\]"):
        write_photo(tmp_path / "a.heic", Photo(rgb=rgb), WriteOptions())
    with pytest.raises(MissingExtraError, match="heic: writing HEIC"):
        suffix_for("a.jpg", "heic")
