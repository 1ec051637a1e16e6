"""The one image contract: uint8 HWC RGB arrays at the boundary, (N, 3, H, W) in [-1, 1] inside.

Reading applies the orientation of the EXIF, and brings grey, palette, CMYK, alpha and 16-bit
files to 8-bit RGB; `panini.photos` keeps what they carry beside it. Writing is whole or not at all.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from panini.decoding import (
    HEIF_SUFFIXES,
    MAX_PIXELS,
    check_size,
    flatten,
    open_image,
    planes,
    planes_in_memory,
    register_heif,
)
from panini.errors import ImageError, MissingExtraError

if TYPE_CHECKING:
    import torch

RgbImage = NDArray[np.uint8]
"""uint8 (H, W, 3), RGB, sRGB-like values in [0, 255]."""

TO_REPLACE = "to replace it: --overwrite, in Python overwrite=True"
"""End of the messages about outputs that are there."""

ImageSource = str | os.PathLike[str] | Image.Image | RgbImage
"""What the library takes as an image: a file, a PIL image, or a uint8 HWC RGB array."""

IMAGE_SUFFIXES = HEIF_SUFFIXES | {
    *(".avif", ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm"),
    *(".tif", ".tiff", ".webp"),
}
"""Lower-case suffixes of the files that `find_images` takes from a folder."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """A kind of file that can be written, and what it holds."""

    name: str
    """Pillow's name of it."""
    lossy: bool = False
    """It takes a quality."""
    grey: bool = True
    """One channel stays one channel."""
    alpha: bool = True
    """Else the colours go on white paper."""
    deep: bool = False
    """16 bits a channel."""
    metadata: bool = True
    """Colour profile, EXIF and XMP."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of Pillow's writer."""


_JPEG = Format(
    name="JPEG",
    lossy=True,
    alpha=False,
    options={"quality": 95, "subsampling": 0, "optimize": True},
)
_TIFF = Format(name="TIFF", deep=True, options={"compression": "tiff_adobe_deflate"})
_HEIF = Format(name="HEIF", lossy=True, options={"quality": 90, "chroma": 444})
FORMATS: Mapping[str, Format] = {
    ".avif": Format(name="AVIF", lossy=True, options={"quality": 90, "subsampling": "4:4:4"}),
    ".bmp": Format(name="BMP", alpha=False, metadata=False),
    ".gif": Format(name="GIF", alpha=False, metadata=False),
    ".heic": _HEIF,
    ".heif": _HEIF,
    ".jfif": _JPEG,
    ".jpeg": _JPEG,
    ".jpg": _JPEG,
    ".png": Format(name="PNG", deep=True),
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".webp": Format(name="WEBP", lossy=True, grey=False, options={"quality": 95, "method": 4}),
}
"""Lower-case suffix → what is written under it."""

OUTPUT_SUFFIXES = frozenset(FORMATS)
"""Lower-case suffixes that can be written."""


def read_rgb(path: str | os.PathLike[str]) -> RgbImage:
    """Read an image file as uint8 (H, W, 3) RGB, upright, on white where it is transparent.

    Raises:
        ImageError: The file does not exist, is empty, truncated, too large or not an image.
        MissingExtraError: A HEIC file, and pillow-heif is not installed.
    """
    with open_image(Path(path)) as image:
        image.load()
        pixels = planes(image)
    return flatten(pixels.rgb, pixels.alpha)


def load_image(source: ImageSource) -> RgbImage:
    """Bring a path, a PIL image or a uint8 HWC array to uint8 (H, W, 3) RGB, as `read_rgb` does.

    Raises:
        ImageError: A file that cannot be read, or an array of another shape or type.
    """
    if isinstance(source, Image.Image):
        check_size(source.size, "image", MAX_PIXELS)
        pixels = planes_in_memory(source)
        return flatten(pixels.rgb, pixels.alpha)
    if isinstance(source, np.ndarray):
        check_array(source)
        return source
    return read_rgb(source)


