"""Files of 16 bits a channel, which Pillow reads and writes only in grey; and all of TIFF.

Pillow's TIFF writer loses the EXIF directory and the XMP, whatever the depth.
"""

from __future__ import annotations

import contextlib
import logging
import struct
import zlib
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from panini.decoding import BAD_EXIF, Planes, deep_planes, in_planes, orientation, quiet
from panini.metadata import Metadata, descriptive_exif, upright_exif

logger = logging.getLogger(__name__)

_LEVEL = 4  # Of zlib: above it files are hardly smaller, and slow.
_BAND = 1 << 22  # Bytes that are compressed at a time.


def is_deep(image: Image.Image) -> bool:
    """An opened file with 16 bits of each colour, which Pillow would decode to 8."""
    if image.mode not in ("RGB", "RGBA"):
        return False
    if image.format == "PNG":
        return any("16" in str(tile[3]) for tile in image.tile)  # pyright: ignore
    if image.format == "TIFF":
        tags = image.tag_v2  # pyright: ignore[reportAttributeAccessIssue]
        # Colours multiplied by their alpha (ExtraSamples 1) are Pillow's to divide.
        return (
            set(tags.get(258, ())) == {16}
            and set(tags.get(339, (1,))) == {1}
            and 1 not in np.atleast_1d(tags.get(338, 0))
        )
    return False


def read_deep(path: Path, image: Image.Image) -> Planes | None:
    """The pixels of a file for which `is_deep` holds, all 16 bits of them, upright.

    Pillow must have found it undamaged: OpenCV fills up what is missing.

    Args:
        path: The file.
        image: The same, opened; not loaded yet.

    Returns:
        None when they cannot be read; then Pillow's 8 bits must do.
    """
    size = image.size
    grey = image.format == "PNG" and "LA" in str(image.tile[0][3])  # pyright: ignore
    how = orientation(image)
    key = image.info.get("transparency")
    image.load()
    pixels = _join_planes(path, image) if in_planes(image) else _by_opencv(path, image, how)
    # Pillow gives the size of the upright photo, or of the one in the file: as it thinks best.
    if pixels is None or sorted(pixels.shape[:2]) != sorted(size):
        logger.warning("%s: its 16 bits cannot be read, only 8 of them are kept", path)
        return None
    colours = np.ascontiguousarray(pixels[..., : 1 if grey else 3])
    # The fourth channel of a TIFF need not be its alpha: a scanner's infrared is none.
    has_alpha = image.mode == "RGBA" and pixels.shape[2] == 4
    alpha = pixels[..., 3].copy() if has_alpha else None
    if alpha is None and key is not None:
        seen = np.any(colours != np.array(key, dtype=np.uint16), axis=2)
        alpha = np.where(seen, 65535, 0).astype(np.uint16)
    return deep_planes(colours, alpha, how)


def _by_opencv(path: Path, image: Image.Image, how: int) -> NDArray[np.uint16] | None:
    """The pixels (H, W, 3 or 4) as the file has them; None when OpenCV does not read it."""
    content = np.fromfile(path, dtype=np.uint8)
    if how != 1 and image.format == "TIFF":
        # OpenCV turns TIFFs by itself; which ones depends on its version.
        try:
            content = np.frombuffer(upright_exif(content.tobytes()), dtype=np.uint8)[6:]
        except ValueError:  # a BigTIFF
            return None
    with _silent_opencv():
        decoded = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
    if decoded is None or decoded.dtype != np.uint16:
        return None
    order = cv2.COLOR_BGRA2RGBA if decoded.shape[2] == 4 else cv2.COLOR_BGR2RGB
    return np.asarray(cv2.cvtColor(decoded, order), dtype=np.uint16)


