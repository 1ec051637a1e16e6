"""Where the time of an evaluation goes: it should be bound by the network.

    python benchmarks/evaluate_speed.py --faces 20
    python benchmarks/evaluate_speed.py --faces 20 --metrics-dir DIR

Evaluates a model on faces made on the fly, or on --data, and prints the seconds of each step: the
restorer itself; the metrics; and what the caller waited for (faces that were not read and degraded
in time, pictures that were not written in time), with the report. Without --metrics-dir, only the
metrics that need no network of their own are computed; with it, the frozen networks of the metrics
(VGG-16, the face descriptor) are networks like the restorer, and are told apart from the arithmetic
around them. θ over four rates is the restorer's own: four passes of its encoders. Ends with 1 if
the share of the time outside all networks is above --limit.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)

from panini.checkpoints import load_model
from panini.evaluation import Plan, Report, network_system, run
from panini.features.alexnet import AlexNet
from panini.features.identity import IdentityNet
from panini.features.inception import FidInception
from panini.features.vgg16 import VGG16
from panini.runtime import keep_memory, resolve_device

FACE = Path(__file__).parents[1] / "examples" / "face_truth.png"
CHEAP = ("psnr", "psnr_peak1", "ssim", "ms_ssim", "sharpness", "grid", "theta")
STEPS = {
    "restore": "restorer",
    "theta": "restorer, θ over the rates",
    "score": "metrics",
    "sets": "distances of sets",
    "faces": "waiting for faces",
    "files": "waiting for files",
}
OWN = ("restore", "theta")
FROZEN = (VGG16, AlexNet, FidInception, IdentityNet)


class Clock:
    """Adds up the seconds inside the metrics' frozen networks, wherever they are called."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._start = 0.0
        register_module_forward_pre_hook(self._before)
        register_module_forward_hook(self._after)

    def _before(self, module: nn.Module, _: object) -> None:
        if isinstance(module, FROZEN):
            self._start = time.perf_counter()

    def _after(self, module: nn.Module, *_: object) -> None:
        if isinstance(module, FROZEN):
            self.seconds += time.perf_counter() - self._start


def make_faces(folder: Path, count: int) -> None:
    """PNGs of 1024 px: one face, shifted, brightened, mirrored."""
    rng = np.random.default_rng(0)
    face = np.asarray(Image.open(FACE).convert("RGB").resize((1024, 1024)), np.float32)
    for number in range(count):
        moved = np.roll(face, rng.integers(-20, 21, 2), axis=(0, 1)) * rng.uniform(0.8, 1.1)
        moved = (moved + rng.normal(0, 3, face.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(moved[:, :: rng.choice([-1, 1])]).save(folder / f"{number:05}.png")


def evaluate(data: Path, out: Path, options: argparse.Namespace) -> tuple[Report, float]:
    """A report, and the wall-clock seconds of all of it."""
    device = resolve_device(options.device)
    net = load_model(options.model).to(device)
    plan = Plan(
        data=data,
        task=net.config.task,
        out=out,
        limit=options.faces,
        batch=options.batch,
        metrics=None if options.metrics_dir else CHEAP,
        metrics_dir=options.metrics_dir,
        device=device,
    )
    start = time.perf_counter()
    report = run(plan, [network_system(net, "model")])
    return report, time.perf_counter() - start


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mobile-mfr")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--data", type=Path, help="faces; default: made on the fly")
    parser.add_argument("--metrics-dir", type=Path, help="frozen networks: takes all metrics")
    parser.add_argument("--faces", type=int, default=20)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--limit", type=float, default=0.20, help="share outside all networks")
    options = parser.parse_args()
    keep_memory()
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        data = options.data
        if data is None:
            data = Path(folder) / "faces"
            data.mkdir()
            make_faces(data, options.faces)
        report, total = evaluate(data, Path(folder) / "out", options)
    count = len(report.rows[report.input])
    print(f"{count} faces, {total / count:.2f} s each, {torch.get_num_threads()} threads")
    for step, name in STEPS.items():
        seconds = report.seconds.get(step, 0.0)
        print(f"{name:28} {seconds / count:7.3f} s a face {seconds / total:7.1%}")
    rest = total - sum(report.seconds.values())
    print(f"{'loading, report':28} {rest / count:7.3f} s a face {rest / total:7.1%}")
    own = sum(report.seconds.get(step, 0.0) for step in OWN) / total
    theta, frozen = report.seconds.get("theta", 0.0) / total, clock.seconds / total
    print(f"restorer {own:.1%} (θ {theta:.1%} of it), networks of the metrics {frozen:.1%}")
    print(f"outside all networks {1 - own - frozen:.1%} of the time")
    if 1 - own - frozen > options.limit:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
