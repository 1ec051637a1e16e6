"""Pictures of an explanation, drawn with Pillow: heat map, masks, labelled sheets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from panini.editing.invention import Map
from panini.images import RgbImage

PHOTO_COLOUR, PRIOR_COLOUR = (70, 110, 160), (200, 60, 40)
"""What comes from the photo, and what from the face generator."""

# Map value → colour; between them it is interpolated.
_RAMP = (
    (0.15, (255, 235, 120)),
    (0.35, (255, 175, 30)),
    (0.6, (235, 50, 30)),
    (1.0, (95, 0, 90)),
)
# Map value → share of the photo that is covered: up to the first it stays grey.
_COVER_AT, _COVER = (0.12, 0.45, 1.0), (0.0, 0.7, 0.92)
_INK, _GREY, _PAPER = (20, 20, 20), (90, 90, 90), (255, 255, 255)
_BINS = 40


def heat_map(
    face: RgbImage,
    values: Map,
    *,
    ends: tuple[str, str] | None = ("0  held by the photo", "invented  1"),
) -> Image.Image:
    """A map in colour over the face in grey, with a legend at its foot.

    Args:
        face: uint8 (size, size, 3) RGB.
        values: (size, size) in [0, 1]; the invention map, as `ends` are.
        ends: What the legend says at 0 and at 1; None leaves it out.

    Returns:
        RGB, (size, size): grey at 0, over yellow and red to dark violet at 1.
    """
    grey = np.asarray(Image.fromarray(face).convert("L"), np.float32)[..., None]
    picture = _tint(grey.repeat(3, axis=2), values)
    image = Image.fromarray(np.rint(picture).astype(np.uint8))
    if ends is not None:
        _legend(image, ends)
    return image


def grey_map(values: Map, most: float = 1.0) -> Image.Image:
    """A map as grey levels: 0 is black, `most` and above white; (size, size), mode L."""
    return Image.fromarray(np.rint((values / most).clip(0, 1) * 255).astype(np.uint8))


def masks_plot(masks: Mapping[int, NDArray[np.float32]], *, side: int = 512) -> Image.Image:
    """Distribution of the masks at each level: left is the photo, right the face generator.

    Args:
        masks: Level (px) → weight of the generator for each channel, (C,) in (0, 1).
        side: Side of the picture, px.

    Returns:
        RGB, (side, side).
    """
    image = Image.new("RGB", (side, side), _PAPER)
    draw = ImageDraw.Draw(image)
    text = max(10, side // 32)
    left, right, foot = side // 16, side - side // 16, side - 3 * text
    if not masks:
        draw.text((left, side // 2), "this network has no masks", _GREY, _font(text))
        return image
    height = foot / len(masks)
    for row, (level, values) in enumerate(masks.items()):
        title = f"level {level} px: mean {values.mean():.2f} of {len(values)} channels"
        top = round(row * height)
        draw.text((left, top + text // 2), title, _INK, _font(text))
        box = (left, top + 2 * text, right, round(top + height) - text // 3)
        _histogram(draw, values, box)
    draw.text((left, foot + text // 3), "0 all photo", PHOTO_COLOUR, _font(text))
    draw.text((right, foot + text // 3), "all generator 1", PRIOR_COLOUR, _font(text), anchor="ra")
    return image


def close_up(face: Image.Image) -> Image.Image:
    """The middle of an aligned face, from the brows to the chin, where faces differ most."""
    width, height = face.size
    box = (0.2 * width, 0.25 * height, 0.8 * width, 0.85 * height)
    return face.crop(tuple(round(edge) for edge in box))  # pyright: ignore[reportArgumentType]


def balanced(count: int, most: int) -> int:
    """Columns of at most `most` that leave the last row as full as the others."""
    rows = -(-count // most)
    return -(-count // rows)


def sheet(
    cells: Sequence[tuple[str, Image.Image]], *, columns: int, side: int = 320
) -> Image.Image:
    """Pictures in rows, each with its label above it.

    Args:
        cells: (label, square picture of any size).
        columns: Pictures a row.
        side: Side of a picture on the sheet, px.

    Returns:
        RGB.
    """
    gap, head = 6, max(20, side // 14)
    columns = min(columns, len(cells))
    rows = -(-len(cells) // columns)
    size = (columns * (side + gap) - gap, rows * (side + head + gap) - gap)
    image = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(image)
    for index, (label, picture) in enumerate(cells):
        row, column = divmod(index, columns)
        x, y = column * (side + gap), row * (side + head + gap)
        draw.text(
            (x + 2, y + head // 2), label, _INK, _fitting(label, head - 6, side - 4), anchor="lm"
        )
        tile = picture.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
        image.paste(tile, (x, y + head))
    return image


def png(image: Image.Image) -> bytes:
    """A picture as the bytes of a PNG file."""
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _tint(grey: NDArray[np.float32], values: Map) -> NDArray[np.float32]:
    """Lay the ramp's colours over grey (H, W, 3), the thicker the higher the value."""
    stops = [stop for stop, _ in _RAMP]
    channels = [np.interp(values, stops, [colour[c] for _, colour in _RAMP]) for c in range(3)]
    colour = np.stack(channels, axis=2).astype(np.float32)
    # Some shading stays in the colour, so that the face stays a face.
    shaded = colour * (0.55 + 0.45 * grey / 255)
    cover = np.interp(values, _COVER_AT, _COVER)[..., None].astype(np.float32)
    return (grey + cover * (shaded - grey)).astype(np.float32)


def _legend(image: Image.Image, ends: tuple[str, str]) -> None:
    """Draw the scale over the foot of a heat map."""
    width, height = image.size
    text = max(9, width // 29)
    strip = round(2.9 * text)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, height - strip, width, height), _PAPER)
    left, right, top = text // 2, width - text // 2, height - strip + text // 3
    values = np.linspace(0, 1, right - left, dtype=np.float32)[None].repeat(text, axis=0)
    bar = _tint(np.full((*values.shape, 3), 200, np.float32), values)
    image.paste(Image.fromarray(np.rint(bar).astype(np.uint8)), (left, top))
    baseline = top + text + text // 4
    draw.text((left, baseline), ends[0], _INK, _font(text))
    draw.text((right, baseline), ends[1], _INK, _font(text), anchor="ra")


def _histogram(
    draw: ImageDraw.ImageDraw, values: NDArray[np.float32], box: tuple[int, int, int, int]
) -> None:
    """Bars of the values in [0, 1] and a line at their mean."""
    left, top, right, bottom = box
    counts, _ = np.histogram(values, bins=_BINS, range=(0.0, 1.0))
    # The root keeps the small bars in sight beside a tall one.
    heights = np.sqrt(counts / max(1, counts.max())) * (bottom - top)
    step = (right - left) / _BINS
    for index, bar in enumerate(heights):
        share = (index + 0.5) / _BINS
        colour = tuple(
            round(a + share * (b - a)) for a, b in zip(PHOTO_COLOUR, PRIOR_COLOUR, strict=True)
        )
        if bar > 0:
            x = left + index * step
            draw.rectangle((x, bottom - max(1, bar), x + step - 1, bottom), colour)
    draw.line((left, bottom, right, bottom), _GREY)
    mean = left + float(values.mean()) * (right - left)
    draw.line((mean, top, mean, bottom), _INK, width=2)


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)


def _fitting(text: str, size: int, width: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font at which a text is at most `width` px wide."""
    wide = _font(size).getlength(text)
    return _font(size if wide <= width else max(8, int(size * width / wide)))
