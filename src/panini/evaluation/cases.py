"""The faces of an evaluation: truth and input of each, degraded with fixed seeds or ready pairs."""

from __future__ import annotations

import itertools
import zlib
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import PurePosixPath
from typing import NamedTuple, TypeVar

import numpy as np

from panini.data import resize
from panini.degradations import SAMPLERS, DegradationParams, bilinear_antialias, degrade
from panini.errors import DataError
from panini.evaluation.faces import Face, Head, Mark, iter_faces
from panini.evaluation.plan import THETA, Degradations, Plan
from panini.evaluation.sizes import COMPARED_SIZE, DEGRADED_SIZE, GT_SIZE, LQ_SIZE
from panini.images import RgbImage

THETA_RATES = (16, 32, 64, 128)
"""Downsampling rates of the θ test, of `DEGRADED_SIZE`; the paper's Table 4."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One face to restore."""

    key: str
    """Name of the face in its data set; with the seed it decides what is done to it."""
    mark: str
    """Checksum of its files."""
    lq: RgbImage
    """What a system is given: (512, 512, 3) of mfr, (64, 64, 3) of sr16."""
    gt: RgbImage
    """True face (S, S, 3): of mfr, S is 512, or the plan's size if that is larger; of sr16 its own,
    at most 1024."""
    params: DegradationParams | None = None
    """What was done to it; None of sr16 and of ready pairs."""
    rates: tuple[RgbImage, ...] = ()
    """The truth under a fixed degradation at `THETA_RATES`; () where that is not wanted."""


READERS = 2
"""Faces that are read and degraded at a time, beside the networks."""

Made = TypeVar("Made")


def ahead(
    pool: ThreadPoolExecutor, jobs: Iterable[Callable[[], Made]], depth: int
) -> Iterator[Made]:
    """Results in the order of the jobs; so many are begun before they are asked for."""
    begun: deque[Future[Made]] = deque()
    for job in jobs:
        begun.append(pool.submit(job))
        if len(begun) > depth:
            yield begun.popleft().result()
    while begun:
        yield begun.popleft().result()


class _Truth(NamedTuple):
    """What is known of a true face that is not decoded yet."""

    where: str
    """What errors call it."""
    mark: Mark
    side: int
    """px."""


class Cases:
    """All faces of a plan; none is decoded before it is asked for.

    The heads of all files are read at once, so that a face that cannot be compared stops an
    evaluation before its first face, and not after hours.

    Args:
        plan: What is asked.

    Raises:
        DataError: No faces, two of one name, one that is not square or too small, or inputs and
            truths that are no pairs.
        ImageError: A file that is no image.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        truths = _truths(plan)
        self.keys = list(truths)
        found = {key: [truth.mark] for key, truth in truths.items()}
        self._lq: dict[str, Face] | None = None
        if plan.lq is not None:
            self._lq = _partners(plan, truths)
            for key, face in self._lq.items():
                found[key].append(_check_pair(plan, face, truths[key]))
        self.marks = {key: _joint([mark.whole for mark in of]) for key, of in found.items()}
        """Key → checksum of its files: a face that has changed is another one."""
        self.earlier_marks = {
            key: _joint([mark.places for mark in of]) for key, of in found.items()
        }
        """Key → what `marks` was in versions that did not read whole files: their results stay."""

    def params(self, key: str) -> DegradationParams | None:
        """What is done to a face, told without making it."""
        if self.plan.task == "sr16" or self._lq is not None:
            return None
        return random_params(key, self.plan.seed, self.plan.degradations)

    def jobs(self, keys: Collection[str], *, rates: bool = True) -> Iterator[Callable[[], Case]]:
        """What makes the cases of some faces, in the order of the data; for any thread.

        Args:
            keys: Which.
            rates: Make what the θ test needs as well, if the plan wants it.
        """
        wanted = rates and THETA in self.plan.wanted
        for face in self._faces() if keys else ():
            if face.key in keys:
                yield partial(self._make, face, wanted)

    def truths(self) -> Iterator[Callable[[], RgbImage]]:
        """What makes the truth of every face."""
        for face in self._faces():
            yield partial(self._truth, face)

    def _faces(self) -> Iterator[Face]:
        return itertools.islice(iter_faces(self.plan.data), len(self.keys))

    def _make(self, face: Face, rates: bool) -> Case:
        gt = self._truth(face)
        small = resize(gt, DEGRADED_SIZE) if self.plan.task == "mfr" else gt
        params = self.params(face.key)
        if self._lq is not None:
            lq = self._ready(self._lq[face.key])
        elif params is not None:
            lq = degraded(face.key, small, self.plan.seed, params)
        else:
            lq = bilinear_antialias(gt, LQ_SIZE)
        steps = THETA_RATES if rates else ()
        drawn = tuple(at_rate(face.key, small, self.plan.seed, rate) for rate in steps)
        mark = self.marks[face.key]
        return Case(key=face.key, mark=mark, lq=lq, gt=gt, params=params, rates=drawn)

    def _truth(self, face: Face) -> RgbImage:
        image = face.read()
        if self.plan.task == "mfr":
            return resize(image, max(DEGRADED_SIZE, self.plan.size))
        return resize(image, min(image.shape[0], GT_SIZE))

    def _ready(self, face: Face) -> RgbImage:
        """The input of a ready pair."""
        lq = face.read()
        return lq if self.plan.task == "sr16" else resize(lq, DEGRADED_SIZE)


def random_params(key: str, seed: int, degradations: Degradations) -> DegradationParams:
    """What is done to a face; it hangs on the face's name and the seed alone."""
    return SAMPLERS[degradations](_generator(key, seed, stream=0))


