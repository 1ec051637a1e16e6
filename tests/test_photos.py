"""A photo's round trip through every format, and what each of them keeps."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from panini import photos
from panini.decoding import narrow
from panini.errors import ConfigError, ImageError
from panini.images import FORMATS, OUTPUT_SUFFIXES
from panini.metadata import marked_xmp
from panini.photos import Mark, Metadata, Photo, WriteOptions, load_photo, suffix_for, write_photo

HEIGHT, WIDTH = 24, 40
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


def test_arrays_are_copied(rgb: np.ndarray) -> None:
    """Their owner may fill them anew, as a camera does."""
    photo = load_photo(rgb)
    assert np.array_equal(photo.rgb, rgb)
    assert not np.shares_memory(photo.rgb, rgb)
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


@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("bits", [8, 16])
def test_hidden_colours_do_not_bleed_into_a_cut_out(factor: int, bits: int) -> None:
    inside = np.zeros((24, 24), dtype=bool)
    inside[6:18, 6:18] = True
    alpha = (inside * (2**bits - 1)).astype(np.uint16 if bits == 16 else np.uint8)
    for hidden, white in ((0, 255), (200, 120)):
        rgb = np.where(inside, white, hidden).astype(np.uint8)[..., None].repeat(3, axis=2)
        deep = rgb * np.uint16(257) if bits == 16 else None
        for grey in (False, True):
            photo = Photo(rgb=rgb, deep=deep, alpha=alpha, grey=grey)
            larger = photos.enlarge(photo, factor)
            assert larger.alpha is not None
            assert np.array_equal(np.unique(larger.rgb[larger.alpha > 0]), [white])
            assert np.array_equal(larger.rgb[0, 0], [hidden] * 3)
            assert (larger.deep is None) == (bits == 8)


@pytest.mark.parametrize("profile", [None, b"ICC" * 40], ids=["simple", "extended"])
def test_a_webp_without_loss_stays_one(tmp_path, rgb, profile):
    Image.fromarray(rgb).save(tmp_path / "a.webp", lossless=True, icc_profile=profile)
    photo = load_photo(tmp_path / "a.webp")
    assert photo.lossless
    write_photo(tmp_path / "b.webp", photo, WriteOptions())
    np.testing.assert_array_equal(load_photo(tmp_path / "b.webp").rgb, rgb)
    write_photo(tmp_path / "c.webp", photo, WriteOptions(quality=90))
    assert not load_photo(tmp_path / "c.webp").lossless
    Image.fromarray(rgb).save(tmp_path / "a.webp", quality=100, icc_profile=profile)
    assert not load_photo(tmp_path / "a.webp").lossless
