"""Photos with all that their files hold: depth, alpha, colour profile, EXIF and XMP.

What a kind of file cannot hold is left out on writing, and never a reason to fail:

| | 16 bits | alpha | one grey channel | profile, EXIF, XMP |
|---|---|---|---|---|
| PNG | yes | yes | yes | yes |
| TIFF | yes | yes | without alpha | yes |
| JPEG | | white paper | yes | yes |
| WebP | | yes | three equal channels | yes |
| HEIC, AVIF | | yes | without alpha | yes |
| BMP; GIF in 256 colours | | white paper | yes | |

Read as 8 bits, or as RGB: HEIC and AVIF of 10 and 12 bits, CMYK of any depth (through its
profile), Lab, YCbCr and palettes, and TIFFs in tiles with separate colour planes. Of files with
several images the first is read. Not carried over: thumbnails, IPTC-IIM, PNG text, makers' gain
maps, and what JPEG's XMP keeps beyond 64 kB.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from panini.decoding import (
    Planes,
    check_size,
    flatten,
    narrow,
    open_image,
    planes,
    planes_in_memory,
    quiet,
)
from panini.deep_files import encode_png, encode_tiff, is_deep, read_deep, xmp_text
from panini.errors import ConfigError, ImageError
from panini.images import (
    FORMATS,
    IMAGE_SUFFIXES,
    MAX_PIXELS,
    Format,
    ImageSource,
    RgbImage,
    check_array,
    check_format,
    check_output,
    encode,
    write_whole,
)
from panini.metadata import Mark, Metadata, marked_xmp, read_metadata, sized_exif

__all__ = [
    "Mark",
    "Metadata",
    "Photo",
    "WriteOptions",
    "encode_photo",
    "enlarge",
    "load_photo",
    "repaint",
    "suffix_for",
    "write_photo",
]

logger = logging.getLogger(__name__)

_SUFFIX_OF_KIND = {"JPEG": ".jpg", "MPO": ".jpg", "HEIF": ".heic"}
_ROWS = 256  # Of a photo whose 16 bits are blended at a time.
_LOSSLESS = ".png"  # For photos of a kind that is not written, or would lose their colours.


@dataclass(frozen=True, kw_only=True, eq=False)
class Photo:
    """A photo in memory, upright."""

    rgb: RgbImage
    """uint8 (H, W, 3), possibly read-only: what the detector and the network see."""
    deep: NDArray[np.uint16] | None = None
    """(H, W, 3) where the file had more than 8 bits, else None; `rgb` is this, rounded."""
    alpha: NDArray[np.uint8] | NDArray[np.uint16] | None = None
    """(H, W), else None; the colours are not multiplied by it."""
    grey: bool = False
    """The file has one channel; here it is there three times."""
    metadata: Metadata = field(default_factory=Metadata)
    """Profile, EXIF and XMP; the orientation is applied and reset."""
    suffix: str = ""
    """Lower-case suffix of the file it came from (".jpg"), "" when from memory."""
    lossless: bool = False
    """It came from a WebP that keeps every pixel, and is written as one where no quality is set."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, px."""
        return self.rgb.shape[1], self.rgb.shape[0]

    def to_image(self) -> Image.Image:
        """The photo with 8 bits, in mode L, LA, RGB or RGBA, with its colour profile."""
        image = _as_image(_channels(self, grey=self.grey, alpha=True, deep=False))
        if profile := _fitting_profile(self.metadata, grey=self.grey):
            image.info["icc_profile"] = profile
        return image


@dataclass(frozen=True, kw_only=True)
class WriteOptions:
    """How a photo is written."""

    quality: int | None = None
    """1 to 100, for JPEG, WebP, HEIC and AVIF; None is 95, 90 for the last two, and no
    loss for a WebP without."""
    mark: Mark | None = None
    """What an algorithm did to the photo; None says nothing."""
    overwrite: bool = False
    """Replace a file that is there."""