@contextlib.contextmanager
def _silent_opencv() -> Iterator[None]:
    """Nothing on stderr about tags that OpenCV does not know.

    The level belongs to the whole process; `open_image` lets in one thread at a time.
    """
    log = cv2.utils.logging
    before = log.setLogLevel(log.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        log.setLogLevel(before)


def _join_planes(path: Path, image: Image.Image) -> NDArray[np.uint16] | None:
    """The pixels (H, W, 3 or 4) of a TIFF in planes, which OpenCV scrambles; None for tiles."""
    tags = image.tag_v2  # pyright: ignore[reportAttributeAccessIssue]
    strips = list(zip(tags.get(273, ()), tags.get(279, ()), strict=False))
    each = len(strips) // tags[277]
    whole = all(isinstance(number, int) and number >= 0 for strip in strips for number in strip)
    if not each or not whole:
        return None
    # A file's numbers are not to be trusted: strips are hardly longer than their pixels.
    pixels = 2 * image.width * image.height * tags[277]
    least = pixels if tags.get(259, 1) == 1 else 0
    if not least <= sum(length for _, length in strips) <= pixels + 4096 * len(strips):
        return None
    with path.open("rb") as file:
        planes = [
            _plane(file, tags, strips[each * band : each * (band + 1)])
            for band in range(len(image.getbands()))
        ]
    return np.stack(planes, axis=2)


def _plane(
    file: BinaryIO, tags: ImageFileDirectory_v2, strips: list[tuple[int, int]]
) -> NDArray[np.uint16]:
    """One colour (H, W), put into a TIFF of its own: of grey, Pillow reads all 16 bits.

    Args:
        file: The TIFF in planes.
        tags: Of that TIFF.
        strips: Offset and length of each strip of the colour.
    """
    content = []
    for offset, length in strips:
        file.seek(offset)
        content.append(file.read(length))
    alone = ImageFileDirectory_v2(prefix=tags.prefix)
    for tag in (256, 257, 259, 278, 317):  # size, compression, rows of a strip, predictor
        if tag in tags:
            alone[tag] = tags[tag]
    alone[258], alone[262], alone[277] = 16, 1, 1  # grey
    # Pillow counts 273 from its own end.
    alone[273] = tuple(accumulate(map(len, content[:-1]), initial=0))
    alone[279] = tuple(map(len, content))
    head = (b"MM\0*\0\0\0\x08" if tags.prefix == b"MM" else b"II*\0\x08\0\0\0") + alone.tobytes(8)
    with Image.open(BytesIO(b"".join([head, *content])), formats=["TIFF"]) as plane:
        return np.asarray(plane).astype(np.uint16, copy=False)


def encode_png(pixels: NDArray[np.uint16], metadata: Metadata) -> bytes:
    """A PNG of 16 bits.

    Args:
        pixels: (H, W, C): grey, grey and alpha, RGB, or RGB and alpha.
        metadata: To write with them.
    """
    height, width, channels = pixels.shape
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    parts = [b"\x89PNG\r\n\x1a\n"]
    parts += _chunk(b"IHDR", struct.pack(">2I5B", width, height, 16, colour, 0, 0, 0))
    if metadata.icc_profile:
        parts += _chunk(b"iCCP", b"ICC Profile\0\0", zlib.compress(metadata.icc_profile))
    if metadata.dpi:
        across, down = (round(dots / 0.0254) for dots in metadata.dpi)
        parts += _chunk(b"pHYs", struct.pack(">2IB", across, down, 1))
    if metadata.exif:
        parts += _chunk(b"eXIf", metadata.exif.removeprefix(b"Exif\0\0"))
    if metadata.xmp:
        parts += _chunk(b"iTXt", xmp_text(metadata.xmp))
    for compressed in _compress(_png_rows(pixels)):
        parts += _chunk(b"IDAT", compressed)
    parts += _chunk(b"IEND")
    return b"".join(parts)


def xmp_text(xmp: bytes) -> bytes:
    """The content of a PNG's iTXt chunk that holds an XMP packet."""
    return b"XML:com.adobe.xmp" + bytes(5) + xmp


def encode_tiff(pixels: NDArray[np.uint8] | NDArray[np.uint16], metadata: Metadata) -> bytes:
    """A TIFF, compressed without loss (deflate).

    Args:
        pixels: (H, W, C) of 8 or 16 bits: grey, grey and alpha, RGB, or RGB and alpha.
        metadata: To write with them.
    """
    strip = b"".join(_compress(_tiff_rows(pixels)))
    layout = _layout(pixels, len(strip))
    with quiet():
        try:
            directory = _directory(_described(metadata) | layout)
        except BAD_EXIF:
            # What Pillow reads of a damaged tag, it need not be able to write.
            logger.warning("the EXIF of a photo is damaged, and is left out")
            directory = _directory(_described(replace(metadata, exif=None)) | layout)
    return b"II*\0\x08\0\0\0" + directory + strip


def _layout(pixels: NDArray, length: int) -> dict[int, Any]:
    """The TIFF tags that say where the pixels are, and of which kind.

    Args:
        pixels: As `encode_tiff` has them.
        length: Of the one strip, bytes.
    """
    height, width, channels = pixels.shape
    tags: dict[int, Any] = {256: width, 257: height, 258: (8 * pixels.itemsize,) * channels}
    tags |= {259: 8, 262: 2 if channels > 2 else 1}  # deflate; RGB, or black is zero
    tags |= {273: 0, 278: height, 279: length}  # Pillow counts 273 from its own end
    tags |= {277: channels, 284: 1, 317: 2}  # interleaved, differences along the rows
    tags |= {339: (1,) * channels}  # unsigned
    if channels in (2, 4):
        tags[338] = 2  # alpha, not multiplied in
    return tags


def _described(metadata: Metadata) -> dict[int, Any]:
    """The TIFF tags that hold the metadata; raises `BAD_EXIF` for damaged EXIF."""
    tags: dict[int, Any] = {}
    if metadata.exif:
        exif = Image.Exif()
        exif.load(metadata.exif)
        tags.update(descriptive_exif(exif))
    if metadata.icc_profile:
        tags[34675] = metadata.icc_profile
    if metadata.xmp:
        tags[700] = metadata.xmp
    if metadata.dpi:
        tags[282], tags[283], tags[296] = (*metadata.dpi, 2)
    return tags


def _directory(tags: dict[int, Any]) -> bytes:
    """The directory of a little-endian TIFF, right after the head of the file."""
    directory = ImageFileDirectory_v2(prefix=b"II")
    for tag, value in tags.items():
        directory[tag] = value
    return directory.tobytes(8)


def _compress(blocks: Iterator[bytes]) -> Iterator[bytes]:
    squeeze = zlib.compressobj(_LEVEL)
    for block in blocks:
        if compressed := squeeze.compress(block):
            yield compressed
    yield squeeze.flush()


def _bands(pixels: NDArray) -> Iterator[NDArray]:
    """The rows, some at a time: a whole photo's differences would be one more copy of it."""
    step = max(1, _BAND // max(1, pixels[0].nbytes))
    for start in range(0, len(pixels), step):
        yield pixels[start : start + step]


def _png_rows(pixels: NDArray[np.uint16]) -> Iterator[bytes]:
    """Rows as PNG's filter Sub has them: each byte less that of the pixel before."""
    for band in _bands(pixels):
        raw = np.ascontiguousarray(band, dtype=">u2").view(np.uint8).reshape(len(band), -1)
        rows = np.empty((len(band), 1 + raw.shape[1]), dtype=np.uint8)
        rows[:, 0] = 1
        rows[:, 1:] = raw
        rows[:, 1 + 2 * pixels.shape[2] :] -= raw[:, : -2 * pixels.shape[2]]
        yield rows.tobytes()


def _tiff_rows(pixels: NDArray) -> Iterator[bytes]:
    """Rows as TIFF's predictor 2 has them: each value less that of the pixel before."""
    for band in _bands(pixels):
        rows = band.copy()
        rows[:, 1:] -= band[:, :-1]
        yield rows.astype(rows.dtype.newbyteorder("<"), copy=False).tobytes()


def _chunk(kind: bytes, *content: bytes) -> list[bytes]:
    body = b"".join(content)
    check = zlib.crc32(body, zlib.crc32(kind))
    return [struct.pack(">I", len(body)), kind, body, struct.pack(">I", check)]
