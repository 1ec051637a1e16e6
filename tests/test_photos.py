"""Files of every kind in and out: pixels, depth, alpha, orientation, and what goes with them."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, ImageOps
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from panini import photos
from panini.decoding import narrow, turn
from panini.errors import ConfigError, ImageError, MissingExtraError
from panini.images import FORMATS, OUTPUT_SUFFIXES
from panini.metadata import DIGITAL_SOURCE_TYPE, XMP_NAMESPACE, marked_xmp, upright_exif
from panini.photos import Mark, Metadata, Photo, WriteOptions, load_photo, suffix_for, write_photo

HEIGHT, WIDTH = 24, 40
RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
IPTC = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}"
NOTES = b"Maker's notes, with an offset inside: \x00\x00\x01\x90"

XMP = (
    b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    b'xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title><rdf:Alt><rdf:li xml:lang="x-default">'
    b"Gro\xc3\x9fmutter &amp; Hund</rdf:li></rdf:Alt></dc:title></rdf:Description></rdf:RDF>"
    b'</x:xmpmeta><?xpacket end="w"?>'
)
MARK = Mark(model="mobile-mfr", thetas=(0.41, 0.5333333), settings={"prior_bias": 0.5, "a": "<&>"})


@pytest.fixture(scope="module")
def deep() -> np.ndarray:
    """A smooth colour picture of 16 bits, whose low bits are noise."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    smooth = np.stack([x * 6, y * 10, 255 - x * 3], axis=2) * 257
    noise = np.random.default_rng(0).integers(-120, 120, smooth.shape)
    return np.clip(smooth + noise, 0, 65535).astype(np.uint16)


@pytest.fixture(scope="module")
def rgb(deep: np.ndarray) -> np.ndarray:
    return np.rint(deep / 257).astype(np.uint8)


@pytest.fixture(scope="module")
def alpha() -> np.ndarray:
    """From clear on the left to solid on the right, 16 bits."""
    return np.tile(np.linspace(0, 65535, WIDTH).astype(np.uint16), (HEIGHT, 1))


@pytest.fixture(scope="module")
def profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def exif_block(orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Maker"
    exif[ExifTags.Base.ImageDescription] = "At the lake"
    exif[ExifTags.Base.Orientation] = orientation
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "1931:07:05 12:00:00"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.MakerNote] = NOTES
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    return exif.tobytes()


def deviation(a: np.ndarray, b: np.ndarray) -> int:
    assert a.shape == b.shape
    return int(np.abs(a.astype(int) - b.astype(int)).max())


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


def test_first_frame_of_several(rgb: np.ndarray, tmp_path: Path) -> None:
    frames = [Image.fromarray(rgb), Image.fromarray(255 - rgb)]
    for kind in ("GIF", "TIFF", "WEBP", "PNG"):
        content = by_pillow(frames[0], kind, save_all=True, append_images=frames[1:])
        assert deviation(load(content, tmp_path).rgb, rgb) <= 40


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bits_are_read(
    kind: str, channels: int, deep: np.ndarray, alpha: np.ndarray, tmp_path: Path
) -> None:
    if (kind, channels) == ("TIFF", 2):
        pytest.skip("grey with alpha is no kind of TIFF that programs write")
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


def test_transparent_level_of_16_bits(deep: np.ndarray, tmp_path: Path) -> None:
    colour = struct.pack(">3H", *map(int, deep[3, 4]))
    photo = load(png(deep, 2, (b"tRNS", colour)), tmp_path)
    assert photo.alpha is not None
    assert np.array_equal(np.argwhere(photo.alpha == 0), [(3, 4)])
    assert np.array_equal(photo.deep, deep)  # pyright: ignore
    grey = load(png(deep[..., :1], 0, (b"tRNS", colour[:2])), tmp_path)
    assert grey.alpha is not None
    assert np.array_equal(grey.alpha == 0, deep[..., 0] == deep[3, 4, 0])


