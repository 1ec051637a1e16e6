"""An explanation as files: PNGs, explain.json, and one HTML page that needs nothing else."""

from __future__ import annotations

import base64
import json
import math
import os
import shutil
import uuid
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from panini.editing.explanation import Explanation
from panini.editing.invention import FORMULA
from panini.editing.pictures import grey_map, heat_map, masks_plot, png, sheet
from panini.editing.variation_report import comparison_sheet
from panini.errors import ImageError
from panini.images import TO_REPLACE, write_whole
from panini.photos import Mark, Photo, WriteOptions, encode_photo

PAGE, DATA = "explain.html", "explain.json"

_RESULT = "restored.png"
_PICTURES = {
    "overview.png": "All at once",
    "input.png": "Input, as the network got it",
    _RESULT: "Result",
    "heatmap.png": "Where it was invented: grey is held by the photo, yellow to dark red is not",
    "invention.png": "The invention map alone: black 0, white 1",
    "spread.png": "Spread: how much equally plausible faces differ; white is 8 levels of 255",
    "unsupported.png": "Unsupported: how far the result is from what the input holds; "
    "white is 32 levels of 255",
    "y_ife.png": "From the photo alone (Eq. 12): the generator's features are set to 0",
    "y_gpb.png": "From the face generator alone (Eq. 13): the photo's features are set to 0",
    "masks.png": "Masks: how the channels of each level are shared out",
    "variations.png": "Equally plausible faces for the same input",
}
_WIDE = {"overview.png", "variations.png"}
_SHEETS = {*_WIDE, "masks.png"}
FILES = (*_PICTURES, DATA, PAGE)
"""What `write_explanation` writes."""

_WHITE_SPREAD, _WHITE_UNSUPPORTED = 8.0, 32.0  # Levels that are white in their pictures.
_PAGE_SIDE = 512  # Of the pictures in the page, px.

_HONEST = (
    "A restored face is a likely face, not the true one. What is coloured in the map was drawn by "
    "a face generator and tells nothing about the person. What is grey agrees with the input; it "
    "is still no proof of who is shown."
)

_STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:68em;margin:2em auto;padding:0 1em;color:#222}"
    "figure{display:inline-block;margin:0 1em 1.5em 0;vertical-align:top;max-width:32em}"
    ".wide{max-width:100%}img{max-width:100%}figcaption{color:#555}"
    "table{border-collapse:collapse;margin:1em 0}"
    "td,th{border:1px solid #ccc;padding:.2em .7em;text-align:right}.honest{background:#fff4d6;"
    "padding:.7em 1em}"
)


def check_folder(folder: Path, *, overwrite: bool) -> None:
    """Say now what `write_explanation` would say after the work is done.

    Raises:
        ImageError: It is a file, or holds an explanation that may not be replaced.
    """
    if folder.exists() and not folder.is_dir():
        raise ImageError(f"{folder}: is a file, expected a folder")
    there = [name for name in FILES if (folder / name).exists()]
    if there and not overwrite:
        raise ImageError(f"{folder / there[0]}: exists already; {TO_REPLACE}")


