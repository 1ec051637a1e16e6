"""At which sizes faces are degraded, given to systems and compared."""

from __future__ import annotations

DEGRADED_SIZE = 512
"""Side at which faces are degraded, and that a system for mfr is given, px."""
COMPARED_SIZE = 256
"""Side at which faces are compared with their truth if no other is asked for, px."""
LQ_SIZE = 64
"""Side that a system for sr16 is given, px."""
GT_SIZE = 1024
"""Largest side of a truth, px."""
