"""What is known of each face so far, in files: by them an evaluation goes on where it was stopped.

    OUT/plan.json                    what was asked, and of which systems
    OUT/faces/SYSTEM.jsonl           one line a face: its scores
    OUT/restored/SYSTEM/KEY.png      the face as it was scored

A face's line is written after its picture, so every line has one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
import threading
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cv2
import numpy as np

from panini.degradations import DegradationParams
from panini.errors import ConfigError, DataError, ImageError
from panini.evaluation.cases import Cases
from panini.evaluation.plan import Plan
from panini.evaluation.sizes import COMPARED_SIZE, DEGRADED_SIZE
from panini.evaluation.systems import System, identity_of
from panini.images import RgbImage, read_rgb, write_whole
from panini.metrics.judge import METRICS, Judge

FILES = ("report.json", "faces.csv", "summary.csv", "report.md", "sheet.png", "report.html")
"""What `output.write_report` puts beside them."""
_OVERWRITE = "add --overwrite"
_MAKE_ROOM = "make room there, and run the same command again: it goes on where it stopped"
_FOLDERS = ("faces", "restored", "features")
# Files of an evaluation are many, and read once or twice: fast is better than small.
_PNG = (cv2.IMWRITE_PNG_COMPRESSION, 1)
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
# Bytes of a file's name: most file systems take 255; the rest is for suffixes.
_LONGEST = 255 - len("..png.01234567.part")


@dataclass(frozen=True, kw_only=True)
class FaceRow:
    """One face as one system restored it."""

    key: str
    """Name of the face in its data set."""
    mark: str
    """Checksum of the files that it was restored from."""
    params: dict[str, float]
    """What was done to it, see `DegradationParams.to_dict`; {} of sr16 and of ready pairs."""
    theta: float
    """θ of Eq. 11; NaN where the system has none."""
    scores: dict[str, float]
    """Metric → value; NaN where it could not be measured."""
    rates: tuple[float, ...] = ()
    """θ under `THETA_RATES`; () where that was not asked."""
    gt_sharpness: float = math.nan
    """Sharpness of the truth."""

    @property
    def low_side(self) -> int | None:
        """Side that the face was reduced to on the way, px; None where it is not known."""
        if not self.params:
            return None
        return DegradationParams.from_dict(self.params).low_side(DEGRADED_SIZE)


class Results:
    """The folder of an evaluation.

    Args:
        plan: What is asked; the folder is made, or goes on, or starts afresh if it says so.
        systems: Of this call; others that were evaluated here before stay.
        cases: The faces.
        judge: The metrics with the weights at hand.

    Raises:
        ConfigError: The folder holds something else, or was made by another plan.
        DataError: A file of it is damaged.
    """

    def __init__(self, plan: Plan, systems: Sequence[System], cases: Cases, judge: Judge) -> None:
        self.out = plan.out
        self._remedy = plan.remedy
        self._guard = threading.Lock()
        wanted = {
            "data": plan.data.name,
            "task": plan.task,
            "lq": None if plan.lq is None else plan.lq.name,
            "seed": plan.seed,
            "degradations": plan.degradations,
            "size": plan.size,
            "metrics": list(plan.wanted),
            "networks": judge.names,
            "metrics' weights": judge.weights,
        }
        _prepare(plan)
        self._open(wanted, {system.name: identity_of(system) for system in systems})
        scored = {*judge.metrics, *(name for name in plan.per_face if name not in METRICS)}
        self.rows: dict[str, dict[str, FaceRow]] = {}
        """System → key → what is known. A face that has changed since, or whose picture is gone or
        cut short, is restored again; others than the plan's wait for a plan that has them."""
        for system in systems:
            # Of a face the last line is that of its picture.
            last = {
                row.key: row for row in _read_rows(self._lines(system.name), scored, self._remedy)
            }
            self.rows[system.name] = {
                key: row
                for key, row in last.items()
                if row.mark in (cases.marks.get(key), cases.earlier_marks.get(key))
                and _is_whole(self.picture(system.name, key))
            }

    def picture(self, system: str, key: str) -> Path:
        """Where a restored face is, or will be."""
        return self.out / "restored" / _file_name(system) / f"{_file_name(key)}.png"

    def read(self, system: str, key: str) -> RgbImage:
        """A restored face.

        Raises:
            DataError: Its file was damaged since.
        """
        path = self.picture(system, key)
        try:
            return read_rgb(path)
        except ImageError as error:
            raise DataError(
                f"{path}: is damaged or gone; delete it, and run the same command again: the face "
                "is restored anew"
            ) from error

    def features(self, name: str) -> Path:
        """Where the features of a whole set are, or will be."""
        return self.out / "features" / f"{_file_name(name)}.npz"

    def add(self, system: str, row: FaceRow, picture: RgbImage) -> None:
        """Write a face; any thread may.

        Raises:
            DataError: Its picture or its line cannot be written.
        """
        path = self.picture(system, row.key)
        try:
            write_whole(path, _png(picture, path))
        except ImageError as error:
            raise DataError(f"{error}; {_MAKE_ROOM}") from error
        line = json.dumps(finite(asdict(row)), allow_nan=False) + "\n"
        with self._guard:
            _append(self._lines(system), line.encode())
            self.rows[system][row.key] = row

    def _open(self, wanted: dict[str, Any], systems: Mapping[str, str]) -> None:
        """Make the folders, and see that what is there belongs to the plan."""
        path = self.out / "plan.json"
        known = _read_plan(path, self._remedy)
        elsewhere = self._remedy or f"choose another folder or {_OVERWRITE}"
        for name, value in wanted.items():
            found = known["plan"].get(name, value)
            if found != value:
                raise ConfigError(
                    f"{self.out}: was made with {name} {_told(found)}, now it is {_told(value)}; "
                    + elsewhere
                )
        for name, identity in systems.items():
            if known["systems"].get(name, identity) != identity:
                raise ConfigError(
                    f"{self.out}: holds results of another {name!r} (other weights or settings); "
                    + elsewhere
                )
        for folder in _FOLDERS:
            (self.out / folder).mkdir(exist_ok=True)
        for name in systems:
            self.picture(name, "x").parent.mkdir(exist_ok=True)
        merged = {"plan": wanted, "systems": known["systems"] | dict(systems)}
        write_whole(path, json.dumps(merged, indent=1).encode())

    def _lines(self, system: str) -> Path:
        return lines_file(self.out, system)


