"""Photos one after another: while one is restored, the next are read and the last are written.

One thread restores, the caller's: the network takes every core that it is given. Reading and
writing run beside it, and no more than a few photos are in memory.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import numpy as np

from panini.batch.plan import FACES, Job, make_folder
from panini.batch.report import FaceRecord, Outcome, Report, Stamp
from panini.errors import ConfigError, ImageError, NoFaceError, PaniniError
from panini.images import TO_REPLACE, check_output, part_of, write_whole
from panini.metadata import Metadata
from panini.photos import Photo, WriteOptions, load_photo, variation_files, write_photo

if TYPE_CHECKING:
    from panini.faces.detect import Face, FaceDetector
    from panini.images import RgbImage
    from panini.restored import Restoration
    from panini.restorer import Restorer

NoFace = Literal["copy", "skip", "fail"]

_READERS = 2  # Photos read ahead.
_WRITERS = 2  # Photos written at a time; encoding a large PNG takes longer than restoring it.
_ANSWERED = (PaniniError, OSError, MemoryError)  # What ends one photo, and not the others.

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """What is done with each photo; the names are those of `Restorer.restore`."""

    aligned: bool = False
    """The photos are square crops of aligned faces."""
    upscale: int = 1
    """Enlarges the rest of the photo: 1, 2 or 4."""
    prior_bias: float | Mapping[int, float] = 0.0
    """Added to the logits of the masks; a number, or level → number."""
    min_face: float = 24.0
    """Least largest side of a face, px."""
    faces: str | int = "all"
    """"all", "largest", "center", or a face's number from 1 on."""
    consistent: bool = False
    """Faces drawn by super-resolution agree with the photo once they are reduced again."""
    keep_colour: bool = False
    """A photo with one channel becomes one with three, its faces in colour."""
    match_colour: bool = True
    """Faces take the broad colours of the photo."""
    grain: bool = False
    """Faces get the grain of the photo around them."""
    quality: int | None = None
    """Of lossy formats, 1 to 100; None is each format's default."""
    mark: bool = True
    """The file says that an algorithm altered the photo."""
    no_face: NoFace = "copy"
    """What becomes of a photo without a face."""
    save_faces: bool = False
    """Write each face too, before and after, into a folder `faces` beside the photo."""
    variations: int = 0
    """Other faces that the photo supports as well: so many more photos, and a sheet."""
    seed: int = 0
    """Of the variations and the grain."""
    metrics_dir: Path | None = None
    """Frozen networks of the metrics: distances between variations are LPIPS, else of pixels."""
    overwrite: bool = False
    """Replace results that are there."""

    def check(self) -> None:
        """Refuse options that contradict each other.

        Raises:
            ConfigError: They do.
        """
        if not self.aligned:
            return
        if self.upscale != 1:
            raise ConfigError("--upscale enlarges the rest of a photo: an aligned face has none")
        if self.faces != "all":
            raise ConfigError("--faces chooses among the faces of a photo: an aligned crop is one")

    def settings(self) -> dict[str, Any]:
        """All that a result depends on, as JSON values."""
        values = asdict(self)
        del values["overwrite"], values["metrics_dir"]
        if isinstance(self.prior_bias, Mapping):
            values["prior_bias"] = {str(level): bias for level, bias in self.prior_bias.items()}
        return values


@dataclass(kw_only=True, eq=False)
class _Read:
    """A photo in memory."""

    job: Job
    photo: Photo
    stamp: Stamp | None
    """Before it was read, so that a photo that changes meanwhile is done again."""
    variations: Mapping[str, Any] | None = None
    """How different they are."""
    seconds: dict[str, float] = field(default_factory=dict)


def run(
    jobs: Iterable[Job],
    restorer: Restorer,
    options: BatchOptions,
    *,
    report: Report | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Outcome]:
    """Restore photos, and tell about each in the order of the jobs.

    Args:
        jobs: The photos; folders of their results are made.
        restorer: Used only by the thread that iterates.
        options: The same for every photo.
        report: Gets a line for each photo.
        stop: Asked before each photo; once it is true, what is restored already is written, and
            no other photo is begun.

    Yields:
        One outcome for each photo. A photo that fails does not stop the others.

    Raises:
        ImageError: The report cannot be written.
        ConfigError: `consistent` without a network for super-resolution, or options that
            contradict each other.
        CheckpointError: The weights of the distance between variations are missing.
    """
    batch = _Batch(restorer, options, report)
    written: deque[Future[Outcome]] = deque()
    with (
        batch.timed(),
        ThreadPoolExecutor(_READERS, "panini-read") as readers,
        ThreadPoolExecutor(_WRITERS, "panini-write") as writers,
    ):
        try:
            for job, photo in _ahead(readers, batch.read, jobs):
                if stop():
                    break
                written.append(batch.restore(job, photo, writers))
                while written and (len(written) > _WRITERS or written[0].done()):
                    yield written.popleft().result()
            while written:
                yield written.popleft().result()
        finally:
            readers.shutdown(wait=False, cancel_futures=True)