def degraded(key: str, gt: RgbImage, seed: int, params: DegradationParams) -> RgbImage:
    """A face under `random_params`; the noise hangs on the name and the seed as well."""
    return degrade(gt, params, _generator(key, seed, stream=1))


def at_rate(key: str, gt: RgbImage, seed: int, rate: float) -> RgbImage:
    """A face under a fixed degradation (σ 1.5 px, noise 5, JPEG 80) at any rate."""
    params = DegradationParams(sigma=1.5, rate=rate, noise=5.0, jpeg=80)
    return degrade(gt, params, _generator(key, seed, stream=2))


def check_face(face: Face, least: int = COMPARED_SIZE) -> Head:
    """Take an aligned face that can be compared, by the head of its file.

    Raises:
        DataError: It is not square, or smaller than `least` px.
        ImageError: It is no image.
    """
    head = face.head()
    if head.height != head.width or head.height < least:
        raise DataError(
            f"{face.where}: expected an aligned square face of at least {least} px, "
            f"got {head.width}x{head.height}; crop it as FFHQ does, or leave it out"
        )
    return head


def _distinct(faces: Iterable[Face]) -> Iterator[Face]:
    """Faces as they come.

    Raises:
        DataError: Two of one name, or a name that is no text.
    """
    seen: dict[str, str] = {}
    for face in faces:
        if face.key.encode(errors="ignore").decode() != face.key:
            raise DataError(f"{face.where!r}: its name is no text in UTF-8; rename it")
        if face.key in seen:
            raise DataError(f"{face.where}: {seen[face.key]} has the same name; rename one of them")
        seen[face.key] = face.where
        yield face


def _truths(plan: Plan) -> dict[str, _Truth]:
    """Key → true face, in the order of the data.

    Raises:
        DataError: Two of one name, or one that cannot be compared.
    """
    found: dict[str, _Truth] = {}
    for face in _distinct(itertools.islice(iter_faces(plan.data), plan.limit)):
        head = check_face(face, plan.size)
        found[face.key] = _Truth(face.where, head.mark, head.height)
    return found


def _partners(plan: Plan, truths: Mapping[str, _Truth]) -> dict[str, Face]:
    """Key → input of each truth.

    Raises:
        DataError: An input without truth, or a truth without input.
    """
    assert plan.lq is not None
    faces = {face.key: face for face in _distinct(iter_faces(plan.lq))}
    everything = list(truths)
    if plan.limit is not None:
        everything = [face.key for face in _distinct(iter_faces(plan.data))]
    name, rule = _pairing(everything, list(faces))
    known = {name(key) for key in everything}
    inputs = {name(key): face for key, face in faces.items()}
    lonely = [face.where for paired, face in inputs.items() if paired not in known]
    _refuse(lonely, f"has no truth of the same name in {plan.data}", rule)
    lonely = [truth.where for key, truth in truths.items() if name(key) not in inputs]
    _refuse(lonely, f"has no input of the same name in {plan.lq}", rule)
    return {key: inputs[name(key)] for key in truths}


def _pairing(*sides: Sequence[str]) -> tuple[Callable[[str], str], str]:
    """What makes the name that pairs meet by from a key, and how errors tell it.

    The keys of a shard hold its folders, those of a folder none: they are left out where no two
    faces of a side have one stem.
    """
    for keys in sides:
        seen: dict[str, str] = {}
        for key in keys:
            stem = _stem(key)
            if stem in seen:
                twice = f"{seen[stem]} and {key} have one stem"
                return str, f"{twice}, so that pairs are told by their names with the folders"
            seen[stem] = key
    return _stem, "pairs have one file stem"


def _stem(key: str) -> str:
    return PurePosixPath(key).name


def _joint(marks: Sequence[tuple[int, int]]) -> str:
    """One checksum of those of a face's files."""
    return sha256(repr(marks).encode()).hexdigest()[:12]


def _check_pair(plan: Plan, face: Face, truth: _Truth) -> Mark:
    """Take an input that is square and fits the task and its truth; its mark.

    Raises:
        DataError: Anything else.
    """
    width, height, mark = face.head()
    sides = [LQ_SIZE] if plan.task == "sr16" else [DEGRADED_SIZE, truth.side]
    if height != width or height not in sides:
        wanted = " or ".join(f"{side}x{side}" for side in dict.fromkeys(sides))
        raise DataError(
            f"{face.where}: is {width}x{height} px, expected {wanted} px for task "
            f"{plan.task} and its truth {truth.where}; resize it"
        )
    return mark


def _refuse(lonely: list[str], what: str, rule: str) -> None:
    if lonely:
        others = f" (and {len(lonely) - 1} more)" if len(lonely) > 1 else ""
        raise DataError(f"{lonely[0]}: {what}{others}; {rule}: rename it, or leave it out")


def _generator(key: str, seed: int, stream: int) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(key.encode()), stream])
