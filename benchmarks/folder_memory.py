"""Whether the memory that a folder takes grows with its photos.

    python benchmarks/folder_memory.py                        2,000 photos against 200
    python benchmarks/folder_memory.py --few 40 --many 400    a quick look

Restores two folders of small photos, made on the fly, by `panini restore FOLDER -r` with the tiny
network, so that it takes minutes. Prints one table, and ends with 1 if the larger folder took more
than 10 % more memory.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

FACE = Path(__file__).parents[1] / "examples" / "face_truth.png"
LIMIT = 1.10

# In processes of their own: a child's peak begins with the memory of its parent.
SAVE_TINY = """
import sys, torch
from pathlib import Path
from panini.checkpoints import save_model
from panini.models.panini_net import PaniniNet
torch.manual_seed(0)
save_model(PaniniNet.named("tiny"), Path(sys.argv[1]), provenance={})
"""
PANINI = "from panini.cli.main import app; app()"


def make_photos(folder: Path, count: int) -> None:
    """JPEGs of 160 to 320 px, a hundred a folder: four in five hold a face."""
    rng = np.random.default_rng(0)
    face = Image.open(FACE).convert("RGB")
    for number in range(count):
        place = folder / f"{number // 100:02}"
        place.mkdir(parents=True, exist_ok=True)
        width, height = (int(side) for side in rng.integers(160, 321, 2))
        # Where there is no face: a few soft spots of colour.
        spots = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        photo = spots.resize((width, height), Image.Resampling.BICUBIC)
        if number % 5:
            side = int(rng.integers(100, min(width, height)))
            photo.paste(face.resize((side, side)), (0, 0))
        photo.save(place / f"{number:04}.jpg", quality=int(rng.integers(50, 95)))


def restore(folder: Path, out: Path, weights: Path) -> tuple[float, float]:
    """Peak memory in MB, and wall-clock seconds, of one command."""
    command = [sys.executable, "-c", PANINI, "restore", str(folder), "-r", "-o", str(out)]
    command += ["--model", str(weights), "--device", "cpu", "--no-face", "skip"]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"panini restore ended with {process.returncode}")
    kilo = 1 if sys.platform == "darwin" else 1024  # bytes there, kB on Linux
    return usage.ru_maxrss * kilo / 2**20, time.perf_counter() - start


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--few", type=int, default=200)
    parser.add_argument("--many", type=int, default=2000)
    arguments = parser.parse_args()
    peaks: list[float] = []
    print(f"{'photos':>8} {'results':>8} {'peak memory':>12} {'time':>9}")
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "tiny.safetensors"
        subprocess.run([sys.executable, "-c", SAVE_TINY, str(weights)], check=True)
        for count in (arguments.few, arguments.many):
            photos, out = Path(folder) / f"in{count}", Path(folder) / f"out{count}"
            make_photos(photos, count)
            peak, seconds = restore(photos, out, weights)
            results = len(list(out.rglob("*.jpg")))
            print(f"{count:8} {results:8} {peak:9.0f} MB {seconds:7.0f} s", flush=True)
            peaks.append(peak)
    growth = peaks[1] / peaks[0]
    print(f"{arguments.many} photos take {growth - 1:+.1%} memory against {arguments.few}")
    if growth > LIMIT:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
