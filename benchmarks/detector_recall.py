"""How many degraded faces the detector finds, where it puts their landmarks, and what it invents.

    python benchmarks/detector_recall.py celebahq-val-1024-000.tar --faces 32

Each aligned face is degraded at 512 px by a downsampling factor r (Eq. 10 with nothing but the
resizing: r = 16 leaves 32 x 32 px of the whole picture, about 23 px of the face), and pasted into
a larger photo without faces, so large that the *box of the face* has the wanted side. Its own
box and landmarks, found on the clean 1024 px picture, are the truth: a face counts as found when
the boxes' intersection over union is at least 0.4. The landmark error is the mean distance of the
five points in eye distances. Faces found elsewhere in the canvas are false.

Prints Markdown, line by line. The face-free photos come with scikit-image.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from panini.degradations import DegradationParams, degrade
from panini.faces.align import align, apply, warp
from panini.faces.detect import Face, FaceDetector
from panini.images import RgbImage, find_images, read_rgb
from panini.shards import iter_shard

RATES = (16, 8, 32, 64, 1)
SIZES = (32, 48, 64, 128, 256, 512)
ANGLES = (20, 45, 90, 135, 180, 270)
SAME = 0.4  # Least intersection over union of a face and its find.
LARGE = 128  # px: faces of whole photos that are sharp enough to be a truth.
DEGRADED_AT = 512  # px: side of the aligned picture that r shrinks.
HEADER = (
    "| r | face, px | turned, ° | faces | found, % | median error, % | 90 % within, % | false |\n"
    + "|---" * 8
    + "|"
)
WITH_FACES = {"astronaut", "camera", "coins"}  # Coins: heads of emperors.


@dataclass(frozen=True, eq=False)
class Truth:
    """A clean aligned picture and its one face, in shares of the picture's side."""

    picture: RgbImage
    box: NDArray[np.float64]
    landmarks: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What was done to a face before it was looked for."""

    rate: float = 1.0
    size: int = 128
    """Largest side of the face's box in the canvas, px."""
    degrees: float = 0.0


@dataclass(frozen=True, eq=False)
class Canvas:
    """A photo with one known face, px."""

    image: RgbImage
    box: NDArray[np.float64]
    landmarks: NDArray[np.float64]


@dataclass(frozen=True)
class Outcome:
    """What the detector made of a canvas."""

    found: bool
    error: float
    """Mean distance of the landmarks, in eye distances; NaN when not found."""
    false: int


def read_truths(sources: list[Path], count: int, detector: FaceDetector) -> Iterator[Truth]:
    """The first `count` clean faces of shards and folders."""
    found = 0
    for picture in aligned_pictures(sources, detector):
        side = picture.shape[0]
        faces = detector.detect(picture, min_face=side / 4)
        if faces and found < count:
            found += 1
            yield Truth(picture, np.array(faces[0].box) / side, faces[0].landmarks / side)


def aligned_pictures(sources: list[Path], detector: FaceDetector) -> Iterator[RgbImage]:
    """Square pictures as they are, and the large faces of other photos, aligned."""
    for source in sources:
        if source.is_file():
            pictures = (picture for _, picture in iter_shard(source))
        else:
            pictures = (read_rgb(file) for file in find_images([source]))
        for picture in pictures:
            if picture.shape[0] == picture.shape[1]:
                yield picture
                continue
            for face in detector.detect(picture, min_face=LARGE):
                yield align(picture, face.landmarks, DEGRADED_AT)[0]


