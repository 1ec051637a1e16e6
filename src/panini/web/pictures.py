"""The pictures that the page shows: previews, faces with a check mark, faces side by side."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageEnhance

from panini.restored import RestoredFace

PREVIEW_SIDE = 2048
"""Longest side of a photo on the page, px; the download is whole."""

THUMBNAIL_SIDE = 192
"""Side of a face on the page, px."""

_GREEN = (15, 118, 110)
_BADGE = 44


def write_preview(image: Image.Image, path: Path) -> None:
    """Write what the page shows of a photo, as a JPEG of at most `PREVIEW_SIDE` px."""
    preview = on_white(image)
    preview.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE), Image.Resampling.LANCZOS)
    profile = image.info.get("icc_profile")
    preview.save(path, "JPEG", quality=95, subsampling=0, icc_profile=profile)


def on_white(image: Image.Image) -> Image.Image:
    """A copy in 8-bit RGB; transparent parts show white paper."""
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    # Always a copy: a preview is made smaller in place.
    return image.convert("RGB").copy()


def thumbnail(face: RestoredFace, *, chosen: bool) -> Image.Image:
    """A face with a check mark; one that is left as it was is pale and has an empty ring."""
    side = (THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    image = (face.restored if chosen else face.lq).convert("RGB")
    image = image.resize(side, Image.Resampling.LANCZOS)
    if not chosen:
        image = ImageEnhance.Color(image).enhance(0.25)
        image = Image.blend(image, Image.new("RGB", side, "white"), 0.35)
    # Drawn at four times its size, then made smaller: smooth edges.
    badge = Image.new("RGBA", (4 * _BADGE, 4 * _BADGE), (0, 0, 0, 0))
    draw = ImageDraw.Draw(badge)
    ring = (8, 8, 4 * _BADGE - 8, 4 * _BADGE - 8)
    if chosen:
        draw.ellipse(ring, fill=(*_GREEN, 255), outline=(255, 255, 255, 255), width=10)
        draw.line([(48, 90), (78, 120), (130, 60)], fill="white", width=18, joint="curve")
    else:
        draw.ellipse(ring, fill=(255, 255, 255, 200), outline=(110, 110, 110, 255), width=8)
    badge = badge.resize((_BADGE, _BADGE), Image.Resampling.LANCZOS)
    image.paste(badge, (THUMBNAIL_SIDE - _BADGE - 6, 6), badge)
    return image
