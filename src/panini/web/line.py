"""One worker, and a waiting line in front of it."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any, TypeVar

from panini.errors import ServiceError
from panini.web.limits import BusyError, TimeLimitError

T = TypeVar("T")


class Line:
    """Runs one job at a time, in the order in which they came, in a thread of its own.

    A network takes every core that it is given, and memory with it: whatever draws goes through
    here.

    Args:
        queue: Jobs that may wait while one runs.
        timeout: Seconds after which a caller is told that it took too long.
    """

    def __init__(self, queue: int, timeout: float) -> None:
        self.queue = queue
        self.timeout = timeout
        self._workers = ThreadPoolExecutor(max_workers=1, thread_name_prefix="panini-worker")
        self._lock = threading.Lock()
        self._inside = 0
        self._last = 1.0  # Seconds that the last job took.

    @property
    def waiting(self) -> int:
        """Jobs that wait now, without the one that runs."""
        return max(0, self._inside - 1)

    def run(self, job: Callable[[], T]) -> T:
        """Wait for the job's turn and its result.

        A job that is out of time before its turn is never begun; one that runs already cannot be
        stopped, so that it keeps the worker busy to its end, and its result is dropped.

        Raises:
            BusyError: Too many wait already.
            TimeLimitError: Not done in time.
            ServiceError: The server is stopping.
        """
        future = self._enter(job)
        try:
            return future.result(self.timeout)
        except TimeoutError as error:
            if future.done() and not future.cancelled():
                raise  # It was the job that said so.
            future.cancel()
            raise TimeLimitError(
                f"not done within {self.timeout:g} s; try a smaller photo, or later"
            ) from error
        except CancelledError as error:
            raise ServiceError("the server is stopping") from error

    def close(self) -> None:
        """Take no more jobs; those that wait are told so, and the one that runs is waited for."""
        self._workers.shutdown(wait=True, cancel_futures=True)

    def _enter(self, job: Callable[[], T]) -> Future[T]:
        with self._lock:
            if self._inside > self.queue:
                raise BusyError(self.waiting, math.ceil(self._last * self._inside))
            # Under the lock, so that who counts first is first in line.
            try:
                future = self._workers.submit(self._timed, job)
            except RuntimeError as error:
                raise ServiceError("the server is stopping") from error
            self._inside += 1
        future.add_done_callback(self._leave)
        return future

    def _timed(self, job: Callable[[], T]) -> T:
        start = time.monotonic()
        try:
            return job()
        finally:
            self._last = time.monotonic() - start

    def _leave(self, _: Future[Any] | None = None) -> None:
        with self._lock:
            self._inside -= 1