def check_places(plan: Plan) -> None:
    """Refuse to write where the faces lie.

    Raises:
        ConfigError: `plan.out` is the folder of the faces, or they are files that it keeps.
    """
    out = plan.out.resolve()
    kept = [out / name for name in (*_FOLDERS, *FILES)]
    for faces in (plan.data, plan.lq):
        if faces is None:
            continue
        place = faces.resolve()
        if place == out or any(place.is_relative_to(own) for own in kept):
            raise ConfigError(
                f"{plan.out}: the report's pictures would be taken for faces of {faces}, or "
                "replace them; choose another folder for the report"
            )


def lines_file(out: Path, system: str) -> Path:
    """Where an evaluation in `out` keeps the lines of a system."""
    return out / "faces" / f"{_file_name(system)}.jsonl"


def finite(value: Any) -> Any:
    """Containers for JSON, with None for numbers that are not finite."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _prepare(plan: Plan) -> None:
    """Make the folder of the results, or empty it of them if it is to start afresh."""
    out = plan.out
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out}: is a file, expected a folder for the report")
    ours = (out / "plan.json").is_file()
    there = [name for name in (*_FOLDERS, "report.json") if (out / name).exists()]
    if there and not ours:
        raise ConfigError(
            f"{out / there[0]}: is there already, but no plan.json that tells of which evaluation; "
            + (plan.remedy or "choose another folder")
        )
    if ours and plan.overwrite:
        for name in _FOLDERS:
            shutil.rmtree(out / name, ignore_errors=True)
        # A report of what is no longer here must not outlive a run that is stopped.
        for name in (*FILES, "plan.json"):
            (out / name).unlink(missing_ok=True)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{out}: cannot be made ({error.strerror})") from error


def _read_plan(path: Path, remedy: str | None) -> dict[str, Any]:
    if not path.exists():
        return {"plan": {}, "systems": {}}
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        # Folders that do not tell were made before there was a choice.
        asked = {"degradations": "floor", "size": COMPARED_SIZE} | dict(known["plan"])
        return {"plan": asked, "systems": dict(known["systems"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); {remedy or _OVERWRITE}") from error


def _read_rows(path: Path, scored: Set[str], remedy: str | None) -> list[FaceRow]:
    """Rows of a file; one that was cut off by a killed run is taken away."""
    if not path.exists():
        return []
    try:
        whole, newline, cut = path.read_text(encoding="utf-8").rpartition("\n")
        if cut:
            write_whole(path, (whole + newline).encode())
        return [_row(json.loads(line), scored) for line in whole.splitlines()]
    except (OSError, ValueError, LookupError, TypeError, ConfigError) as error:
        told = f"{path}: not lines of faces ({error}); {remedy or _OVERWRITE}"
        raise DataError(told) from error


def _row(data: Mapping[str, Any], scored: Set[str]) -> FaceRow:
    scores = dict(data["scores"])
    if lacking := sorted(scored - scores.keys()):
        raise ValueError(f"a face has no {lacking[0]}")
    if data["params"]:
        DegradationParams.from_dict(data["params"])  # refuses what it is not
    return FaceRow(
        key=data["key"],
        mark=data["mark"],
        params=data["params"],
        theta=_number(data["theta"]),
        scores={name: _number(value) for name, value in scores.items()},
        rates=tuple(map(_number, data["rates"])),
        gt_sharpness=_number(data["gt_sharpness"]),
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _file_name(name: str) -> str:
    """A name of a face or a system as one that no path can be made of, and no two names share."""
    quoted = quote(name, safe=" ()+,=@")
    if len(quoted) <= _LONGEST:
        return quoted
    # "!" is always quoted, so that no shorter name looks like this.
    end = "!" + hashlib.sha256(name.encode()).hexdigest()
    return quoted[: _LONGEST - len(end)] + end


def _append(path: Path, line: bytes) -> None:
    """Put a line at the end of a file, whole or not at all."""
    whole = path.stat().st_size if path.exists() else 0
    try:
        with path.open("ab") as file:
            file.write(line)
    except OSError as error:
        # Another thread may still write: its line must not go on from half of this one.
        with contextlib.suppress(OSError):
            os.truncate(path, whole)
        raise DataError(
            f"{path}: cannot be written ({error.strerror or error}); {_MAKE_ROOM}"
        ) from error


def _told(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _is_whole(path: Path) -> bool:
    """Whether a picture of ours is there to its end: a crash may leave half of what was written."""
    try:
        with path.open("rb") as file:
            file.seek(-len(_PNG_END), os.SEEK_END)
            return file.read() == _PNG_END
    except OSError:  # not there, or shorter than its end
        return False


def _png(picture: RgbImage, path: Path) -> bytes:
    done, content = cv2.imencode(".png", np.ascontiguousarray(picture[..., ::-1]), _PNG)
    if not done:
        raise ImageError(f"{path}: cannot be written as PNG")
    return content.tobytes()
