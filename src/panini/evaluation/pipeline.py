"""Restore every face by every system, and compare with the truth.

One thread restores and scores, the caller's: the networks take every core that they are given.
Faces are read and degraded ahead of it, and pictures are written behind it, by other threads.
"""

from __future__ import annotations

import itertools
import math
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch

from panini.errors import ConfigError, DataError, ImageError
from panini.evaluation.cases import READERS, THETA_RATES, Case, Cases, ahead
from panini.evaluation.output import write_report
from panini.evaluation.plan import Plan
from panini.evaluation.report import Report, SetDistance, ThetaResult
from panini.evaluation.results import FaceRow, Results, check_places
from panini.evaluation.scoring import Scorer, thetas
from panini.evaluation.sets import feature_network, set_distances
from panini.evaluation.systems import System, Weighing, input_system
from panini.images import to_uint8
from panini.metrics.judge import Judge, load_judge

Progress = Callable[[int, int], None]
"""Called with (faces done, faces in all)."""

_WRITERS = 2  # Pictures that are written at a time.
_WAITING = 8  # Pictures that may wait for that: bounds the memory.


def run(
    plan: Plan,
    systems: Sequence[System],
    *,
    about: Mapping[str, Any] | None = None,
    judge: Judge | None = None,
    progress: Progress | None = None,
) -> Report:
    """Evaluate systems and write the report; what `plan.out` knows already is not done again.

    Args:
        plan: What is asked.
        systems: What is compared; the input itself is put before them.
        about: What the report tells of the systems beside its numbers, as JSON values.
        judge: The metrics, on `plan.device`; None loads them from `plan.metrics_dir`.
        progress: Told at once what is done already, then of every batch.

    Returns:
        What `plan.out` holds now as `output.FILES`.

    Raises:
        ConfigError: Systems of one name, of the input's name or for another task, or `plan.out`
            holds something else, the faces among it.
        DataError: Faces or pairs that cannot be compared.
        CheckpointError: Weights of a metric are missing.
    """
    systems = _with_input(plan, systems)
    check_places(plan)
    cases = Cases(plan)
    judge = judge or load_judge(plan.metrics_dir, plan.device, plan.judged)
    features = feature_network(plan, cases)
    results = Results(plan, systems, cases, judge)
    work = _Run(plan, systems, judge, results)
    work.faces(cases, progress)
    rows = {
        system.name: [results.rows[system.name][key] for key in cases.keys] for system in systems
    }
    sets: dict[str, dict[str, SetDistance]] = {}
    if features is not None:
        with work.timed("sets"):
            sets = set_distances(features, plan, cases, results)
    report = Report(
        plan=plan,
        systems=[system.name for system in systems],
        rows=rows,
        set_distances=sets,
        theta=_theta_results(rows),
        names=judge.names,
        seconds=dict(work.seconds),
    )
    write_report(report, cases, results, about or {})
    return report


def _with_input(plan: Plan, systems: Sequence[System]) -> list[System]:
    """The input first, then the systems, if they can be compared.

    Raises:
        ConfigError: None, two of one name, one of the input's name, or one for another task.
    """
    first = input_system(plan.task)
    if not systems:
        raise ConfigError("no system to evaluate; name a model")
    names = [first.name]
    for system in systems:
        if system.task not in (None, plan.task):
            raise ConfigError(
                f"{system.name}: is for task {system.task}, the evaluation for {plan.task}"
            )
        if system.name == first.name:
            raise ConfigError(
                f"{system.name}: is what reports call the face without a restorer; rename the model"
            )
        if system.name in names:
            raise ConfigError(f"{system.name}: two systems of that name; name each once")
        names.append(system.name)
    return [first, *systems]


def _theta_results(rows: dict[str, list[FaceRow]]) -> dict[str, ThetaResult]:
    found = {}
    for name, faces in rows.items():
        # A fusion without masks tells θ for no face: it is no test that was missed.
        told = [row for row in faces if any(map(math.isfinite, row.rates))]
        values = {row.key: list(row.rates) for row in told}
        if values:
            found[name] = ThetaResult(rates=THETA_RATES, thetas=values)
    return found


