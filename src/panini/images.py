"""The one image contract: uint8 HWC RGB arrays at the boundary, (N, 3, H, W) in [-1, 1] inside.

Reading applies the orientation of the EXIF, and brings grey, palette, CMYK, alpha and 16-bit
files to 8-bit RGB. Writing is whole or not at all.
"""

from __future__ import annotations

import contextlib
import os
import struct
import uuid
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageOps, PngImagePlugin, UnidentifiedImageError

from panini.errors import ImageError, MissingExtraError

if TYPE_CHECKING:
    import torch

RgbImage = NDArray[np.uint8]
"""uint8 (H, W, 3), RGB, sRGB-like values in [0, 255]."""

ImageSource = str | os.PathLike[str] | Image.Image | RgbImage
"""What the library takes as an image: a file, a PIL image, or a uint8 HWC RGB array."""

MAX_PIXELS = 2 * 89_478_485
"""Larger images are refused unread: twice Pillow's threshold for a decompression bomb."""

HEIF_SUFFIXES = frozenset({".heic", ".heif"})
"""Phones' files: need the extra `heif`."""

IMAGE_SUFFIXES = HEIF_SUFFIXES | {
    *(".avif", ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm"),
    *(".tif", ".tiff", ".webp"),
}
"""Lower-case suffixes of the files that `find_images` takes from a folder."""

_SAVE_OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    ".bmp": ("BMP", {}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0, "optimize": True}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0, "optimize": True}),
    ".png": ("PNG", {}),
    ".tif": ("TIFF", {"compression": "tiff_lzw"}),
    ".tiff": ("TIFF", {"compression": "tiff_lzw"}),
    ".webp": ("WEBP", {"quality": 95, "method": 4}),
}
"""Suffix → (Pillow's name of the format, options of its writer)."""

OUTPUT_SUFFIXES = frozenset(_SAVE_OPTIONS)
"""Lower-case suffixes that `write_rgb` can write."""

_BAD_EXIF = (struct.error, SyntaxError, ValueError, TypeError, KeyError, OSError, OverflowError)
"""What Pillow raises on EXIF that is not as it should be."""

_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"GIF8", b"BM", b"II*\0", b"MM\0*")


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What a photo carries beside its pixels."""

    icc_profile: bytes | None = None
    """RGB colour profile; None when the photo has none (or one that is not for RGB)."""

    exif: bytes | None = None
    """EXIF block without the orientation, which is applied to the pixels on reading."""


def read_rgb(path: str | os.PathLike[str]) -> RgbImage:
    """Read an image file as uint8 (H, W, 3) RGB, upright.

    Raises:
        ImageError: The file does not exist, is empty, truncated, too large or not an image.
        MissingExtraError: A HEIC file, and pillow-heif is not installed.
    """
    return read_photo(path)[0]


def read_photo(path: str | os.PathLike[str]) -> tuple[RgbImage, Metadata]:
    """Read an image file as `read_rgb` does, together with its profile and EXIF."""
    path = Path(path)
    _check_readable(path)
    try:
        # Pillow warns of damaged EXIF, which we leave out, and from half of MAX_PIXELS on.
        with warnings.catch_warnings(action="ignore"), Image.open(path) as image:
            _check_size(image, str(path))
            image.load()
            return _pixels(image), _metadata(image)
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path}: more than {MAX_PIXELS / 1e6:.0f} megapixels") from error
    except UnidentifiedImageError as error:
        raise ImageError(_unidentified(path)) from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        if "truncated" in str(error).lower():
            raise ImageError(f"{path}: the image is truncated; copy the file again") from error
        raise ImageError(f"{path}: the image is truncated or damaged ({error})") from error


def load_image(source: ImageSource) -> RgbImage:
    """Bring a path, a PIL image or a uint8 HWC array to uint8 (H, W, 3) RGB.

    Raises:
        ImageError: A file that cannot be read, or an array of another shape or type.
    """
    return load_photo(source)[0]


def load_photo(source: ImageSource) -> tuple[RgbImage, Metadata]:
    """`load_image`, together with what the source carries beside its pixels."""
    if isinstance(source, Image.Image):
        _check_size(source, "image")
        with warnings.catch_warnings(action="ignore"):
            return _pixels(source), _metadata(source)
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3:
            found = f"{source.dtype} {source.shape}"
            raise ImageError(f"expected a uint8 array (height, width, 3) in RGB, got {found}")
        if source.size == 0:
            raise ImageError(f"expected an image with pixels, got an array {source.shape}")
        return source, Metadata()
    return read_photo(source)


def write_rgb(
    path: str | os.PathLike[str],
    array: RgbImage,
    *,
    overwrite: bool = False,
    pnginfo: dict[str, str] | None = None,
    metadata: Metadata | None = None,
) -> None:
    """Write uint8 (H, W, 3) RGB in the format of the suffix, whole or not at all.

    Args:
        path: One of `OUTPUT_SUFFIXES`; the folder must exist.
        array: Pixels.
        overwrite: Replace a file that is there.
        pnginfo: Text chunks, keyword → text; only PNG holds them, other formats leave them out.
        metadata: Profile and EXIF to carry over.

    Raises:
        ImageError: The file exists and `overwrite` is false, or it cannot be written.
    """
    path = Path(path)
    check_output(path, overwrite=overwrite)
    kind, options = _SAVE_OPTIONS[path.suffix.lower()]
    options = dict(options)
    if metadata is not None and kind != "BMP":
        carried = {"icc_profile": metadata.icc_profile, "exif": metadata.exif}
        options.update({key: value for key, value in carried.items() if value})
    if kind == "PNG" and pnginfo:
        chunks = PngImagePlugin.PngInfo()
        for key, text in pnginfo.items():
            chunks.add_itxt(key, text)
        options["pnginfo"] = chunks
    buffer = BytesIO()
    try:
        Image.fromarray(array, "RGB" if array.ndim == 3 else None).save(buffer, kind, **options)
    except (OSError, ValueError) as error:
        raise ImageError(f"{path}: cannot be written as {kind} ({error})") from error
    write_whole(path, buffer.getbuffer())


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Put `content` at `path` at once: a reader sees the old file or the new one, never half.

    Raises:
        ImageError: The folder cannot be written to, or the disk is full.
    """
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with part.open("xb") as file:
            file.write(content)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise ImageError(f"{path}: cannot be written ({error.strerror or error})") from error