def test_floats_and_long_integers_become_16_bits(deep: np.ndarray, tmp_path: Path) -> None:
    grey = deep[..., 0]
    for values in (grey / np.float32(65535), grey.astype(np.int32)):
        photo = load(by_pillow(Image.fromarray(values), "TIFF"), tmp_path)
        assert photo.deep is not None
        assert deviation(photo.deep[..., 1], grey) <= 1
        assert photo.grey


def test_16_bits_that_opencv_cannot_read(
    deep: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(cv2, "imdecode", lambda *_: None)
    photo = load(png(deep, 2), tmp_path)
    assert photo.deep is None
    assert deviation(photo.rgb, narrow(deep)) <= 1  # Pillow cuts the low bits off
    assert "only 8 of them are kept" in caplog.text


def test_every_level_is_narrowed_as_it_is_rounded() -> None:
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    assert np.array_equal(narrow(levels), np.rint(levels / 257))


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


TO_LAB = (b"prtr", b"CMYK", b"Lab ")


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
    assert deviation(again.rgb, turn(rgb, value)) <= LOSS.get(suffix, 0)
    with Image.open(tmp_path / f"b{suffix}") as image:
        assert image.getexif().get(ExifTags.Base.Orientation, 1) == 1
        assert image.getexif()[ExifTags.Base.Make] == "Maker"


def test_orientation_of_a_phone_file(rgb: np.ndarray, tmp_path: Path) -> None:
    content = by_pillow(Image.fromarray(rgb), "HEIF", exif=exif_block(6), quality=95)
    photo = load(content, tmp_path)
    assert deviation(photo.rgb, turn(rgb, 6)) <= 12
    assert b"Maker" in (photo.metadata.exif or b"")


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


def test_damaged_exif_costs_only_the_exif(rgb: np.ndarray, tmp_path: Path) -> None:
    for block in (exif_block()[:20], b"Exif\0\0MM\0*\0\0\0\x08\0\x09" + bytes(9), b"Exif\0\0"):
        for kind in ("JPEG", "PNG", "WEBP"):
            photo = load(by_pillow(Image.fromarray(rgb), kind, exif=block), tmp_path)
            assert photo.metadata.exif is None
            assert photo.size == (WIDTH, HEIGHT)


def test_exif_keeps_its_bytes() -> None:
    turned, upright = exif_block(6), upright_exif(exif_block(6))
    assert upright == exif_block(1)
    assert [a for a, b in zip(turned, upright, strict=True) if a != b] == [6]
    with pytest.raises(ValueError, match="not an EXIF block"):
        upright_exif(b"Exif\0\0whatever")


# What a round trip keeps: 16 bits, alpha, one grey channel, that with alpha, metadata, dpi.
HOLDS = {
    ".avif": "alpha grey metadata",
    ".bmp": "grey grey+alpha dpi",
    ".gif": "grey grey+alpha",
    ".heic": "alpha grey metadata",
    ".jpg": "grey grey+alpha metadata dpi",
    ".png": "16 alpha grey grey+alpha metadata dpi",
    ".tif": "16 alpha grey metadata dpi",
    ".webp": "alpha metadata",
}
LOSS = {".avif": 8, ".gif": 24, ".heic": 8, ".jpg": 8, ".webp": 24}


@pytest.mark.parametrize("suffix", HOLDS)
@pytest.mark.parametrize("transparent", [False, True], ids=["opaque", "alpha"])
@pytest.mark.parametrize("grey", [False, True], ids=["colour", "grey"])
@pytest.mark.parametrize("bits", [8, 16])
def test_matrix(
    suffix: str,
    transparent: bool,
    grey: bool,
    bits: int,
    deep: np.ndarray,
    alpha: np.ndarray,
    profile: bytes,
    tmp_path: Path,
) -> None:
    if suffix == ".heic":
        pytest.importorskip("pillow_heif")
    holds = HOLDS[suffix].split()
    colours = np.repeat(deep[..., :1], 3, axis=2) if grey else deep
    opacity = np.maximum(alpha, 257)
    photo = Photo(
        rgb=narrow(colours),
        deep=colours if bits == 16 else None,
        alpha=(opacity if bits == 16 else narrow(opacity)) if transparent else None,
        grey=grey,
        metadata=Metadata(icc_profile=profile, exif=exif_block(), xmp=XMP, dpi=(300, 240)),
    )
    path = tmp_path / f"a{suffix}"
    write_photo(path, photo, WriteOptions())
    result = load_photo(path)

    # Pixels.
    assert result.grey == (grey and ("grey+alpha" if transparent else "grey") in holds)
    assert (result.deep is not None) == (bits == 16 and "16" in holds)
    if result.deep is not None:
        assert np.array_equal(result.deep, colours)
        independent = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert independent is not None
        assert np.array_equal(independent.reshape(HEIGHT, WIDTH, -1)[..., 0], colours[..., -1])
    assert (result.alpha is not None) == (transparent and "alpha" in holds)
    if result.alpha is not None:
        expected = opacity if result.deep is not None else narrow(opacity)
        assert deviation(result.alpha, expected) <= (2 if suffix in (".avif", ".heic") else 0)
    if transparent and "alpha" not in holds:
        share = narrow(opacity)[..., None] / 255
        seen = np.rint(narrow(colours) * share + 255 * (1 - share))
        assert deviation(result.rgb, seen) <= LOSS.get(suffix, 0) + 1
    else:
        assert deviation(result.rgb, narrow(colours)) <= LOSS.get(suffix, 0)

    # And what goes with them.
    if "metadata" in holds:
        assert result.metadata.icc_profile == profile
        assert result.metadata.xmp == XMP
        with Image.open(path) as image:
            exif = image.getexif()
            assert exif[ExifTags.Base.Make] == "Maker"
            assert exif[ExifTags.Base.ImageDescription] == "At the lake"
            details = exif.get_ifd(ExifTags.IFD.Exif)
            assert details[ExifTags.Base.DateTimeOriginal] == "1931:07:05 12:00:00"
            assert details[ExifTags.Base.MakerNote] == NOTES
            assert exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] == "N"
    else:
        found = result.metadata
        assert (found.icc_profile, found.exif, found.xmp) == (None, None, None)
    if "dpi" in holds:
        assert result.metadata.dpi == pytest.approx((300, 240), abs=0.05)