class _Run:
    """Reads ahead, restores, scores, writes behind."""

    def __init__(
        self, plan: Plan, systems: Sequence[System], judge: Judge, results: Results
    ) -> None:
        self.plan = plan
        self.systems = systems
        self.results = results
        self.scorer = Scorer(plan, judge)
        self.written: deque[Future[None]] = deque()
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def faces(self, cases: Cases, progress: Progress | None) -> None:
        """Do all that is not done yet."""
        todo = {key for key in cases.keys if self._lacking(key)}
        done, total = len(cases.keys) - len(todo), len(cases.keys)
        if progress is not None:
            progress(done, total)
        with (
            ThreadPoolExecutor(READERS, "panini-read") as readers,
            ThreadPoolExecutor(_WRITERS, "panini-write") as writers,
        ):
            try:
                made = ahead(readers, cases.jobs(todo), 2 * self.plan.batch + READERS)
                while part := self._next(made):
                    self._batch(part, writers)
                    done += len(part)
                    if progress is not None:
                        progress(done, total)
            finally:
                readers.shutdown(wait=False, cancel_futures=True)
            with self.timed("files"):
                self._wait(0)

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Adds to the seconds of a step."""
        start = time.perf_counter()
        try:
            yield
        finally:
            if self.plan.device.startswith("cuda"):
                torch.cuda.synchronize(self.plan.device)
            self.seconds[step] += time.perf_counter() - start

    def _lacking(self, key: str) -> tuple[str, ...]:
        """Systems that have not restored a face yet."""
        rows = self.results.rows
        return tuple(system.name for system in self.systems if key not in rows[system.name])

    def _next(self, made: Iterator[Case]) -> list[Case]:
        """The next faces.

        Raises:
            DataError: One cannot be read.
        """
        try:
            with self.timed("faces"):
                return list(itertools.islice(made, self.plan.batch))
        except (DataError, ImageError) as error:
            told = f"{error}; what is done stays, and the same command goes on from there"
            raise DataError(told) from error

    def _batch(self, cases: Sequence[Case], writers: ThreadPoolExecutor) -> None:
        """Faces that lack the same systems go through them together."""
        groups: defaultdict[tuple[str, ...], list[Case]] = defaultdict(list)
        for case in cases:
            groups[self._lacking(case.key)].append(case)
        for names, group in groups.items():
            self._group([system for system in self.systems if system.name in names], group, writers)

    def _group(
        self, systems: Sequence[System], cases: Sequence[Case], writers: ThreadPoolExecutor
    ) -> None:
        with self.timed("restore"):
            lq = self.scorer.tensor([case.lq for case in cases])
            drawn = [system(lq) for system in systems]
        with self.timed("theta"):
            rates = [self._rates(system, cases) for system in systems]
        with self.timed("score"):
            scores, details = self.scorer(cases, drawn)
        with self.timed("files"):
            for number, system in enumerate(systems):
                values = thetas(drawn[number], len(cases))
                pictures = to_uint8(drawn[number].image)
                for index, case in enumerate(cases):
                    row = FaceRow(
                        key=case.key,
                        mark=case.mark,
                        params={} if case.params is None else case.params.to_dict(),
                        theta=values[index],
                        scores=scores[number][index],
                        rates=rates[number][index],
                        gt_sharpness=details[index],
                    )
                    add = (system.name, row, pictures[index])
                    self.written.append(writers.submit(self.results.add, *add))
            self._wait(_WAITING)

    @torch.inference_mode()
    def _rates(self, system: System, cases: Sequence[Case]) -> list[tuple[float, ...]]:
        """θ of each face over the rates, for systems that tell it."""
        if not isinstance(system, Weighing) or not cases[0].rates:
            return [() for _ in cases]
        columns = [
            system.theta(self.scorer.tensor([case.rates[index] for case in cases])).tolist()
            for index in range(len(THETA_RATES))
        ]
        return list(zip(*columns, strict=True))

    def _wait(self, most: int) -> None:
        """Until no more pictures than that are to be written."""
        while len(self.written) > most:
            self.written.popleft().result()