def check_output(path: Path, *, overwrite: bool) -> None:
    """Say now what `write_rgb` would say after the work is done.

    Raises:
        ImageError: No such format, no such folder, or the file exists and may not be replaced.
    """
    if path.suffix.lower() not in _SAVE_OPTIONS:
        known = " ".join(sorted(_SAVE_OPTIONS))
        raise ImageError(f"{path}: cannot write '{path.suffix}' files; use one of {known}")
    if not path.parent.is_dir():
        raise ImageError(f"{path}: the folder {path.parent} does not exist")
    if path.is_dir():
        raise ImageError(f"{path}: is a folder, expected a file")
    if path.exists() and not overwrite:
        raise ImageError(f"{path}: exists already; --overwrite replaces it")


def find_images(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Files as they are given, folders as the images directly in them, sorted by name.

    A file is taken whatever its suffix, and a missing one stays in the list: reading it says why.

    Raises:
        ImageError: A folder without any image.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        inside = [p for p in inside if p.is_file() and not p.name.startswith(".")]
        if not inside:
            raise ImageError(f"{path}: the folder holds no image")
        found += inside
    return found


def to_tensor(image: RgbImage) -> torch.Tensor:
    """uint8 (H, W, 3) RGB → float32 (1, 3, H, W) RGB in [-1, 1]."""
    import torch

    # A copy: the caller's array stays his, and torch does not take read-only ones.
    tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1).unsqueeze(0)
    return tensor.float().div_(127.5).sub_(1.0).contiguous()


def to_uint8(images: torch.Tensor) -> list[RgbImage]:
    """Float (N, 3, H, W) RGB in [-1, 1], clamped → N arrays uint8 (H, W, 3) RGB."""
    import torch

    # Rounded where the tensor lives, so that a quarter of the bytes leaves the device.
    levels = images.detach().float().clamp(-1.0, 1.0).add(1.0).mul(127.5).round()
    return list(levels.to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy())


def _check_readable(path: Path) -> None:
    if not path.exists():
        raise ImageError(f"{path}: does not exist")
    if path.is_dir():
        raise ImageError(f"{path}: is a folder, expected an image file")
    if path.stat().st_size == 0:
        raise ImageError(f"{path}: the file is empty")
    if path.suffix.lower() in HEIF_SUFFIXES:
        try:
            from pillow_heif import register_heif_opener  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise MissingExtraError("heif", f"{path}: reading HEIC") from error
        register_heif_opener()


def _check_size(image: Image.Image, name: str) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        limit = f"{MAX_PIXELS / 1e6:.0f} megapixels"
        raise ImageError(f"{name}: {width}x{height} px is more than {limit}")


def _unidentified(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(12)
    if head.startswith(_MAGIC) or head[4:8] == b"ftyp":
        return f"{path}: begins like an image, but is truncated or damaged; copy the file again"
    return f"{path}: not an image"


def _pixels(image: Image.Image) -> RgbImage:
    """Upright 8-bit RGB pixels of a loaded image of any mode."""
    # Damaged EXIF costs the orientation, not the photo.
    with contextlib.suppress(*_BAD_EXIF):
        image = ImageOps.exif_transpose(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _deep_grey(image)
    if image.mode == "CMYK":
        image = _cmyk_to_rgb(image)
    if image.has_transparency_data:
        # Hidden colours under the alpha are arbitrary: show what a viewer on white paper sees.
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return np.array(image.convert("RGB"))


def _deep_grey(image: Image.Image) -> RgbImage:
    """16-bit integers, or floats in [0, 1] (or [0, 255]), as 8-bit grey in three channels."""
    values = np.asarray(image, dtype=np.float32)
    if image.mode != "F":
        values = values / 257.0
    elif values.size and values.max() <= 1.0:
        values = values * 255.0
    grey = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def _cmyk_to_rgb(image: Image.Image) -> Image.Image:
    """Through the file's own profile when it has a usable one, else by Pillow's formula."""
    profile = image.info.get("icc_profile")
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(BytesIO(profile))
            srgb = ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(image, source, srgb, outputMode="RGB")
            if converted is not None:
                return converted
        except (ImageCms.PyCMSError, OSError):
            pass
    return image.convert("RGB")


def _metadata(image: Image.Image) -> Metadata:
    profile = image.info.get("icc_profile")
    # Bytes 16-19 of a profile name its colour space: one for CMYK or grey does not fit our RGB.
    if not isinstance(profile, bytes) or profile[16:20] != b"RGB ":
        profile = None
    block = None
    with contextlib.suppress(*_BAD_EXIF):
        exif = image.getexif()
        if ExifTags.Base.Orientation in exif:
            del exif[ExifTags.Base.Orientation]
        block = exif.tobytes() if len(exif) else None
    return Metadata(icc_profile=profile, exif=block)
