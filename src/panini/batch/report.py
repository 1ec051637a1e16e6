"""`report.jsonl`: what was done to each photo of a folder, and so what is still to do.

Each line is one JSON object about one photo:

    input, output       the photo as it was named, and the result below the folder of the report
    state               done; copied (no face); skipped (no face, nothing written); failed; begun:
                        `files` beside the result follow, which a later run knows as ours by it
    faces               box (left, top, right, bottom; px of the photo), the model that drew it
                        and θ (null without masks) of each; theta_fixed: θ is the same for all
                        faces of that model
    seconds             decode, detect, restore, encode
    error               the line that was printed, or null
    input_bytes, input_mtime_ns, output_bytes, settings
                        by which a later run sees that nothing has changed

A photo done again gets a new line; its last one that is not `failed` or `begun` tells of the
result. A name that is not UTF-8 holds escaped surrogates, as Python's `os.fsdecode` gives them.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Literal, NamedTuple

from panini.batch.plan import FACES, REPORT, Job, make_folder
from panini.errors import ImageError
from panini.images import OUTPUT_SUFFIXES

if TYPE_CHECKING:
    from panini.restored import RestoredFace

State = Literal["done", "copied", "skipped", "failed"]
_BEGUN = "begun"

_SUFFIXES = "|".join(re.escape(suffix) for suffix in sorted(OUTPUT_SUFFIXES))
PART = re.compile(rf"\.panini-[0-9a-f]{{8}}\.part(?:{_SUFFIXES})", re.IGNORECASE)
"""Names of results that are not whole yet, of `images.part_of`; a killed run leaves them behind."""


class Stamp(NamedTuple):
    """What a file looks like from outside: by this a changed one is known."""

    size: int
    """Bytes."""
    mtime_ns: int
    """Time of the last change, ns."""

    @classmethod
    def of(cls, path: Path) -> Stamp:
        """Of a file that is there."""
        stat = path.stat()
        return cls(stat.st_size, stat.st_mtime_ns)


@dataclass(frozen=True, kw_only=True)
class FaceRecord:
    """A face, as the report tells it."""

    box: tuple[float, float, float, float]
    """Left, top, right, bottom, px of the photo."""
    model: str
    """Name of the network that drew it."""
    theta: float
    """θ of Eq. 11; NaN without masks."""
    theta_fixed: bool = False
    """θ is the same for all faces of this network."""

    @classmethod
    def of(cls, face: RestoredFace) -> FaceRecord:
        """Of a restored face."""
        return cls(box=face.box, model=face.model, theta=face.theta, theta_fixed=face.theta_fixed)

    def to_json(self) -> dict[str, Any]:
        """As the report holds it; JSON knows no NaN."""
        return {
            "box": [round(edge, 1) for edge in self.box],
            "model": self.model,
            "theta": None if math.isnan(self.theta) else round(self.theta, 4),
            "theta_fixed": self.theta_fixed,
        }


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one photo. It holds no pixels."""

    job: Job
    """The photo."""
    state: State
    """done; copied or skipped, when it has no face; failed."""
    faces: tuple[FaceRecord, ...] = ()
    """Its restored faces, the largest first."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Step → seconds: decode, detect, restore, encode."""
    error: str | None = None
    """One line: why it failed, or that it has no face."""
    variations: Mapping[str, Any] | None = None
    """How different its variations are, see `editing.VariationReport.to_json`."""
    stamp: Stamp | None = None
    """Of the photo when it was read; None when it could not be."""


class _Known(NamedTuple):
    """What the report says of one result."""

    state: str
    stamp: tuple[Any, Any]
    output_bytes: Any
    settings: Any