def test_matrix_names_every_format() -> None:
    assert {FORMATS[suffix].name for suffix in HOLDS} == {kind.name for kind in FORMATS.values()}
    assert set(FORMATS) == OUTPUT_SUFFIXES


def test_profiles_for_other_pixels_are_left_out(rgb: np.ndarray, tmp_path: Path) -> None:
    grey_profile = bytes(16) + b"GRAY" + bytes(100)
    photo = Photo(rgb=rgb, grey=True, metadata=Metadata(icc_profile=grey_profile))
    write_photo(tmp_path / "a.png", photo, WriteOptions())
    write_photo(tmp_path / "a.webp", photo, WriteOptions())
    assert load_photo(tmp_path / "a.png").metadata.icc_profile == grey_profile
    assert load_photo(tmp_path / "a.webp").metadata.icc_profile is None
    assert "icc_profile" in photo.to_image().info
    assert photo.to_image().mode == "L"


def test_tags_of_a_tiff_stay_with_it(rgb: np.ndarray, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Software] = "Scanner 1.0"
    photo = load(by_pillow(Image.fromarray(rgb), "TIFF", exif=exif, dpi=(600, 600)), tmp_path)
    write_photo(tmp_path / "b.jpg", photo, WriteOptions())
    with Image.open(tmp_path / "b.jpg") as image:
        found = dict(image.getexif())
        assert image.info["dpi"] == (600, 600)
    assert found.pop(ExifTags.Base.Software) == "Scanner 1.0"
    # Not where the pixels of the TIFF were.
    assert set(found) <= {ExifTags.Base.XResolution, ExifTags.Base.YResolution, 0x0128}


