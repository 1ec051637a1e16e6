"""Where a step's time goes, measured without making the device wait."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Timer:
    """Seconds by section; of nested sections the outermost counts.

    On a GPU, events are put into the stream and read when `collect` is called.

    Args:
        device: Where the work is done.
    """

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.seconds: dict[str, float] = {}
        self.events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []
        self.open = False

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        """Count what is done inside under a name."""
        if self.open:
            yield
            return
        self.open = True
        try:
            if self.cuda:
                start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                start.record()
                yield
                end.record()
                self.events.append((name, start, end))
            else:
                since = time.perf_counter()
                yield
                self.add(name, time.perf_counter() - since)
        finally:
            self.open = False

    def add(self, name: str, seconds: float) -> None:
        """Count seconds that were measured elsewhere."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def collect(self) -> dict[str, float]:
        """Seconds by section since the last call; waits for the device."""
        if self.events:
            torch.cuda.synchronize()
            for name, start, end in self.events:
                self.add(name, start.elapsed_time(end) / 1000)
        seconds, self.seconds, self.events = self.seconds, {}, []
        return seconds
