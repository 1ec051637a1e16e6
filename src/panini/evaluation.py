"""Model × faces × metrics: degrade faces with fixed seeds, restore them, compare with the truth.

The floor of the shipped weights is decided here: faces degraded at 512 px within the ranges of
`degradations.sample_floor`, everything compared at 256 px, beside the degraded input's own numbers.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from panini.degradations import DegradationParams, degrade, sample_floor
from panini.errors import DataError
from panini.images import find_images, read_rgb, to_tensor, to_uint8
from panini.metrics.grid import grid_amplitude
from panini.metrics.judge import Judge, Scores, mean_scores
from panini.metrics.sharpness import sharpness
from panini.shards import iter_shard

if TYPE_CHECKING:
    from panini.models.panini_net import PaniniNet

RgbImage = NDArray[np.uint8]

Restore = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Degraded faces (N, 3, 512, 512) in [-1, 1] → faces (N, 3, S, S), S at least 256, and θ (N,)."""

Theta = Callable[[Tensor], Tensor]
"""Degraded faces (N, 3, 512, 512) in [-1, 1] → θ (N,)."""

Progress = Callable[[int, int], None]
"""Called with (faces done, faces in all)."""

DEGRADED_SIZE = 512
COMPARED_SIZE = 256
THETA_RATES = (16, 32, 64, 128)
"""Downsampling rates of the θ test, of `DEGRADED_SIZE`; the paper's Table 4."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One face to restore."""

    key: str
    """Name of the face in its data set; with the seed it decides what is done to it."""
    seed: int
    """Base seed of the set."""
    params: DegradationParams
    """What was done to it."""
    lq: RgbImage
    """Degraded face, (512, 512, 3)."""
    gt: RgbImage
    """True face, (512, 512, 3)."""

    @property
    def low_side(self) -> int:
        """Side that the face was reduced to on the way, px."""
        return self.params.low_side(DEGRADED_SIZE)

    def at_rate(self, rate: float) -> RgbImage:
        """The face under a fixed degradation (σ 1.5 px, noise 5, JPEG 80) at another rate."""
        params = DegradationParams(sigma=1.5, rate=rate, noise=5.0, jpeg=80)
        return degrade(self.gt, params, _generator(self.key, self.seed, stream=2))


@dataclass(frozen=True, kw_only=True)
class FaceResult:
    """One face, before and after."""

    key: str
    low_side: int
    params: dict[str, float]
    theta: float
    input: Scores
    restored: Scores
    gt_sharpness: float
    grid: float
    """Strength of an 8 px lattice in the restored face at its full size, levels of 0..255."""


