"""What a server takes on: sizes, times, the length of its waiting line; and how it refuses."""

from __future__ import annotations

import math
from dataclasses import dataclass

from panini.errors import ConfigError, ServiceError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one server takes on.

    Raises:
        ConfigError: A limit below its least value.
    """

    max_mb: float = 20.0
    """Largest photo, as a file, in megabytes (10⁶ bytes)."""
    max_megapixels: float = 24.0
    """Largest photo, in megapixels; larger ones are refused before they are decoded."""
    timeout: float = 120.0
    """Seconds that a request may take, its time in the waiting line included."""
    queue: int = 8
    """Requests that may wait while one is at work; further ones are refused at once."""
    sessions: int = 6
    """Photos that may be edited at the same time; the one untouched for longest is forgotten.
    Each takes up to 9 bytes a pixel, twice that with 16 bits."""
    idle: float = 3600.0
    """Seconds after which a photo that nobody touched is forgotten."""

    def __post_init__(self) -> None:
        least = {"queue": 0, "sessions": 1}
        for name in ("max_mb", "max_megapixels", "timeout", "idle", *least):
            value = getattr(self, name)
            if name in least and value < least[name]:
                raise ConfigError(f"{name}: expected at least {least[name]}, got {value}")
            if name not in least and not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name}: expected a number above 0, got {value}")

    @property
    def max_bytes(self) -> int:
        """`max_mb` in bytes."""
        return round(self.max_mb * 1e6)

    @property
    def max_pixels(self) -> int:
        """`max_megapixels` in pixels."""
        return round(self.max_megapixels * 1e6)


class TooLargeError(ServiceError):
    """A photo has more bytes than the server takes."""


class ForgottenError(ServiceError):
    """A photo that was being edited is no longer there."""


class TimeLimitError(ServiceError):
    """A request took longer than the server allows."""


class BusyError(ServiceError):
    """The waiting line is full.

    Args:
        waiting: Requests that wait already.
        retry_after: Seconds after which it is worth to ask again.
    """

    def __init__(self, waiting: int, retry_after: int) -> None:
        self.retry_after = retry_after
        super().__init__(f"busy: {waiting} requests are waiting; try again in {retry_after} s")