def statements(xmp: bytes) -> dict[str, list[str]]:
    """Name → texts of all properties, whichever way they are written."""
    found: dict[str, list[str]] = {}
    for statement in ElementTree.fromstring(xmp.decode().strip()).iter(f"{RDF}Description"):
        for name, value in statement.attrib.items():
            found.setdefault(name, []).append(value)
        for element in statement:
            found.setdefault(element.tag, []).append("".join(element.itertext()))
    return found


@pytest.mark.parametrize("suffix", [key for key, value in HOLDS.items() if "metadata" in value])
@pytest.mark.parametrize("before", [None, XMP], ids=["no XMP", "XMP"])
def test_marked(suffix: str, before: bytes | None, rgb: np.ndarray, tmp_path: Path) -> None:
    if suffix == ".heic":
        pytest.importorskip("pillow_heif")
    photo = Photo(rgb=rgb, metadata=Metadata(xmp=before))
    write_photo(tmp_path / f"a{suffix}", photo, WriteOptions(mark=MARK))
    xmp = load_photo(tmp_path / f"a{suffix}").metadata.xmp
    assert xmp is not None
    said = statements(xmp)
    assert said[f"{IPTC}DigitalSourceType"] == [DIGITAL_SOURCE_TYPE]
    assert said[f"{IPTC}AISystemUsed"] == ["panini-net, model mobile-mfr"]
    panini = f"{{{XMP_NAMESPACE}}}"
    assert said[f"{panini}Thetas"] == ["[0.41, 0.5333]"]
    assert said[f"{panini}Settings"] == ['{"prior_bias": 0.5, "a": "<&>"}']
    (note,) = said[f"{panini}Note"]
    assert "faces drawn anew by mobile-mfr, θ 0.41 0.53, settings {" in note
    title = "{http://purl.org/dc/elements/1.1/}title"
    assert said.get(title) == (["Großmutter & Hund"] if before else None)


def test_mark_is_put_in_beside_the_rest() -> None:
    marked = marked_xmp(XMP, MARK)
    start = marked.index(b"<rdf:Description xmlns:rdf")
    end = marked.index(b"</rdf:RDF>")
    assert marked[:start] + marked[end:] == XMP


def test_second_mark_takes_the_place_of_the_first() -> None:
    once = marked_xmp(XMP, Mark(model="older"))
    assert marked_xmp(once, MARK) == marked_xmp(XMP, MARK)


@pytest.mark.parametrize(
    "said",
    [
        b'<rdf:Description rdf:about="uuid:7" xmlns:e="%s" e:DigitalSourceType="camera"/>',
        b'<rdf:Description rdf:about="uuid:7" xmlns:e="%s"><e:DigitalSourceType>camera'
        b"</e:DigitalSourceType></rdf:Description>",
        b'<rdf:Description rdf:about="uuid:7" xmlns:e="%s">'
        b'<e:DigitalSourceType rdf:resource="camera"/></rdf:Description>',
    ],
)
def test_another_source_type_gives_way(said: bytes) -> None:
    start = XMP.index(b"<rdf:Description")
    marked = marked_xmp(XMP[:start] + said % IPTC[1:-1].encode() + XMP[start:], MARK)
    assert statements(marked)[f"{IPTC}DigitalSourceType"] == [DIGITAL_SOURCE_TYPE]
    assert b"camera" not in marked
    assert b"Hund" in marked
    assert statements(marked)[f"{RDF}about"][-1] == "uuid:7"


@pytest.mark.parametrize(
    "xmp",
    [
        b"no XML",
        XMP[:-100],
        b"<x><Iptc4xmpExt:DigitalSourceType>" * 9,
        b"\xff\xfe\xff",
        XMP.replace(b"<x:xmpmeta", b"<!DOCTYPE x><x:xmpmeta"),
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>',
    ],
)
def test_damaged_xmp_gives_way_to_the_mark(xmp: bytes) -> None:
    assert marked_xmp(xmp, MARK) == marked_xmp(None, MARK)