@dataclass(frozen=True, kw_only=True)
class ThetaResult:
    """θ of every face over rising downsampling rates, all else equal."""

    rates: tuple[int, ...]
    thetas: dict[str, list[float]]
    """Key → θ, one for each of `rates`."""

    @property
    def means(self) -> list[float]:
        """Mean θ a rate."""
        return np.mean(list(self.thetas.values()), axis=0).tolist()

    @property
    def rising(self) -> float:
        """Share of the faces whose θ rises at every step."""
        return float(np.mean([np.all(np.diff(values) > 0) for values in self.thetas.values()]))


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What `evaluate` found; `evaluation_report` turns it into tables and pictures."""

    lpips_name: str
    """"lpips_vgg_caffe" or "lpips_vgg": depends on the weights."""
    seed: int
    faces: list[FaceResult]
    theta: ThetaResult
    restored: list[RgbImage]
    """Restored faces in the order of `faces`, at 512 px (256 if the model's are no larger)."""


def read_faces(source: str | Path) -> Iterator[tuple[str, RgbImage]]:
    """Keys and images (uint8 RGB) of a tar shard, a folder of images, or one image.

    Raises:
        DataError: The shard or folder is missing, empty or damaged.
        ImageError: An image of the folder cannot be read.
    """
    source = Path(source)
    if source.suffix == ".tar":
        yield from iter_shard(source)
        return
    if not source.exists():
        raise DataError(f"{source}: no such file or folder; expected a tar shard or images")
    for path in find_images([source]):
        yield path.stem, read_rgb(path)


def make_cases(
    faces: Iterable[tuple[str, RgbImage]],
    *,
    seed: int = 0,
    limit: int | None = None,
    sampler: Callable[[np.random.Generator], DegradationParams] = sample_floor,
) -> list[Case]:
    """Degrade faces with seeds that hang on their keys alone, not on their order.

    Args:
        faces: (key, aligned uint8 RGB face, square, at least 256 px).
        seed: Base seed.
        limit: Take only the first so many; None takes all.
        sampler: Draws the degradation of a face.

    Raises:
        DataError: No faces, or a face is too small or not square.
    """
    cases = []
    for key, image in faces:
        if limit is not None and len(cases) == limit:
            break
        gt = _to_degraded_size(key, image)
        params = sampler(_generator(key, seed, stream=0))
        lq = degrade(gt, params, _generator(key, seed, stream=1))
        cases.append(Case(key=key, seed=seed, params=params, lq=lq, gt=gt))
    if not cases:
        raise DataError("no faces to evaluate on; expected at least one")
    return cases


@torch.inference_mode()
def evaluate(
    restore: Restore,
    theta: Theta,
    cases: Sequence[Case],
    judge: Judge,
    *,
    batch: int = 2,
    progress: Progress | None = None,
) -> Evaluation:
    """Restore every case and compare it with its truth; see how θ follows the downsampling rate.

    Args:
        restore: The model, see `restorer_of`.
        theta: θ alone, see `theta_of`.
        cases: What to restore.
        judge: The metrics; the model's inputs are put on its device.
        batch: Faces at a time.
        progress: Told of every batch.
    """
    faces: list[FaceResult] = []
    pictures: list[RgbImage] = []
    thetas: dict[str, list[float]] = {}
    for part in _batches(cases, batch):
        lq, gt = _tensor([case.lq for case in part], judge), _tensor([c.gt for c in part], judge)
        images, values = restore(lq)
        before, after = judge(*(resize(x, COMPARED_SIZE) for x in (gt, lq, images)))
        lattice = grid_amplitude(images)
        detail = sharpness(resize(gt, COMPARED_SIZE))
        for index, case in enumerate(part):
            faces.append(
                FaceResult(
                    key=case.key,
                    low_side=case.low_side,
                    params=case.params.to_dict(),
                    theta=values[index].item(),
                    input=before[index],
                    restored=after[index],
                    gt_sharpness=detail[index].item(),
                    grid=lattice[index].item(),
                )
            )
        pictures += to_uint8(resize(images, min(DEGRADED_SIZE, images.shape[-1])))
        thetas |= _theta_over_rates(theta, part, judge)
        if progress is not None:
            progress(len(faces), len(cases))
    return Evaluation(
        lpips_name=judge.lpips.name,
        seed=cases[0].seed,
        faces=faces,
        theta=ThetaResult(rates=THETA_RATES, thetas=thetas),
        restored=pictures,
    )


@torch.inference_mode()
def score_inputs(cases: Sequence[Case], judge: Judge, *, batch: int = 4) -> list[Scores]:
    """The degraded inputs' own scores: what a model has to beat."""
    scores: list[Scores] = []
    for part in _batches(cases, batch):
        lq, gt = _tensor([case.lq for case in part], judge), _tensor([c.gt for c in part], judge)
        scores += judge(resize(gt, COMPARED_SIZE), resize(lq, COMPARED_SIZE))[0]
    return scores


@torch.inference_mode()
def quick_score(
    restore: Restore,
    cases: Sequence[Case],
    judge: Judge,
    inputs: Sequence[Scores] | None = None,
    *,
    batch: int = 4,
) -> dict[str, float]:
    """Mean scores for a training log: restored, input, and how the two compare.

    Args:
        restore: The model; its faces may be 256 px, which only the lower half of a synthesis makes.
        cases: A few fixed cases.
        judge: The metrics.
        inputs: `score_inputs(cases, judge)`, to be computed once a run; None computes it here.
        batch: Faces at a time.

    Returns:
        Every metric by name and as ``input_<name>``, ``lpips_ratio`` (restored / input; the floor
        is 0.75), ``psnr_gain`` (dB) and ``theta``.
    """
    inputs = score_inputs(cases, judge, batch=batch) if inputs is None else inputs
    scores: list[Scores] = []
    thetas: list[float] = []
    for part in _batches(cases, batch):
        images, values = restore(_tensor([case.lq for case in part], judge))
        gt = _tensor([case.gt for case in part], judge)
        scores += judge(resize(gt, COMPARED_SIZE), resize(images, COMPARED_SIZE))[0]
        thetas += values.tolist()
    means = mean_scores(scores)
    before = {f"input_{name}": value for name, value in mean_scores(inputs).items()}
    return (
        means
        | before
        | {
            "lpips_ratio": means["lpips"] / max(before["input_lpips"], 1e-12),
            "psnr_gain": means["psnr"] - before["input_psnr"],
            "theta": float(np.mean(thetas)),
        }
    )


def restorer_of(net: PaniniNet, size: int | None = None) -> Restore:
    """A network as `evaluate` calls it.

    Args:
        net: The network; its input is brought to its own size if that is not 512 px.
        size: Side of the restored faces, px; None is the network's own.
    """

    def restore(lq: Tensor) -> tuple[Tensor, Tensor]:
        output = net(resize(lq, net.config.in_size), size=size)
        return output.image, output.theta

    return restore


def theta_of(net: PaniniNet) -> Theta:
    """θ of a network without drawing the faces (Eq. 11); NaN where its fusion has no masks."""

    def theta(lq: Tensor) -> Tensor:
        masks = net.fusion.masks(net.degradation(resize(lq, net.config.in_size)))
        if not masks:
            return lq.new_full((len(lq),), torch.nan)
        return masks[max(masks)].mean(dim=(1, 2, 3))

    return theta


def _theta_over_rates(theta: Theta, part: Sequence[Case], judge: Judge) -> dict[str, list[float]]:
    columns = [
        theta(_tensor([case.at_rate(rate) for case in part], judge)).tolist()
        for rate in THETA_RATES
    ]
    return {case.key: list(row) for case, row in zip(part, zip(*columns, strict=True), strict=True)}


def _generator(key: str, seed: int, stream: int) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(key.encode()), stream])