def load_photo(source: ImageSource, *, max_pixels: int = MAX_PIXELS) -> Photo:
    """Read a photo with all that its file holds.

    Args:
        source: Path, PIL image, or uint8 (H, W, 3) RGB array.
        max_pixels: Larger photos are refused before they are decoded; at most `MAX_PIXELS`.

    Raises:
        ImageError: A file that cannot be read or is too large, an array of another kind, or
            something else.
        MissingExtraError: A HEIC file, and pillow-heif is not installed.
    """
    if isinstance(source, np.ndarray):
        check_array(source)
        check_size((source.shape[1], source.shape[0]), "image", max_pixels)
        return Photo(rgb=source.copy())  # the caller may fill his array anew
    if isinstance(source, Image.Image):
        check_size(source.size, "image", max_pixels)
        pixels = planes_in_memory(source)
        with quiet():
            return _photo(pixels, source, "")
    if not isinstance(source, str | os.PathLike):
        expected = "a path, a PIL image, or a uint8 array (height, width, 3) in RGB"
        hint = "; open a file's bytes with PIL.Image.open(io.BytesIO(...))"
        hint = hint if isinstance(source, bytes) else ""
        raise ImageError(f"image: expected {expected}, got {type(source).__name__}{hint}")
    path = Path(source)
    with open_image(path, max_pixels) as image:
        _tell_of_pages(path, image)
        deep = read_deep(path, image) if is_deep(image) else None
        image.load()
        photo = _photo(deep or planes(image), image, _suffix(path, image))
    return replace(photo, lossless=_is_lossless_webp(path))


def _tell_of_pages(path: Path, image: Image.Image) -> None:
    # An MPO holds a thumbnail or a second eye's view beside the photo: nothing is lost with them.
    pages = getattr(image, "n_frames", 1)
    if pages > 1 and image.format in ("TIFF", "GIF", "WEBP", "PNG"):
        logger.warning("%s: holds %d images, of which only the first is read", path, pages)


def write_photo(path: str | os.PathLike[str], photo: Photo, options: WriteOptions) -> None:
    """Write a photo with all that the format of the suffix can hold, whole or not at all.

    Raises:
        ImageError: The file exists and may not be replaced, or it cannot be written.
        ConfigError: A bad quality.
        MissingExtraError: A HEIC file, and pillow-heif is not installed.
    """
    path = Path(path)
    check_output(path, overwrite=options.overwrite)
    write_whole(path, encode_photo(path, photo, options))


def encode_photo(
    path: str | os.PathLike[str], photo: Photo, options: WriteOptions
) -> bytes | memoryview:
    """The bytes that `write_photo` would write to `path`, of which only the name counts.

    Raises:
        ImageError: The format is unknown, or cannot hold a photo of this size.
        ConfigError: A bad quality.
        MissingExtraError: HEIC, and pillow-heif is not installed.
    """
    path = Path(path)
    check_format(path)
    if options.quality is not None and not 1 <= options.quality <= 100:
        raise ConfigError(f"quality: expected 1 to 100, got {options.quality}")
    kind = FORMATS[path.suffix.lower()]
    grey = photo.grey and kind.grey
    metadata = _metadata_for(kind, photo, options.mark, grey=grey)
    pixels = _channels(photo, grey=grey, alpha=kind.alpha, deep=kind.deep)
    if kind.name == "PNG" and pixels.dtype == np.uint16:
        return encode_png(pixels, metadata)
    if kind.name == "TIFF":
        # Programs do not know grey with alpha in a TIFF.
        return encode_tiff(pixels[..., [0, 0, 0, 1]] if pixels.shape[2] == 2 else pixels, metadata)
    written = _options_for(kind, metadata, options)
    if kind.name == "WEBP" and photo.lossless and options.quality is None:
        written |= {"lossless": True, "exact": True}  # also where nothing is seen
    return encode(path, _as_image(pixels), written)


def suffix_for(source: Photo | str | os.PathLike[str], wanted: str | None = None) -> str:
    """Under which suffix a photo is written.

    Args:
        source: The photo, or the path of its file.
        wanted: What was asked for: "webp", ".JPG"; None follows the source.

    Returns:
        One of `OUTPUT_SUFFIXES`. What is only read goes out as PNG, and so do GIFs, for a photo
        has more than 256 colours.

    Raises:
        ImageError: No such format.
        MissingExtraError: HEIC is wanted, and pillow-heif is not installed.
    """
    if wanted is not None:
        suffix = f".{wanted.lower().removeprefix('.')}"
        check_format(Path(f"format {suffix[1:]}{suffix}"))
        return suffix
    suffix = source.suffix if isinstance(source, Photo) else Path(source).suffix.lower()
    return suffix if suffix in FORMATS and suffix != ".gif" else _LOSSLESS


def variation_files(target: Path, count: int) -> list[Path]:
    """Files of the variations of a photo `target`, then of the sheet that compares them."""
    named = [target.with_name(f"{target.stem}_v{k + 1}{target.suffix}") for k in range(count)]
    return [*named, target.with_name(f"{target.stem}_variations.png")]


