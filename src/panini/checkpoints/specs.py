"""The checkpoints that ship with the library."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

WEIGHTS = Path(__file__).parents[1] / "weights"


@dataclass(frozen=True, kw_only=True)
class Spec:
    """One shipped checkpoint."""

    file: str
    """File name in the package's `weights` folder."""
    sha256: str
    """Of the whole file; a damaged installation is refused."""
    licence: str
    """What the weights may be used for."""

    @property
    def path(self) -> Path:
        """Where the file is installed."""
        return WEIGHTS / self.file


SPECS: dict[str, Spec] = {
    "mobile-mfr": Spec(
        file="mobile-mfr.safetensors",
        sha256="52a6b3abb63ddabd0f03a57c1b175b23e72df9ea2ca17a1e6c8910336f216ea8",
        licence="research and non-commercial use only, see NOTICE",
    ),
    "mobile-sr16": Spec(
        file="mobile-sr16.safetensors",
        sha256="c15366e96c26462898603db4926b4774329a2790cf6c855669cac5928f1123b2",
        licence="research and non-commercial use only, see NOTICE",
    ),
}
"""Name → checkpoint; the model cards in model_cards/ tell the rest."""