class Report:
    """The report of a folder, open for appending.

    >>> with Report(Path("out"), settings) as report:
    ...     jobs = [job for job in jobs if not report.is_done(job)]

    Args:
        folder: Folder of the results; it is made.
        settings: JSON values by name: all that a result depends on beside its photo.

    Raises:
        ImageError: The folder or the file cannot be made, or another run is writing there.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        make_folder(folder)
        self._folder = folder
        self._settings = json.loads(json.dumps(settings))  # tuples become lists, as in the file
        self._path = folder / REPORT
        self._guard = threading.Lock()
        try:
            self._file = self._path.open("a+b")
        except OSError as error:
            raise ImageError(f"{self._path}: cannot be written ({error.strerror})") from error
        try:
            _lock(self._file, self._path)
            self._beside: dict[str, set[str]] = {}
            self._known = dict(_read(self._file, self._beside))
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Report:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # What a full disk left in the buffer is tried once more; that it failed is told already.
        with contextlib.suppress(OSError):
            self._file.close()

    def is_done(self, job: Job) -> bool:
        """Whether the result is there, of this photo as it is now, with these settings."""
        known = self._known.get(self._name(job.target))
        if known is None or known.settings != self._settings:
            return False
        try:
            if known.stamp != Stamp.of(job.source):
                return False
            return known.state == "skipped" or job.target.stat().st_size == known.output_bytes
        except OSError:
            return False

    def files_of(self, job: Job) -> set[str]:
        """Names of the files beside the result that earlier runs have made."""
        return self._beside.get(self._name(job.target), set())

    def begin(self, job: Job, files: Iterable[str]) -> None:
        """Note which files beside the result are ours from now on.

        Raises:
            ImageError: The disk is full.
        """
        line = {"input": str(job.source), "output": self._name(job.target), "state": _BEGUN}
        self._write({**line, "files": [*files]})

    def append(self, outcome: Outcome, output: Path | None = None) -> None:
        """Add a line. Safe from several threads.

        Args:
            outcome: What became of a photo.
            output: The whole result, before it gets its name: so a run killed between the two
                does it again, and never takes it for somebody else's file.

        Raises:
            ImageError: The disk is full.
        """
        stamp = outcome.stamp
        line = {
            "input": str(outcome.job.source),
            "output": self._name(outcome.job.target),
            "state": outcome.state,
            "faces": [face.to_json() for face in outcome.faces],
            "seconds": {step: round(value, 4) for step, value in outcome.seconds.items()},
            "error": outcome.error,
            "variations": outcome.variations,
            "input_bytes": stamp.size if stamp else None,
            "input_mtime_ns": stamp.mtime_ns if stamp else None,
            "output_bytes": output.stat().st_size if output else None,
            "settings": self._settings,
        }
        self._write(line)

    def _write(self, line: Mapping[str, Any]) -> None:
        # ASCII: a name that is not UTF-8 could not be encoded.
        content = json.dumps(line).encode("ascii") + b"\n"
        with self._guard:
            try:
                self._file.write(content)
                self._file.flush()
            except OSError as error:
                raise ImageError(f"{self._path}: cannot be written ({error.strerror})") from error

    def sweep(self, jobs: Iterable[Job]) -> int:
        """Delete what earlier, killed runs left half-written beside the results of `jobs`.

        Returns:
            How many files that were.
        """
        count = 0
        places = {job.target.parent for job in jobs}
        for folder in places | {place / FACES for place in places}:
            with contextlib.suppress(OSError):
                for path in folder.iterdir():
                    if PART.fullmatch(path.name):
                        path.unlink()
                        count += 1
        return count

    def _name(self, target: Path) -> str:
        return target.relative_to(self._folder).as_posix()


def _lock(file: IO[bytes], path: Path) -> None:
    """Keep other runs out until the file is closed, also by a kill."""
    try:
        import fcntl
    except ImportError:  # Windows: there the user must see to it
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ImageError(f"{path}: another run is writing to this folder; wait for it") from error
    except OSError:
        return  # a network disk without locks


def _read(file: IO[bytes], beside: dict[str, set[str]]) -> Iterable[tuple[str, _Known]]:
    """What each line says, by the name of the result; a torn last line gets its end.

    Args:
        file: The report.
        beside: Gets the names of the files beside each result.
    """
    file.seek(0, os.SEEK_SET)
    line = b"\n"
    settings: dict[str, Any] = {}
    for line in file:
        try:
            entry = json.loads(line)
            if entry["state"] == _BEGUN:
                names = {str(name) for name in entry["files"]}
                beside.setdefault(str(entry["output"]), set()).update(names)
                continue
            if entry["state"] == "failed":
                continue  # what an earlier line says of the result still holds
            stamp = (entry["input_bytes"], entry["input_mtime_ns"])
            # Thousands of lines share a few settings: each is kept once.
            shared = settings.setdefault(repr(entry["settings"]), entry["settings"])
            known = _Known(entry["state"], stamp, entry["output_bytes"], shared)
            yield str(entry["output"]), known
        except (ValueError, KeyError, TypeError):
            continue  # torn, or not ours
    if not line.endswith(b"\n"):
        file.write(b"\n")