def enlarge(photo: Photo, factor: int) -> Photo:
    """The photo `factor` times as wide and as high (Lanczos), in all its depth and with alpha.

    Raises:
        ImageError: It would be too large.
    """
    if factor == 1:
        return photo
    check_enlarged(photo, factor)
    size = (photo.size[0] * factor, photo.size[1] * factor)
    if photo.alpha is not None:
        return _enlarge_cut_out(photo, photo.alpha, size)
    if photo.deep is None:
        larger = Image.fromarray(photo.rgb).resize(size, Image.Resampling.LANCZOS)
        return replace(photo, rgb=np.asarray(larger))
    deep = _by_channel(photo, photo.deep, lambda channel: _lanczos(channel, size))
    return replace(photo, rgb=narrow(deep), deep=deep)


def _enlarge_cut_out(photo: Photo, alpha: NDArray[Any], size: tuple[int, int]) -> Photo:
    """Colours weighted by their alpha: those that it hides do not bleed into the others.

    Where nothing is seen, the hidden colours stay.
    """
    weight = alpha.astype(np.float32) / np.iinfo(alpha.dtype).max
    larger_alpha = _lanczos(alpha, size)
    seen = larger_alpha > 0
    share = np.where(seen, _resized(weight, size), np.float32(1))

    def enlarged(channel: NDArray[Any]) -> NDArray[Any]:
        values = _lanczos(channel, size)
        visible = _resized(channel * weight, size) / share
        np.copyto(values, _rounded(visible, values.dtype), where=seen)
        return values

    if photo.deep is None:
        return replace(photo, rgb=_by_channel(photo, photo.rgb, enlarged), alpha=larger_alpha)
    deep = _by_channel(photo, photo.deep, enlarged)
    return replace(photo, rgb=narrow(deep), deep=deep, alpha=larger_alpha)


def _by_channel(
    photo: Photo, pixels: NDArray[Any], change: Callable[[NDArray[Any]], NDArray[Any]]
) -> NDArray[Any]:
    """Each channel (H, W) of (H, W, 3) changed; a grey photo's only once."""
    channels = [change(pixels[..., c]) for c in range(1 if photo.grey else 3)]
    return np.stack(channels * 3 if photo.grey else channels, axis=2)


def check_enlarged(photo: Photo, factor: int) -> None:
    """Refuse to enlarge what would be too large.

    Raises:
        ImageError: It would.
    """
    width, height = (side * factor for side in photo.size)
    if width * height > MAX_PIXELS:
        most = MAX_PIXELS / factor**2 / 1e6
        raise ImageError(
            f"upscale {factor}: {width}x{height} px is more than {MAX_PIXELS / 1e6:.0f} megapixels"
            f"; it takes photos of up to {most:.0f}"
        )


def repaint(photo: Photo, canvas: RgbImage, coverage: NDArray[np.float32] | None) -> Photo:
    """The photo with what was drawn into it.

    Args:
        photo: As it was.
        canvas: uint8 (H, W, 3), its `rgb` with the drawing.
        coverage: (H, W) in [0, 1]: where the canvas is the photo's own (0) or drawn (1). Needed
            where the photo has 16 bits: the drawing has 8, and the photo's finer levels fade out
            under it.
    """
    if photo.deep is None or coverage is None:
        return replace(photo, rgb=canvas, deep=None)
    deep = photo.deep.copy()
    for start in range(0, len(deep), _ROWS):
        rows = slice(start, start + _ROWS)
        weight = coverage[rows, :, None]
        if not weight.any():
            continue
        finer = photo.deep[rows] - photo.rgb[rows] * np.float32(257)
        blended = canvas[rows] * np.float32(257) + (1 - weight) * finer
        blended = np.clip(np.rint(blended), 0, 65535).astype(np.uint16)
        np.copyto(deep[rows], blended, where=weight > 0)
    return replace(photo, rgb=canvas, deep=deep)


def _photo(pixels: Planes, image: Image.Image, suffix: str) -> Photo:
    metadata = read_metadata(image)
    return Photo(
        rgb=pixels.rgb,
        deep=pixels.deep,
        alpha=pixels.alpha,
        grey=pixels.grey,
        metadata=metadata,
        suffix=suffix,
    )