def test_control_characters_in_a_name() -> None:
    said = statements(marked_xmp(None, Mark(model="a\x07<b>\n", thetas=())))
    assert said[f"{{{XMP_NAMESPACE}}}Model"] == ["a?<b>?"]


def test_orientation_in_the_xmp_is_reset(rgb: np.ndarray, tmp_path: Path) -> None:
    for said in (b' tiff:Orientation="6"', b"><tiff:Orientation>6</tiff:Orientation></"):
        assert b"6" in said
        xmp = b"<x>" + said + b"</x>"
        photo = load(by_pillow(Image.fromarray(rgb), "JPEG", xmp=xmp), tmp_path)
        assert photo.metadata.xmp == xmp.replace(b"6", b"1")


def test_formats_without_metadata_take_a_mark(rgb: np.ndarray, tmp_path: Path) -> None:
    photo = Photo(rgb=rgb, metadata=Metadata(xmp=XMP, exif=exif_block()))
    for suffix in (".bmp", ".gif"):
        write_photo(tmp_path / f"a{suffix}", photo, WriteOptions(mark=MARK))
    with Image.open(tmp_path / "a.gif") as image:
        assert b"faces drawn anew by mobile-mfr" in image.info["comment"]


def test_what_is_too_long_for_a_jpeg(
    rgb: np.ndarray, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    long = Metadata(xmp=XMP.replace(b"Hund", b"x" * 70_000), exif=exif_block() + bytes(70_000))
    photo = Photo(rgb=rgb, metadata=long)
    write_photo(tmp_path / "a.jpg", photo, WriteOptions(mark=MARK))
    result = load_photo(tmp_path / "a.jpg").metadata
    assert result.exif is None
    assert result.xmp == marked_xmp(None, MARK)
    assert "EXIF is too long" in caplog.text
    assert "XMP is too long" in caplog.text
    write_photo(tmp_path / "a.webp", photo, WriteOptions())
    assert load_photo(tmp_path / "a.webp").metadata == long


@pytest.mark.parametrize("suffix", [".avif", ".heic", ".jpg", ".webp"])
def test_quality(suffix: str, rgb: np.ndarray) -> None:
    if suffix == ".heic":
        pytest.importorskip("pillow_heif")
    sizes = [
        len(photos.encode_photo(f"a{suffix}", Photo(rgb=rgb), WriteOptions(quality=quality)))
        for quality in (10, None, 100)
    ]
    assert sizes == sorted(set(sizes))


def test_bad_quality(rgb: np.ndarray, tmp_path: Path) -> None:
    for quality in (0, 101):
        with pytest.raises(ConfigError, match=f"quality: expected 1 to 100, got {quality}"):
            write_photo(tmp_path / "a.png", Photo(rgb=rgb), WriteOptions(quality=quality))
    assert list(tmp_path.iterdir()) == []


def bomb(kind: str) -> bytes:
    """A file of a few bytes that claims to be large."""
    if kind == "PNG":
        return png(np.zeros((1, 1, 3)), 2, size=(30000, 30000))
    if kind == "large PNG":  # too large for us, not for Pillow
        return png(np.zeros((1, 1, 3)), 2, size=(9000, 9000))
    if kind == "TIFF":
        return tiff(np.zeros((1, 1, 3)), t256=30000, t257=30000)
    if kind == "BMP":
        header = struct.pack("<IIIIiiHHIIIIII", 60, 0, 54, 40, 30000, 30000, 1, 24, *[0] * 6)
        return b"BM" + header + bytes(40)
    if kind == "GIF":
        content = by_pillow(Image.new("P", (1, 1)), "GIF")
        return content[:6] + struct.pack("<HH", 30000, 30000) + content[10:]
    return b"P6 30000 30000 255\n" + bytes(40)


@pytest.mark.parametrize("kind", ["PNG", "large PNG", "TIFF", "BMP", "GIF", "PPM"])
def test_size_is_refused_before_decoding(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.img"
    path.write_bytes(bomb(kind))
    with pytest.raises(ImageError, match=r"more than \d+ megapixels"):
        load_photo(path, max_pixels=80_000_000)


def test_limit_of_the_caller(rgb: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(rgb).save(tmp_path / "a.png")
    for source in (tmp_path / "a.png", rgb, Image.fromarray(rgb)):
        assert load_photo(source, max_pixels=960).size == (WIDTH, HEIGHT)
        with pytest.raises(ImageError, match=r"40x24 px is more than 0\.000959 megapixels"):
            load_photo(source, max_pixels=959)


@pytest.mark.parametrize("kind", [*KINDS, "deep PNG", "deep TIFF"])
@pytest.mark.parametrize("share", [0.02, 0.6])
def test_truncated(
    kind: str, share: float, deep: np.ndarray, rgb: np.ndarray, tmp_path: Path
) -> None:
    if kind == "deep PNG":
        whole = png(deep, 2)
    elif kind == "deep TIFF":
        whole = tiff(deep)
    else:
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


def test_pillow_without_avif(rgb: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(Image.SAVE, "AVIF")
    with pytest.raises(ImageError, match="this Pillow has no AVIF; pip install --upgrade pillow"):
        photos.encode_photo("a.avif", Photo(rgb=rgb), WriteOptions())


def test_suffix_of_the_output(rgb: np.ndarray) -> None:
    for given, expected in (
        ("a.JPG", ".jpg"),
        (Path("b/c.tiff"), ".tiff"),
        ("a.gif", ".png"),
        ("a.pgm", ".png"),
        ("a", ".png"),
        (Photo(rgb=rgb, suffix=".webp"), ".webp"),
        (Photo(rgb=rgb), ".png"),
    ):
        assert suffix_for(given) == expected
    assert suffix_for("a.png", "WebP") == suffix_for("a.png", ".webp") == ".webp"
    with pytest.raises(ImageError, match=r"cannot write '\.mp4' files; use one of \.avif"):
        suffix_for("a.png", "mp4")


def test_arrays_are_taken_as_they_are(rgb: np.ndarray) -> None:
    assert load_photo(rgb).rgb is rgb
    with pytest.raises(ImageError, match=r"expected a uint8 array"):
        load_photo(rgb[..., 0])
    image = Image.fromarray(rgb)
    image.putalpha(128)
    photo = load_photo(image)
    assert np.array_equal(photo.rgb, rgb)
    assert photo.alpha is not None
    assert (photo.suffix, photo.alpha.min(), photo.alpha.max()) == ("", 128, 128)
    assert photo.to_image().mode == "RGBA"


def test_enlarged_at_its_depth(deep: np.ndarray, rgb: np.ndarray, alpha: np.ndarray) -> None:
    size = (2 * WIDTH, 2 * HEIGHT)
    expected = np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.LANCZOS))
    plain = photos.enlarge(Photo(rgb=rgb), 2)
    assert np.array_equal(plain.rgb, expected)
    larger = photos.enlarge(Photo(rgb=rgb, deep=deep, alpha=alpha), 2)
    assert larger.deep is not None
    assert np.array_equal(larger.rgb, narrow(larger.deep))
    assert deviation(larger.rgb, expected) <= 2
    assert (larger.deep % 257 != 0).mean() > 0.8
    assert larger.alpha is not None
    assert larger.alpha.shape == (2 * HEIGHT, 2 * WIDTH)
    assert abs(int(larger.alpha[0, WIDTH]) - 32767) < 2000
    grey = np.repeat(deep[..., :1], 3, axis=2)
    larger = photos.enlarge(Photo(rgb=narrow(grey), deep=grey, grey=True), 2)
    assert larger.deep is not None
    assert np.array_equal(larger.deep[..., 0], larger.deep[..., 2])
    wide = Photo(rgb=np.zeros((1, 20_000_000, 3), np.uint8))
    with pytest.raises(ImageError, match="upscale 4: 80000000x4 px is more than 179 megapixels"):
        photos.enlarge(wide, 4)