def check_face(key: str, image: RgbImage) -> None:
    """Take aligned faces that can be compared.

    Raises:
        DataError: It is not square, or too small.
    """
    height, width = image.shape[:2]
    if height != width or height < COMPARED_SIZE:
        raise DataError(
            f"{key}: expected an aligned square face of at least {COMPARED_SIZE} px, "
            f"got {width}x{height}"
        )


def _to_degraded_size(key: str, image: RgbImage) -> RgbImage:
    check_face(key, image)
    height = image.shape[0]
    if height == DEGRADED_SIZE:
        return image
    method = cv2.INTER_AREA if height > DEGRADED_SIZE else cv2.INTER_CUBIC
    resized = cv2.resize(image, (DEGRADED_SIZE, DEGRADED_SIZE), interpolation=method)
    return np.asarray(resized, dtype=np.uint8)


def resize(images: Tensor, size: int) -> Tensor:
    """Bring square images to a side; reduction averages areas, so nothing aliases."""
    side = images.shape[-1]
    if side == size:
        return images
    if side > size:
        return F.interpolate(images, size=(size, size), mode="area")
    return F.interpolate(images, size=(size, size), mode="bicubic", align_corners=False)


def _tensor(images: Sequence[RgbImage], judge: Judge) -> Tensor:
    return torch.cat([to_tensor(image) for image in images]).to(judge.device)


def _batches(cases: Sequence[Case], batch: int) -> Iterator[Sequence[Case]]:
    for start in range(0, len(cases), batch):
        yield cases[start : start + batch]