def _suffix(path: Path, image: Image.Image) -> str:
    """Of the name; of the content where the name has none."""
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return suffix
    kind = image.format or ""
    return _SUFFIX_OF_KIND.get(kind, f".{kind.lower()}")


def _is_lossless_webp(path: Path) -> bool:
    """By the first chunk that holds pixels; Pillow does not tell."""
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] != b"RIFF" or head[8:] != b"WEBP":
            return False
        while len(chunk := file.read(8)) == 8 and chunk[:4] not in (b"VP8 ", b"VP8L", b"ANMF"):
            size = int.from_bytes(chunk[4:], "little")
            file.seek(size + size % 2, os.SEEK_CUR)
    return chunk[:4] == b"VP8L"


def _channels(photo: Photo, *, grey: bool, alpha: bool, deep: bool) -> NDArray[Any]:
    """(H, W, 1 to 4) uint8 or uint16, as the format has them."""
    colours = photo.deep if deep and photo.deep is not None else photo.rgb
    if photo.alpha is not None and not alpha:
        colours = flatten(photo.rgb, photo.alpha)
    if grey:
        colours = colours[..., :1]
    if photo.alpha is None or not alpha:
        return colours
    opacity: NDArray[Any] = photo.alpha
    if opacity.dtype == np.uint16 and colours.dtype == np.uint8:
        opacity = narrow(opacity)
    elif opacity.dtype == np.uint8 and colours.dtype == np.uint16:
        opacity = opacity.astype(np.uint16) * 257
    return np.concatenate([colours, opacity[..., None]], axis=2)


def _as_image(pixels: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def _lanczos(channel: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """One channel of 8 or 16 bits, resized at its depth."""
    return _rounded(_resized(channel, size), channel.dtype)


def _resized(channel: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float32]:
    """One channel, resized and not rounded: it swings a little beyond its range at edges."""
    image = Image.fromarray(np.ascontiguousarray(channel, dtype=np.float32))
    return np.asarray(image.resize(size, Image.Resampling.LANCZOS))


def _rounded(values: NDArray[np.floating[Any]], dtype: np.dtype[Any]) -> NDArray[Any]:
    return np.clip(np.rint(values), 0, np.iinfo(dtype).max).astype(dtype)


def _fitting_profile(metadata: Metadata, *, grey: bool) -> bytes | None:
    """The profile, unless it is for grey pixels and these are not."""
    profile = metadata.icc_profile
    return None if profile and profile[16:20] == b"GRAY" and not grey else profile


def _metadata_for(kind: Format, photo: Photo, mark: Mark | None, *, grey: bool) -> Metadata:
    """What the format can hold of the photo's metadata, and the mark."""
    if not kind.metadata:
        return Metadata(dpi=photo.metadata.dpi)
    given = photo.metadata
    # The size that the EXIF tells is of the photo before it was turned or enlarged.
    exif = sized_exif(given.exif, photo.size) if given.exif else None
    metadata = replace(given, icc_profile=_fitting_profile(given, grey=grey), exif=exif)
    if mark is not None:
        metadata = replace(metadata, xmp=marked_xmp(metadata.xmp, mark))
    if kind.name != "JPEG":
        return metadata
    # A segment of a JPEG ends at 64 kB, its name included.
    if metadata.exif and len(metadata.exif) > 65_533:
        logger.warning("the EXIF is too long for a JPEG, and is left out")
        metadata = replace(metadata, exif=None)
    if metadata.xmp and len(metadata.xmp) > 65_500:
        logger.warning("the XMP is too long for a JPEG, and is left out")
        metadata = replace(metadata, xmp=None if mark is None else marked_xmp(None, mark))
    return metadata


def _options_for(kind: Format, metadata: Metadata, options: WriteOptions) -> dict[str, Any]:
    """Pillow's, for what is to be written beside the pixels."""
    carried: dict[str, Any] = {"icc_profile": metadata.icc_profile, "exif": metadata.exif}
    if kind.name == "PNG" and metadata.xmp:
        carried["pnginfo"] = PngImagePlugin.PngInfo()
        carried["pnginfo"].add(b"iTXt", xmp_text(metadata.xmp))
    elif kind.name == "GIF" and options.mark is not None:
        carried["comment"] = options.mark.note.encode("ascii", "replace")
    else:
        carried["xmp"] = metadata.xmp
    if kind.name in ("JPEG", "PNG", "BMP"):
        carried["dpi"] = metadata.dpi
    if kind.lossy:
        carried["quality"] = options.quality
    return {key: value for key, value in carried.items() if value is not None}
