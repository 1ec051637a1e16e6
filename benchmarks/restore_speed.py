"""Where the time of a restored photo goes, on this machine.

    python benchmarks/restore_speed.py examples/astronaut.png --repeats 5

Prints the median seconds of each step, and the process's peak memory.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable

import torch

from panini import Restorer
from panini.faces.align import align
from panini.images import load_image, to_tensor


def median_s(step: Callable[[], object], repeats: int) -> float:
    """Median wall-clock seconds of `step`, after one call to warm up."""
    step()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photo")
    parser.add_argument("--model", default="mobile-mfr")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()

    restorer = Restorer.from_pretrained(arguments.model, arguments.device)
    photo = load_image(arguments.photo)
    faces = restorer.detector.detect(photo)
    if not faces:
        parser.error(f"{arguments.photo}: no face found")
    size = restorer.model.config.in_size
    lq = to_tensor(align(photo, faces[0].landmarks, size)[0]).to(restorer.device)

    def network() -> None:
        with torch.inference_mode():
            restorer.model(lq)

    steps: dict[str, Callable[[], object]] = {
        "find faces": lambda: restorer.detector.detect(photo),
        "align one face": lambda: align(photo, faces[0].landmarks, size),
        "network, one face": network,
        f"whole photo, {len(faces)} face(s)": lambda: restorer.restore(photo),
    }
    print(f"{photo.shape[1]}x{photo.shape[0]} px, {torch.get_num_threads()} threads")
    for name, step in steps.items():
        print(f"{name:28} {median_s(step, arguments.repeats):7.3f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{'peak memory':28} {peak:7.0f} MB")


if __name__ == "__main__":
    main()