def write_explanation(
    explanation: Explanation,
    folder: Path,
    *,
    about: Mapping[str, Any],
    overwrite: bool = False,
) -> list[Path]:
    """Write `FILES` into a folder.

    All files are made apart first: where the folder was not there, it comes to be as a whole;
    where it was, each file is replaced as a whole.

    Args:
        explanation: What to tell.
        folder: Is made with its parents.
        about: What goes on top of the page and of the JSON: photo, face, model.
        overwrite: Replace an explanation that is there.

    Returns:
        The files.

    Raises:
        ImageError: The files exist and `overwrite` is false, or cannot be written.
    """
    check_folder(folder, overwrite=overwrite)
    pictures = _pictures(explanation)
    facts = {**{key: _readable(value) for key, value in about.items()}, **to_dict(explanation)}
    contents = {name: png(image) for name, image in pictures.items()}
    contents[_RESULT] = _marked(explanation)
    contents[DATA] = json.dumps(facts, indent=1, allow_nan=False, ensure_ascii=False).encode()
    contents[PAGE] = _page(facts, pictures, contents).encode()
    there = folder.exists()
    # A folder that is there may be on another disk than the one it lies in, or have no name (".").
    part = (folder if there else folder.parent) / f".panini-{uuid.uuid4().hex[:8]}.part"
    try:
        part.mkdir(parents=True)
        for name, content in contents.items():
            write_whole(part / name, content)
        if there:
            for name in contents:
                (part / name).replace(folder / name)
        else:
            part.replace(folder)
    except OSError as error:
        raise ImageError(f"{folder}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return [folder / name for name in FILES]


def _readable(value: Any) -> Any:
    """A name that is not UTF-8 with its odd bytes escaped; anything else as it is."""
    return os.fsencode(value).decode(errors="backslashreplace") if isinstance(value, str) else value


def _marked(explanation: Explanation) -> bytes:
    """The drawn face as a PNG that says so."""
    face = explanation.face
    mark = Mark(model=face.model, thetas=(face.theta,))
    photo = Photo(rgb=np.asarray(face.restored.convert("RGB")))
    return bytes(encode_photo(_RESULT, photo, WriteOptions(mark=mark)))


def to_dict(explanation: Explanation) -> dict[str, Any]:
    """The numbers of an explanation, for JSON."""
    face, invention, varied = explanation.face, explanation.invention, explanation.variations
    bias = explanation.prior_bias
    return {
        "box": [round(float(edge), 1) for edge in face.box],
        "theta": _rounded(explanation.theta),
        "theta_fixed": face.theta_fixed,
        "prior_bias": bias if isinstance(bias, int | float) else {str(k): bias[k] for k in bias},
        "seed": explanation.seed,
        "own_resolution_px": varied.own_side,
        "masks": {str(level): _distribution(mask) for level, mask in explanation.masks.items()},
        "invention": {
            "mean": _rounded(invention.mean),
            "spread_levels": _rounded(invention.mean_of(invention.spread)),
            "unsupported_levels": _rounded(invention.mean_of(invention.unsupported)),
            "added_levels": _rounded(invention.mean_of(invention.added)),
            "contradiction_levels": _rounded(invention.mean_of(invention.contradiction)),
            "formula": FORMULA,
        },
        "result_agreement_db": _rounded(varied.result_agreement),
        "variations": [
            {"agreement_db": _rounded(agreement), "share": _rounded(share)}
            for agreement, share in zip(varied.agreement, varied.shares, strict=True)
        ],
    }


def _distribution(mask: NDArray[np.float32]) -> dict[str, Any]:
    counts, _ = np.histogram(mask, bins=20, range=(0.0, 1.0))
    return {
        "channels": len(mask),
        "mean": _rounded(float(mask.mean())),
        "quantiles_5_25_50_75_95": [
            _rounded(float(q)) for q in np.quantile(mask, (0.05, 0.25, 0.5, 0.75, 0.95))
        ],
        "histogram_20_bins": counts.tolist(),
    }


def _rounded(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None


def _pictures(explanation: Explanation) -> dict[str, Image.Image]:
    """Every picture of `_PICTURES`, by its file name, in that order."""
    face, invention = explanation.face, explanation.invention
    result = face.restored.convert("RGB")
    images = {
        "input.png": face.lq,
        _RESULT: face.restored,
        "heatmap.png": heat_map(np.asarray(result), invention.map),
        "invention.png": grey_map(invention.map),
        "spread.png": grey_map(invention.spread, _WHITE_SPREAD),
        "unsupported.png": grey_map(invention.unsupported, _WHITE_UNSUPPORTED),
        "y_ife.png": explanation.y_ife,
        "y_gpb.png": explanation.y_gpb,
        "masks.png": masks_plot(explanation.masks, side=640),
        "variations.png": comparison_sheet([face], [explanation.variations]),
    }
    images["overview.png"] = overview(explanation, images["heatmap.png"], images["masks.png"])
    return {name: images[name] for name in _PICTURES}


def overview(explanation: Explanation, heat: Image.Image, masks: Image.Image) -> Image.Image:
    """Input, result, map; photo alone, generator alone, masks: one sheet, RGB."""
    face = explanation.face
    cells = [
        (f"input, own resolution {explanation.variations.own_side} px", face.lq),
        (f"result, theta {explanation.theta:.2f}", face.restored),
        (f"invented: mean {explanation.invention.mean:.2f}", heat),
        ("from the photo alone (Eq. 12)", explanation.y_ife),
        ("from the generator alone (Eq. 13)", explanation.y_gpb),
        ("masks: who draws the channels", masks),
    ]
    return sheet(cells, columns=3, side=400)


def _page(
    facts: Mapping[str, Any], pictures: Mapping[str, Image.Image], files: Mapping[str, bytes]
) -> str:
    """One HTML page: pictures as data URIs, texts escaped, nothing from elsewhere."""
    title = escape(f"How this face was made: {facts.get('photo', 'a face')}")
    figures = "\n".join(
        f"<figure{' class=wide' * (name in _WIDE)}>"
        f'<img src="{_data_uri(image, files[name], name)}" alt="{escape(_PICTURES[name])}">'
        f"<figcaption>{escape(_PICTURES[name])}</figcaption></figure>"
        for name, image in pictures.items()
    )
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style></head><body>\n"
        f'<h1>{title}</h1>\n<p class="honest">{escape(_HONEST)}</p>\n'
        f"{_facts_table(facts)}\n{figures}\n{_masks_table(facts)}\n{_variations_table(facts)}\n"
        f"<p>Invention map: {escape(FORMULA)}.</p>\n</body></html>\n"
    )


def _data_uri(image: Image.Image, file: bytes, name: str) -> str:
    """A picture for the page: sheets as they are, faces and maps small."""
    if name not in _SHEETS and image.width > _PAGE_SIDE:
        file = png(image.resize((_PAGE_SIDE, _PAGE_SIDE), Image.Resampling.LANCZOS))
    return "data:image/png;base64," + base64.b64encode(file).decode()


def _facts_table(facts: Mapping[str, Any]) -> str:
    invention = facts["invention"]
    rows = {
        **{key: facts[key] for key in ("photo", "face", "model") if key in facts},
        "θ (Eq. 11), the generator's share": (
            f"{facts['theta']}, the same for every face" if facts["theta_fixed"] else facts["theta"]
        ),
        "prior bias": facts["prior_bias"],
        "seed": facts["seed"],
        "the input's own resolution, px": facts["own_resolution_px"],
        "mean invention": invention["mean"],
        "mean spread, levels": invention["spread_levels"],
        "mean unsupported, levels": invention["unsupported_levels"],
    }
    return _table(None, [list(row) for row in rows.items()])


def _masks_table(facts: Mapping[str, Any]) -> str:
    head = ["level, px", "channels", "mean", "5 %", "25 %", "50 %", "75 %", "95 %"]
    rows = [
        [level, part["channels"], part["mean"], *part["quantiles_5_25_50_75_95"]]
        for level, part in facts["masks"].items()
    ]
    return "<h2>Masks: the generator's weight</h2>" + _table(head, rows)


def _variations_table(facts: Mapping[str, Any]) -> str:
    head = ["face", "agreement with the input, dB", "share of the codes drawn anew"]
    rows: list[list[Any]] = [["result", facts["result_agreement_db"], 0]]
    for number, part in enumerate(facts["variations"], start=1):
        rows.append([f"variation {number}", part["agreement_db"], part["share"]])
    return "<h2>Variations</h2>" + _table(head, rows)


def _table(head: list[str] | None, rows: list[list[Any]]) -> str:
    lines = [] if head is None else [_row("th", head)]
    return "<table>" + "".join(lines + [_row("td", row) for row in rows]) + "</table>"


def _row(tag: str, cells: list[Any]) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"