def _ahead(
    pool: ThreadPoolExecutor, work: Callable[[Job], T], jobs: Iterable[Job]
) -> Iterator[tuple[Job, Future[T]]]:
    """Each job with its future; only so many are begun before they are asked for."""
    begun: deque[tuple[Job, Future[T]]] = deque()
    for job in jobs:
        begun.append((job, pool.submit(work, job)))
        if len(begun) > _READERS:
            yield begun.popleft()
    while begun:
        yield begun.popleft()


class _TimedDetector:
    """A detector, and how long its last search took."""

    def __init__(self, inner: FaceDetector) -> None:
        self.inner = inner
        self.seconds = 0.0

    def detect(self, image: RgbImage, *, min_face: float = 24.0) -> list[Face]:
        """As `FaceDetector.detect`."""
        start = time.perf_counter()
        try:
            return self.inner.detect(image, min_face=min_face)
        finally:
            self.seconds = time.perf_counter() - start


class _Batch:
    """The three steps of a photo: read, restore, write."""

    def __init__(self, restorer: Restorer, options: BatchOptions, report: Report | None) -> None:
        options.check()
        if options.variations and options.metrics_dir is not None:
            from panini.editing.variation_report import load_distance

            load_distance(options.metrics_dir, restorer.device)  # now, not after the first photo
        self._restorer = restorer.with_consistency(options.consistent)
        self._options = options
        self._report = report
        self._detector = None if options.aligned else _TimedDetector(self._restorer.detector)

    @contextmanager
    def timed(self) -> Iterator[None]:
        """The restorer looks for faces by the clock meanwhile."""
        if self._detector is None:
            yield
            return
        self._restorer.detector = cast("FaceDetector", self._detector)
        try:
            yield
        finally:
            self._restorer.detector = self._detector.inner

    def read(self, job: Job) -> _Read:
        """Load a photo, unless its result could not be written."""
        start = time.perf_counter()
        self._check_target(job)
        stamp = Stamp.of(job.source) if job.source.exists() else None
        photo = load_photo(job.source)
        seconds = {"decode": time.perf_counter() - start}
        return _Read(job=job, photo=photo, stamp=stamp, seconds=seconds)

    def restore(
        self, job: Job, future: Future[_Read], writers: ThreadPoolExecutor
    ) -> Future[Outcome]:
        """Restore a photo once it is read, and let it be written."""
        try:
            read = future.result()
            result = self._restore(read)
        except _ANSWERED as error:
            return writers.submit(self._fail, job, error)
        return writers.submit(self._finish, read, result)

    def _restore(self, read: _Read) -> Restoration:
        """The only step that uses the networks."""
        from panini.faces.paste import PasteOptions

        options = self._options
        start = time.perf_counter()
        if options.aligned:
            result = self._restorer.restore_aligned(
                read.photo,
                prior_bias=options.prior_bias,
                keep_colour=options.keep_colour,
                name=str(read.job.source),
            )
        else:
            result = self._restorer.restore(
                read.photo,
                upscale=options.upscale,
                prior_bias=options.prior_bias,
                min_face=options.min_face,
                faces=options.faces,
                keep_colour=options.keep_colour,
                paste=PasteOptions(
                    match_colour=options.match_colour, grain=options.grain, seed=options.seed
                ),
            )
        if result.faces and (options.variations or options.save_faces):
            self._begin(read.job, len(result.faces))
        if result.faces and options.variations:
            read.variations = self._vary(result, read.job.beside)
        seconds = time.perf_counter() - start
        if self._detector is not None:
            read.seconds["detect"] = self._detector.seconds
            seconds -= self._detector.seconds
        read.seconds["restore"] = seconds
        return result

    def _begin(self, job: Job, faces: int) -> None:
        """Before anything is written beside a photo: refuse what is there of others.

        Faces and variations are written before their photo. Where that is missing, the report tells
        which of them are left from a run that was killed in between.

        Raises:
            ImageError: A file exists that no earlier run has made.
        """
        options, report = self._options, self._report
        files: list[Path] = []
        if options.save_faces:
            numbers = range(1, faces + 1)
            files += [path for n in numbers for path in _face_files(job.beside, n).values()]
        if options.variations:
            files += variation_files(job.beside, options.variations)
        ours = set() if report is None else report.files_of(job)
        theirs = [path for path in files if path.name not in ours and path.exists()]
        if theirs and not options.overwrite:
            check_output(theirs[0], overwrite=False)
        if report is not None:
            report.begin(job, [path.name for path in files])

    def _vary(self, result: Restoration, target: Path) -> dict[str, Any]:
        from panini.editing import VariationOptions, write_variations

        make_folder(target.parent)
        options = VariationOptions(
            count=self._options.variations,
            seed=self._options.seed,
            lpips_dir=self._options.metrics_dir,
            quality=self._options.quality,
            mark=self._options.mark,
            overwrite=self._replaces_extras,
        )
        told = write_variations(self._restorer, result, target, options)
        return json.loads(told.to_json()) | {"least_distance": told.least_distance}

    def _finish(self, read: _Read, result: Restoration) -> Outcome:
        """Write a restored photo, and its line of the report just before it gets its name."""
        job, start = read.job, time.perf_counter()
        part = part_of(job.target)
        try:
            make_folder(job.target.parent)
            outcome = self._encode(read, result, part)
            read.seconds["encode"] = time.perf_counter() - start
            outcome = replace(outcome, seconds=read.seconds, stamp=read.stamp)
            written = part if part.exists() else None
            if self._report:
                self._report.append(outcome, written)
            if written:
                written.replace(job.target)
        except _ANSWERED as error:
            return self._fail(job, error, part)
        finally:
            part.unlink(missing_ok=True)
        return outcome

    def _encode(self, read: _Read, result: Restoration, part: Path) -> Outcome:
        """Write the result as `part`, if there is to be one."""
        job, options = read.job, self._options
        if not result.faces:
            return self._without_face(read, result, part)
        if options.save_faces:
            self._save_faces(result, job.beside)
        result.save(part, quality=options.quality, mark=options.mark)
        faces = tuple(FaceRecord.of(face) for face in result.faces)
        return Outcome(job=job, state="done", faces=faces, variations=read.variations)

    def _without_face(self, read: _Read, result: Restoration, part: Path) -> Outcome:
        """Skip, or copy and report, a photo without faces.

        Raises:
            NoFaceError: Where that is to be a failure.
        """
        job, options = read.job, self._options
        found = f"{job.source}: no face of at least {options.min_face:g} px found"
        if options.no_face == "skip":
            return Outcome(job=job, state="skipped", error=f"{found}, skipped")
        if options.no_face == "fail":
            raise NoFaceError(found)
        if options.upscale == 1 and job.source.suffix.lower() == job.target.suffix.lower():
            # The same bytes: depth, alpha and all metadata stay.
            write_whole(part, job.source.read_bytes())
            done = "copied unchanged"
        else:
            result.save(part, quality=options.quality, mark=options.mark)
            done = "converted" if options.upscale == 1 else "only enlarged"
        return Outcome(job=job, state="copied", error=f"{found}; {done} to {job.target}")

    def _save_faces(self, result: Restoration, target: Path) -> None:
        """`faces/NAME_1_lq.png`, `faces/NAME_1_restored.png`, … beside the photo."""
        make_folder(target.parent / FACES)
        # The colours are the photo's, and mean what its profile says.
        metadata = Metadata(icc_profile=result.photo.metadata.icc_profile)
        for number, face in enumerate(result.faces, start=1):
            mark = replace(result, faces=[face]).mark if self._options.mark else None
            files = _face_files(target, number)
            for kind, image, drawn in (("lq", face.lq, None), ("restored", face.restored, mark)):
                options = WriteOptions(mark=drawn, overwrite=self._replaces_extras)
                photo = Photo(rgb=np.asarray(image), metadata=metadata)
                write_photo(files[kind], photo, options)

    def _fail(self, job: Job, error: BaseException, part: Path | None = None) -> Outcome:
        """Tell in one line why there is no result."""
        if isinstance(error, MemoryError):
            line = f"{job.source}: not enough memory for this photo"
        elif isinstance(error, OSError):
            line = f"{error.filename or job.source}: {error.strerror or error}"
        else:
            line = str(error)
        if part is not None:
            line = line.replace(str(part), str(job.target))
        if not line.startswith((str(job.source), str(job.target), f"{job.target.parent}")):
            line = f"{job.source}: {line}"
        outcome = Outcome(job=job, state="failed", error=line)
        if self._report:
            self._report.append(outcome)
        return outcome

    @property
    def _replaces_extras(self) -> bool:
        # With a report, what is there is ours: see `_begin`.
        return self._options.overwrite or self._report is not None

    def _check_target(self, job: Job) -> None:
        """Say before the work what would be said after it."""
        target = job.target
        if not target.exists():
            return
        if job.source.exists() and target.samefile(job.source):
            raise ImageError(f"{target}: is the photo itself; choose another output")
        if target.is_dir():
            raise ImageError(f"{target}: is a folder, expected a file")
        if not self._options.overwrite:
            other = "" if self._report is None else ", of another photo or with other settings"
            raise ImageError(f"{target}: exists already{other}; {TO_REPLACE}")


def _face_files(target: Path, number: int) -> dict[str, Path]:
    """Kind → file of a single face of the photo `target`."""
    names = {kind: f"{target.stem}_{number}_{kind}.png" for kind in ("lq", "restored")}
    return {kind: target.parent / FACES / name for kind, name in names.items()}
