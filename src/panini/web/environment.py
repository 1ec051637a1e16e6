"""What Gradio, torch and Matplotlib read from the environment of the process."""

from __future__ import annotations

import os
from pathlib import Path


def set_environment(folder: Path) -> None:
    """Send no statistics, and write nowhere but in a folder; best said before Gradio is imported.

    It is the process that has one environment: one application a process, therefore.

    Args:
        folder: Of the service; Gradio puts uploads there.
    """
    os.environ.update(
        GRADIO_ANALYTICS_ENABLED="False",
        GRADIO_TEMP_DIR=str(folder),
        HF_HUB_DISABLE_TELEMETRY="1",
        # torch makes this folder although nothing is compiled.
        TORCHINDUCTOR_CACHE_DIR=str(folder / "torch"),
        # Gradio asks Matplotlib, where that is installed, which would list all fonts in a file.
        MPLBACKEND="agg",
        MPLCONFIGDIR=str(folder / "matplotlib"),
    )
