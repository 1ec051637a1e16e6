"""Image files of every kind to pixels: opened within limits, upright, depth and alpha apart."""

from __future__ import annotations

import contextlib
import struct
import threading
import warnings
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, TiffImagePlugin, UnidentifiedImageError

from panini.errors import ImageError, MissingExtraError

MAX_PIXELS = 2 * 89_478_485
"""Larger images are refused unread: twice Pillow's threshold for a decompression bomb."""

HEIF_SUFFIXES = frozenset({".heic", ".heif"})
"""Phones' files: need the extra `heif`."""

BAD_EXIF = (
    *(OSError, SyntaxError, ValueError, KeyError, struct.error),
    *(TypeError, AttributeError, OverflowError),
)
"""What Pillow raises on EXIF that is not as it should be."""

# Pillow knows more kinds; those are no photos, and some of them start other programs.
_KINDS = ("AVIF", "BMP", "DIB", "GIF", "HEIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"GIF8", b"BM")
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
DAMAGED = (
    *(OSError, SyntaxError, ValueError, EOFError, RuntimeError, IndexError, struct.error),
    *(TypeError, AttributeError, OverflowError),
)
"""What Pillow raises on files that are not as they should be."""

_BEYOND = 0.1  # Of white: sharpening and the like lead floats beyond it.
# White of floats, and the level that the brightest must reach. A photo of 255 levels that has none
# of 16 and more is rather one of another range.
_FLOAT_RANGES = ((1.0, 0.0), (255.0, 16.0))

_quiet_lock = threading.RLock()  # Python's filters of warnings belong to the whole process.

ArrayT = TypeVar("ArrayT", bound=NDArray[Any])


class UnsupportedError(ValueError):
    """An image of a kind that is whole, and that the library cannot make a photo of."""


class Planes(NamedTuple):
    """The pixels of an image, upright."""

    rgb: NDArray[np.uint8]
    """(H, W, 3); colours under a transparent alpha are the file's own."""
    deep: NDArray[np.uint16] | None
    """(H, W, 3) where there are more than 8 bits."""
    alpha: NDArray[np.uint8] | NDArray[np.uint16] | None
    """(H, W); None when everything is opaque."""
    grey: bool
    """One channel, three times."""


@contextlib.contextmanager
def open_image(path: Path, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """An image file, identified by its content and of a bearable size, not decoded yet.

    What fails while it is open, in decoding too, is said in one line.

    Raises:
        ImageError: The file does not exist, is empty, truncated, too large or not an image.
        MissingExtraError: A HEIC file, and pillow-heif is not installed.
    """
    head = _head(path)
    heif = head[4:8] == b"ftyp" and register_heif()
    Image.init()
    kinds = [kind for kind in _KINDS if kind in Image.OPEN and (heif or kind != "HEIF")]
    try:
        # By its path Pillow would map the file into memory, and then shears turned TIFFs (13.0).
        with path.open("rb") as file, quiet(), Image.open(file, formats=kinds) as image:
            check_size(image.size, str(path), max_pixels)
            _mend_planes(image)
            yield image
    except Image.DecompressionBombError as error:
        if size := _claimed_size(path, kinds):
            check_size(size, str(path), max_pixels)
        raise ImageError(f"{path}: more than {MAX_PIXELS / 1e6:.0f} megapixels") from error
    except UnidentifiedImageError as error:
        if head[4:8] == b"ftyp" and not heif:
            raise MissingExtraError("heif", f"{path}: reading HEIC") from error
        raise ImageError(_unidentified(path, head)) from error
    except UnsupportedError as error:
        raise ImageError(f"{path}: {error}") from error
    except DAMAGED as error:
        if "truncated" in str(error).lower():
            raise ImageError(f"{path}: the image is truncated; copy the file again") from error
        reason = " ".join(str(error).split())
        raise ImageError(f"{path}: the image is truncated or damaged ({reason})") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No warnings of Pillow's: of damaged EXIF, which is left out, and of large images."""
    with _quiet_lock, warnings.catch_warnings(action="ignore"):
        yield


def register_heif() -> bool:
    """Teach Pillow HEIC; False when the extra is not installed."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


def check_size(size: tuple[int, int], name: str, max_pixels: int = MAX_PIXELS) -> None:
    """Refuse an image of more than `max_pixels`.

    Raises:
        ImageError: It is that large.
    """
    width, height = size
    if width * height > max_pixels:
        limit = f"{max_pixels / 1e6:.3g} megapixels"
        raise ImageError(f"{name}: {width}x{height} px is more than {limit}")


def orientation(image: Image.Image) -> int:
    """How the image must be turned, as EXIF counts: 1 (not at all) to 8.

    Pillow turns some kinds of files while it decodes them, and then it is 1 afterwards.
    """
    # Damaged EXIF costs the orientation, not the photo.
    with contextlib.suppress(*BAD_EXIF):
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
        return value if value in range(1, 9) else 1
    return 1


def in_planes(image: Image.Image) -> bool:
    """A TIFF that has its colours in separate planes, each a picture of its own."""
    return getattr(image, "tag_v2", {}).get(TiffImagePlugin.PLANAR_CONFIGURATION, 1) == 2


def turn(array: ArrayT, value: int) -> ArrayT:
    """Bring (H, W) or (H, W, C) upright, by its EXIF orientation."""
    if value == 1:
        return array
    turned: Any = array.swapaxes(0, 1) if value >= 5 else array
    if value in (3, 4, 7, 8):
        turned = turned[::-1]
    if value in (2, 3, 6, 7):
        turned = turned[:, ::-1]
    return np.ascontiguousarray(turned)  # pyright: ignore[reportReturnType]


def planes(image: Image.Image) -> Planes:
    """The pixels of a loaded image of any mode."""
    how = orientation(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        deep = _deep_grey(image)
        # A key says which level is transparent.
        key = image.info.get("transparency")
        alpha = np.where(deep == key, 0, 65535).astype(np.uint16) if key is not None else None
        return deep_planes(deep[..., None], alpha, how)
    if image.mode == "CMYK":
        image = _cmyk_to_rgb(image)
    grey = _is_grey(image)
    if not image.has_transparency_data:
        rgb = np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
        return Planes(turn(rgb, how), None, None, grey)
    rgba = turn(np.asarray(image.convert("RGBA")), how)
    return Planes(np.ascontiguousarray(rgba[..., :3]), None, rgba[..., 3].copy(), grey)


def planes_in_memory(image: Image.Image) -> Planes:
    """The pixels of an image that a caller has, decoded if they are not yet.

    Raises:
        ImageError: It is damaged, or of a kind that is not read.
    """
    try:
        with quiet():
            _mend_planes(image)
            image.load()
            return planes(image)
    except UnsupportedError as error:
        raise ImageError(f"image: {error}") from error
    except DAMAGED as error:
        reason = " ".join(str(error).split())
        raise ImageError(f"image: is truncated or damaged ({reason})") from error


def deep_planes(
    deep: NDArray[np.uint16], alpha: NDArray[np.uint16] | None = None, how: int = 1
) -> Planes:
    """The pixels of (H, W, 1 or 3), still to be turned by an EXIF orientation."""
    grey = deep.shape[2] == 1
    deep = turn(np.repeat(deep, 3, axis=2) if grey else deep, how)
    return Planes(narrow(deep), deep, None if alpha is None else turn(alpha, how), grey)


def narrow(values: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """16 bits to 8, rounded: 65535 becomes 255."""
    import cv2  # heavy, and few photos are deep

    return np.asarray(cv2.convertScaleAbs(values, alpha=1 / 257), dtype=np.uint8)


def flatten(
    rgb: NDArray[np.uint8], alpha: NDArray[np.uint8] | NDArray[np.uint16] | None
) -> NDArray[np.uint8]:
    """Colours as on white paper: those that alpha hides are arbitrary."""
    if alpha is None:
        return rgb
    if alpha.dtype == np.uint16:
        alpha = narrow(alpha.astype(np.uint16, copy=False))
    photo = Image.fromarray(rgb)
    paper = Image.new("RGB", photo.size, "white")
    return np.asarray(Image.composite(photo, paper, Image.fromarray(alpha)))


def _head(path: Path) -> bytes:
    """The first bytes of a file that can be read."""
    if not path.exists():
        raise ImageError(f"{path}: does not exist")
    if path.is_dir():
        raise ImageError(f"{path}: is a folder, expected an image file")
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not head:
        raise ImageError(f"{path}: the file is empty")
    return head


def _unidentified(path: Path, head: bytes) -> str:
    if head.startswith(_TIFF_MAGIC):
        return (
            f"{path}: begins like an image, but is truncated, damaged or of a kind that is not "
            "read (such as floating point or 16 bits of Lab); save it as RGB with 8 or 16 bits"
        )
    if head.startswith(_MAGIC) or head[4:8] == b"ftyp":
        return f"{path}: begins like an image, but is truncated or damaged; copy the file again"
    return f"{path}: not an image"


def _claimed_size(path: Path, kinds: list[str]) -> tuple[int, int] | None:
    """Width and height of an image that Pillow does not open for its size; None if not told."""
    with contextlib.suppress(*DAMAGED, Image.DecompressionBombError), path.open("rb") as file:
        head = file.read(16)
        for kind in kinds:
            factory, accepts = Image.OPEN[kind]
            if accepts is None or accepts(head) is True:  # a text would say why it does not
                file.seek(0)
                return factory(file, "").size
    return None


def _mend_planes(image: Image.Image) -> None:
    """Let Pillow read a TIFF right whose colours lie apart.

    Where they are not compressed, it takes planes of 16 bits for planes of 8, and a single plane
    of some kinds for another (12.3).

    Raises:
        UnsupportedError: It has no way to read them.
    """
    if not in_planes(image) or not getattr(image, "tile", []):
        return
    getattr(image, "n_frames", 1)  # Counted later, the images of the file would undo it.
    tiles = image.tile  # pyright: ignore[reportAttributeAccessIssue]
    tags = image.tag_v2  # pyright: ignore[reportAttributeAccessIssue]
    if tags.get(TiffImagePlugin.SAMPLESPERPIXEL, 1) == 1:
        tags[TiffImagePlugin.PLANAR_CONFIGURATION] = 1
        image._setup()  # pyright: ignore
        return
    plain = tiles[0].codec_name == "raw"
    deep = plain and 16 in tags.get(TiffImagePlugin.BITSPERSAMPLE, ())
    bands = {tile.args[0][:1] for tile in tiles} if plain else set()
    modes = ("RGB", "RGBA") if deep else ("RGB", "RGBA", "CMYK")
    if image.mode not in modes or bands - {*image.mode}:
        raise UnsupportedError("has its colours in separate planes; save it interleaved")
    if deep:
        order = "B" if tags.prefix == b"MM" else "L"
        image.tile = [  # pyright: ignore[reportAttributeAccessIssue]
            tile._replace(args=(f"{tile.args[0][:1]};16{order}", *tile.args[1:])) for tile in tiles
        ]


def _is_grey(image: Image.Image) -> bool:
    if image.mode in ("P", "PA"):
        palette = np.array(image.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
        return bool(np.all(palette == palette[:, :1]))
    return image.mode in ("1", "L", "LA", "La")


def _deep_grey(image: Image.Image) -> NDArray[np.uint16]:
    """Integers of 12 or 16 bits, or floats in [0, 1] (or [0, 255]), as uint16 (H, W).

    Raises:
        UnsupportedError: Integers of more bits, or floats of another range.
    """
    values = np.asarray(image)
    if image.mode.startswith("I;16"):
        values = values.astype(np.uint16)
        if getattr(image, "tag_v2", {}).get(TiffImagePlugin.BITSPERSAMPLE) == (12,):
            values = np.rint(values * (65535 / 4095)).astype(np.uint16)
        # Pillow undoes "white is zero" only for 8 bits.
        return 65535 - values if _white_is_zero(image) else values
    if image.mode == "F":
        return _deep_floats(values)
    if values.size and not 0 <= values.min() <= values.max() <= 65535:
        raise UnsupportedError("has grey levels of more than 16 bits; save it with 16 or 8")
    return values.astype(np.uint16)


def _deep_floats(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Floats in [0, 1] or [0, 255], or a little beyond, as uint16; what is no number is black.

    Raises:
        UnsupportedError: They are in neither.
    """
    finite = values[np.isfinite(values)]
    lowest, highest = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    for white, least in _FLOAT_RANGES:
        beyond = _BEYOND * white
        if -beyond <= lowest and least <= highest <= white + beyond:
            within = np.nan_to_num(values.clip(0, white), nan=0.0)
            return np.rint(within * (65535 / white)).astype(np.uint16)
    raise UnsupportedError(
        f"has grey levels from {lowest:g} to {highest:g}, expected 0 to 1 or 0 to 255 in "
        "floating point; save it with 16 bits"
    )


def _white_is_zero(image: Image.Image) -> bool:
    tags = getattr(image, "tag_v2", {})
    return tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION, 1) == 0


def _cmyk_to_rgb(image: Image.Image) -> Image.Image:
    """Through the file's own profile when it has a usable one, else by Pillow's formula."""
    profile = image.info.get("icc_profile")
    if profile:
        with contextlib.suppress(ImageCms.PyCMSError, OSError):
            source = ImageCms.ImageCmsProfile(BytesIO(profile))
            srgb = ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(image, source, srgb, outputMode="RGB")
            if converted is not None:
                return converted
    return image.convert("RGB")