def make_canvas(
    truth: Truth, cell: Cell, background: RgbImage, generator: np.random.Generator
) -> Canvas:
    """Degrade the picture and put it somewhere into a larger photo, its edges blended."""
    side = DEGRADED_AT
    picture = cv2.resize(truth.picture, (side, side), interpolation=cv2.INTER_AREA)
    picture = degrade(np.asarray(picture), DegradationParams(rate=cell.rate), generator)
    scale = cell.size / (max(truth.box[2:] - truth.box[:2]) * side)
    shown = side * scale
    size = (max(320, round(1.2 * shown)), max(240, round(1.1 * shown)))
    room = np.maximum(np.array(size) - shown, 0)
    matrix = cv2.getRotationMatrix2D((side / 2, side / 2), cell.degrees, scale)
    matrix[:, 2] += shown / 2 - side / 2 + room * generator.uniform(size=2)
    axis = np.minimum(np.arange(side) + 0.5, side - 0.5 - np.arange(side)) / (0.06 * side)
    edge = np.clip(np.minimum.outer(axis, axis), 0, 1).astype(np.float32)
    weight = warp(edge, matrix, size, border=cv2.BORDER_CONSTANT)[..., None]
    image = fill(background, size)
    image = image + weight * (warp(picture, matrix, size).astype(np.float32) - image)
    left, top, right, bottom = truth.box * side
    corners = np.array([(left, top), (right, top), (left, bottom), (right, bottom)])
    centre = apply(matrix, corners).mean(axis=0)
    half = (truth.box[2:] - truth.box[:2]) * side * scale / 2
    if cell.degrees % 180 == 90:
        half = half[::-1]
    return Canvas(
        np.rint(image).astype(np.uint8),
        np.concatenate([centre - half, centre + half]),
        apply(matrix, truth.landmarks * side),
    )


def judge(canvas: Canvas, faces: list[Face]) -> Outcome:
    """Compare what was found with what is there."""
    overlaps = [overlap(canvas.box, np.array(face.box)) for face in faces]
    best = int(np.argmax(overlaps)) if overlaps else -1
    if best < 0 or overlaps[best] < SAME:
        return Outcome(False, float("nan"), len(faces))
    eyes = np.linalg.norm(canvas.landmarks[1] - canvas.landmarks[0])
    distance = np.linalg.norm(faces[best].landmarks - canvas.landmarks, axis=1).mean()
    false = sum(share < SAME / 2 for share in overlaps)
    return Outcome(True, float(distance / eyes), false)


