"""Where and how the networks run: the device, and the memory of the C library."""

from __future__ import annotations

import ctypes
import logging
import platform
from functools import lru_cache

from panini.errors import ConfigError

_log = logging.getLogger(__name__)

# glibc's mallopt(3): parameter → value. A gigabyte is more than any layer's output.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_SETTINGS = {_M_MMAP_THRESHOLD: 1 << 30, _M_TRIM_THRESHOLD: 1 << 30, _M_TOP_PAD: 1 << 26}


@lru_cache(maxsize=1)
def keep_memory() -> bool:
    """Let glibc keep the large blocks that each layer frees, for the next layer to use.

    By default they go back to the kernel at once and come again as fresh pages, each of which
    must be cleared: that costs more than the convolutions of a light network. The process keeps
    its peak until it ends. Other systems' C libraries are left alone.

    Returns:
        Whether it was done.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    accepted = [mallopt(ctypes.c_int(key), ctypes.c_int(value)) for key, value in _SETTINGS.items()]
    done = all(accepted)
    _log.debug("mallopt: %s", "large blocks are kept" if done else "refused")
    return done


def resolve_device(name: str = "auto") -> str:
    """The device to run on.

    Args:
        name: "auto" takes the first of cuda, mps, cpu that is there; also "cuda:1".

    Raises:
        ConfigError: No such device here.
    """
    import torch

    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    usable = [kind for kind, available in there.items() if available]
    if name == "auto":
        return usable[0]
    kind, _, index = name.partition(":")
    if kind not in usable or (index and not _has_index(kind, index)):
        raise ConfigError(f"device {name}: not available here; use auto or {', '.join(usable)}")
    return name


def _has_index(kind: str, index: str) -> bool:
    import torch

    count = torch.cuda.device_count() if kind == "cuda" else 1
    return index.isdigit() and int(index) < count