def check_array(array: NDArray[Any]) -> None:
    """Take uint8 (H, W, 3) with pixels.

    Raises:
        ImageError: Anything else.
    """
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        found = f"{array.dtype} {array.shape}"
        raise ImageError(f"expected a uint8 array (height, width, 3) in RGB, got {found}")
    if array.size == 0:
        raise ImageError(f"expected an image with pixels, got an array {array.shape}")


def write_rgb(
    path: str | os.PathLike[str],
    array: RgbImage,
    *,
    overwrite: bool = False,
    pnginfo: dict[str, str] | None = None,
) -> None:
    """Write uint8 (H, W, 3) RGB in the format of the suffix, whole or not at all.

    Args:
        path: One of `OUTPUT_SUFFIXES`; the folder must exist.
        array: Pixels.
        overwrite: Replace a file that is there.
        pnginfo: Text chunks, keyword → text; only PNG holds them, other formats leave them out.

    Raises:
        ImageError: The file exists and `overwrite` is false, or it cannot be written.
    """
    path = Path(path)
    check_output(path, overwrite=overwrite)
    options: dict[str, Any] = {}
    if path.suffix.lower() == ".png" and pnginfo:
        chunks = PngImagePlugin.PngInfo()
        for key, text in pnginfo.items():
            chunks.add_itxt(key, text)
        options["pnginfo"] = chunks
    write_whole(path, encode(path, Image.fromarray(array), options))


def encode(path: Path, image: Image.Image, options: Mapping[str, Any]) -> memoryview:
    """The bytes of a file, by Pillow's writer for the suffix of `path`.

    Args:
        path: Says the format, and names the file in errors.
        image: In a mode that the format has.
        options: Pillow's, over those of the format.

    Raises:
        ImageError: The format cannot hold the image.
    """
    kind = FORMATS[path.suffix.lower()]
    options = {**kind.options, **options}
    if kind.name == "AVIF" and image.mode == "L":
        options["subsampling"] = "4:0:0"  # else Pillow makes three channels of it
    buffer = BytesIO()
    try:
        image.save(buffer, kind.name, **options)
    except (OSError, ValueError, RuntimeError) as error:
        raise ImageError(f"{path}: cannot be written as {kind.name} ({error})") from error
    return buffer.getbuffer()


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Put `content` at `path` at once: a reader sees the old file or the new one, never half.

    Raises:
        ImageError: The folder cannot be written to, or the disk is full.
    """
    part = part_of(path)
    try:
        with part.open("xb") as file:
            file.write(content)
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise ImageError(f"{path}: cannot be written ({error.strerror or error})") from error


def part_of(path: Path) -> Path:
    """A new name beside a file, under which it is written; short, for long names have no room."""
    return path.with_name(f".panini-{uuid.uuid4().hex[:8]}.part{path.suffix}")


def check_output(path: Path, *, overwrite: bool) -> None:
    """Say now what writing would say after the work is done.

    Raises:
        ImageError: No such format, no such folder, or the file exists and may not be replaced.
        MissingExtraError: A HEIC file, and pillow-heif is not installed.
    """
    check_format(path)
    if not path.parent.is_dir():
        raise ImageError(f"{path}: the folder {path.parent} does not exist")
    if path.is_dir():
        raise ImageError(f"{path}: is a folder, expected a file")
    if path.exists() and not overwrite:
        raise ImageError(f"{path}: exists already; {TO_REPLACE}")


def check_format(path: Path) -> None:
    """Refuse a suffix that cannot be written, here or anywhere.

    Raises:
        ImageError: No such format, or Pillow was built without it.
        MissingExtraError: HEIC, and pillow-heif is not installed.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        known = " ".join(sorted(FORMATS))
        raise ImageError(f"{path}: cannot write '{path.suffix}' files; use one of {known}")
    if suffix in HEIF_SUFFIXES and not register_heif():
        raise MissingExtraError("heif", f"{path}: writing HEIC")
    Image.init()
    if FORMATS[suffix].name not in Image.SAVE:
        name = FORMATS[suffix].name
        raise ImageError(f"{path}: this Pillow has no {name}; pip install --upgrade pillow")


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