def overlap(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Intersection over union of two boxes."""
    shared = np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0))
    return float(shared / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared))


def fill(photo: RgbImage, size: tuple[int, int]) -> RgbImage:
    """The middle of a photo, scaled so that it covers `size`."""
    scale = max(size[0] / photo.shape[1], size[1] / photo.shape[0])
    middle = np.array(photo.shape[1::-1]) / 2
    matrix = np.array([[scale, 0, 0], [0, scale, 0]], dtype=np.float64)
    matrix[:, 2] = np.array(size) / 2 - scale * middle
    return warp(photo, matrix, size)


def face_free_photos() -> dict[str, RgbImage]:
    """The photos of scikit-image that show nobody."""
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    files = [*folder.glob("*.png"), *folder.glob("*.jpg")]
    return {file.stem: read_rgb(file) for file in sorted(files) if file.stem not in WITH_FACES}


def dead_leaves(seed: int, side: int = 512, count: int = 1500) -> RgbImage:
    """Overlapping discs of all sizes: edges and shapes as in a photo, and no face."""
    generator = np.random.default_rng(seed)
    image = np.full((side, side, 3), 128, np.uint8)
    for radius in np.sort(3 / generator.uniform(0.02, 1, count))[::-1]:
        x, y = generator.integers(0, side, 2).tolist()
        colour = generator.integers(0, 256, 3).tolist()
        cv2.circle(image, (x, y), round(float(radius)), colour, -1, cv2.LINE_AA)
    return image


def clouds(seed: int, side: int = 512) -> RgbImage:
    """Noise with a photo's spectrum (1/f)."""
    generator = np.random.default_rng(seed)
    x, y = np.fft.fftfreq(side)[None], np.fft.fftfreq(side)[:, None]
    slope = 1 / np.maximum(np.hypot(x, y), 1 / side)
    waves = np.fft.fft2(generator.standard_normal((3, side, side))) * slope
    levels = np.fft.ifft2(waves).real.transpose(1, 2, 0)
    return np.clip(128 + 48 * levels / levels.std(), 0, 255).astype(np.uint8)


def measure(
    detector: FaceDetector,
    truths: list[Truth],
    cell: Cell,
    photos: list[RgbImage],
    *,
    beside: bool = False,
) -> list[Outcome]:
    """Look for every face in its canvas; the canvases are the same on every run.

    With `beside`, the face of the truth before stands next to it, clean and upright.
    """
    outcomes: list[Outcome] = []
    for index, truth in enumerate(truths):
        generator = np.random.default_rng(index)
        background = photos[index % len(photos)]
        canvas = make_canvas(truth, cell, background, generator)
        image, width = canvas.image, canvas.image.shape[1]
        if beside:
            other = make_canvas(truths[index - 1], Cell(), background, generator)
            image = next_to(image, other.image)
        faces = detector.detect(image)
        # The other face is not asked for.
        outcomes.append(judge(canvas, [face for face in faces if face.landmarks[2, 0] < width]))
    return outcomes


def next_to(left: RgbImage, right: RgbImage) -> RgbImage:
    """Two photos in one, the lower one continued downwards."""
    height = max(left.shape[0], right.shape[0])
    grown = [
        cv2.copyMakeBorder(image, 0, height - image.shape[0], 0, 0, cv2.BORDER_REPLICATE)
        for image in (left, right)
    ]
    return np.concatenate(grown, axis=1)


def row(cell: Cell, outcomes: list[Outcome]) -> str:
    """A line of the Markdown table."""
    recall = 100 * np.mean([outcome.found for outcome in outcomes])
    errors = [100 * outcome.error for outcome in outcomes if outcome.found]
    median, worst = (np.median(errors), np.percentile(errors, 90)) if errors else (np.nan, np.nan)
    false = sum(outcome.false for outcome in outcomes)
    return (
        f"| {cell.rate:g} | {cell.size} | {cell.degrees:g} | {len(outcomes)} | {recall:.0f} "
        f"| {median:.1f} | {worst:.1f} | {false} |"
    )


def false_finds(detector: FaceDetector) -> Iterator[str]:
    """What is found where nobody is."""
    images = face_free_photos()
    images |= {f"dead leaves {seed}": dead_leaves(seed) for seed in range(10)}
    images |= {f"clouds {seed}": clouds(seed) for seed in range(10)}
    total, pixels = 0, 0
    for name, image in images.items():
        faces = detector.detect(image)
        total += len(faces)
        pixels += image.shape[0] * image.shape[1]
        if faces:
            boxes = [tuple(round(edge) for edge in face.box) for face in faces]
            yield f"- {name}: {len(faces)} at {boxes}"
    yield f"\n{total} false finds in {len(images)} images, {pixels / 1e6:.1f} megapixels"


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # pyright: ignore
    parser.add_argument("faces_from", type=Path, nargs="+", help="shards or folders")
    parser.add_argument("--faces", type=int, default=32)
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--angles", type=float, nargs="*", default=ANGLES)
    arguments = parser.parse_args()

    cv2.setNumThreads(1)
    detector = FaceDetector()
    print("## Where nobody is\n", flush=True)
    for line in false_finds(detector):
        print(line, flush=True)
    truths = list(read_truths(arguments.faces_from, arguments.faces, detector))
    photos = list(face_free_photos().values())
    print("\n## Degraded faces\n")
    print("| r | face, px | turned, ° | faces | found, % | median error, % | 90 % within | false |")
    print("|---" * 8 + "|")
    cells = [Cell(rate=rate, size=size) for rate in arguments.rates for size in arguments.sizes]
    turned = [Cell(rate=8, degrees=angle) for angle in arguments.angles]
    for cell in cells + turned:
        print(row(cell, measure(detector, truths, cell, photos)), flush=True)
    if turned:
        print(f"\n## Beside a clean upright face\n\n{HEADER}")
    for cell in turned:
        print(row(cell, measure(detector, truths, cell, photos, beside=True)), flush=True)


if __name__ == "__main__":
    main()
