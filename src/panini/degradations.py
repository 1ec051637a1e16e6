"""How a good face becomes a bad one: Eq. 10 of the paper, and the 16x reduction of its SR task.

    X = JPEG_q[ (Y * k_sigma) down_r up_r + N_delta ]

Four numbers, a `DegradationParams`, say what is done to an image; the noise comes from a
generator that the caller passes. `degrade` is the reference (uint8 in, uint8 out): the same
image, numbers and seed give the same bytes again. `degrade_batch` is the fast one for training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from panini.errors import ConfigError
from panini.images import RgbImage

_NUMBER = (int, float, np.integer, np.floating)
_BOUNDS = {"sigma": (0, 1000), "rate": (1, 1_000_000), "noise": (0, 1000), "jpeg": (0, 100)}
"""What `DegradationParams` accepts; the upper ends only keep out slips of the pen."""


@dataclass(frozen=True, kw_only=True)
class DegradationParams:
    """The four numbers of Eq. 10. The defaults leave an image as it is."""

    sigma: float = 0.0
    """Standard deviation of the isotropic Gaussian blur, px of the degraded image. 0 = no blur."""
    rate: float = 1.0
    """Downsampling factor r, at least 1: a side shrinks to `low_side(side)` and grows back."""
    noise: float = 0.0
    """Standard deviation of the Gaussian noise, levels of 0..255. 0 = no noise."""
    jpeg: int = 0
    """JPEG quality, 1..100. 0 = no compression."""

    def __post_init__(self) -> None:
        for name, (low, high) in _BOUNDS.items():
            value = getattr(self, name)
            whole = name == "jpeg"
            # NaN fails the comparison.
            if not isinstance(value, _NUMBER) or not low <= value <= high or (whole and value % 1):
                kind = "whole number" if whole else "number"
                raise ConfigError(
                    f"degradation: expected {name} to be a {kind} in {low}..{high}, got {value!r}"
                )
            # Plain Python numbers, so that NumPy scalars print and serialise as numbers.
            object.__setattr__(self, name, int(value) if whole else float(value))

    @classmethod
    def from_low_side(
        cls,
        low_side: int,
        *,
        size: int = 512,
        sigma: float = 0.0,
        noise: float = 0.0,
        jpeg: int = 0,
    ) -> DegradationParams:
        """Parameters that take an image of side `size` down to exactly `low_side` px."""
        if not 1 <= low_side <= size:
            raise ConfigError(f"degradation: expected a low side in 1..{size}, got {low_side}")
        return cls(sigma=sigma, rate=size / low_side, noise=noise, jpeg=jpeg)

    @classmethod
    def from_dict(cls, numbers: Mapping[str, float]) -> DegradationParams:
        """The inverse of `to_dict`; exactly the four keys are accepted."""
        names = [field.name for field in fields(cls)]
        if set(numbers) != set(names):
            raise ConfigError(f"degradation: expected keys {names}, got {sorted(numbers)}")
        return cls(
            sigma=numbers["sigma"],
            rate=numbers["rate"],
            noise=numbers["noise"],
            jpeg=numbers["jpeg"],  # pyright: ignore[reportArgumentType]  checked in __post_init__
        )

    def to_dict(self) -> dict[str, float]:
        """The four numbers by name, ready for JSON."""
        return asdict(self)

    def low_side(self, side: int) -> int:
        """Length that a side of `side` px shrinks to, at least 1."""
        return max(1, round(side / self.rate))

    def __str__(self) -> str:
        return (
            f"r={self.rate:g} sigma={self.sigma:g} noise={self.noise:g} jpeg={self.jpeg or 'none'}"
        )


def degrade(image: RgbImage, params: DegradationParams, generator: np.random.Generator) -> RgbImage:
    """Degrade one image by Eq. 10: blur, shrink and grow, noise, JPEG.

    Args:
        image: uint8 RGB, (H, W, 3). It is not changed.
        params: What to do.
        generator: Source of the noise.

    Returns:
        uint8 RGB, (H, W, 3). The same image, parameters and generator state give the same bytes.

    Raises:
        ValueError: The image is not uint8 RGB.
    """
    _check_rgb(image)
    height, width = image.shape[:2]
    levels = image.astype(np.float32)
    if params.sigma > 0:
        side = 2 * _blur_radius(params.sigma) + 1
        levels = cv2.GaussianBlur(
            levels, (side, side), params.sigma, borderType=cv2.BORDER_REFLECT_101
        )
    low = (params.low_side(width), params.low_side(height))
    if low != (width, height):
        # No antialias in either direction: so were the authors' own examples made.
        levels = cv2.resize(levels, low, interpolation=cv2.INTER_LINEAR)
        levels = cv2.resize(levels, (width, height), interpolation=cv2.INTER_LINEAR)
    if params.noise > 0:
        levels = levels + params.noise * generator.standard_normal(image.shape, dtype=np.float32)
    degraded = np.rint(np.clip(levels, 0, 255)).astype(np.uint8)
    return _jpeg(degraded, params.jpeg) if params.jpeg else degraded


def _check_rgb(image: RgbImage) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise ValueError(
            f"expected a uint8 RGB image of shape (H, W, 3), got {image.dtype} {image.shape}"
        )


def _blur_radius(sigma: float) -> int:
    """Half-width of the blur kernel, px: about four sigma, OpenCV's own choice for float images."""
    return round(8 * sigma + 1) // 2


def _jpeg(image: RgbImage, quality: int) -> RgbImage:
    """Compress with 4:2:0 chroma and decode again."""
    settings = [
        cv2.IMWRITE_JPEG_QUALITY,
        quality,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    ]
    _, data = cv2.imencode(".jpg", image[..., ::-1], settings)
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert decoded is not None
    return np.ascontiguousarray(decoded[..., ::-1], dtype=np.uint8)


# ----------------------------------------------------------------------------------------------
# 16x super-resolution


def bilinear_antialias(image: RgbImage, side: int) -> RgbImage:
    """Resize a square image to `side` px, bilinear with antialias (Pillow's), as the SR task does.

    Args:
        image: uint8 RGB, (H, H, 3).
        side: Side of the result, px.

    Returns:
        uint8 RGB, (side, side, 3).
    """
    _check_rgb(image)
    if image.shape[0] != image.shape[1]:
        raise ValueError(f"expected a square image, got {image.shape[0]}x{image.shape[1]}")
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR))


def downscale16(image: RgbImage) -> RgbImage:
    """The low-resolution input of the SR task: a square image reduced 16 times per side."""
    _check_rgb(image)
    if image.shape[0] % 16:
        raise ValueError(f"expected a side divisible by 16, got {image.shape[0]}")
    return bilinear_antialias(image, image.shape[0] // 16)


# ----------------------------------------------------------------------------------------------
# Drawing parameters


@dataclass(frozen=True, kw_only=True)
class DegradationRange:
    """Intervals, ends included, from which `DegradationParams` are drawn independently.

    The defaults are those of the validation floor, see `sample_floor`.
    """

    low_side: tuple[int, int] = (16, 100)
    """Side that an image of side `size` is shrunk to, px; whole numbers are drawn."""
    low_side_law: Literal["uniform", "log"] = "uniform"
    """`log` draws every octave equally often, hence more strong degradations than `uniform`."""
    sigma: tuple[float, float] = (0.5, 4.5)
    """Blur, px of the image of side `size`."""
    noise: tuple[float, float] = (0.0, 15.0)
    """Noise, levels of 0..255."""
    jpeg: tuple[int, int] = (50, 95)
    """JPEG quality; (0, 0) = no compression."""
    size: int = 512
    """Side of the images that are degraded, px."""

    def __post_init__(self) -> None:
        for name in ("low_side", "sigma", "noise", "jpeg"):
            low, high = getattr(self, name)
            if low > high:
                raise ConfigError(f"degradation range: {name} runs from {low} down to {high}")
        if self.low_side_law not in ("uniform", "log"):
            raise ConfigError(
                f"degradation range: expected low_side_law uniform or log, got {self.low_side_law}"
            )
        if self.jpeg[0] < 1 and self.jpeg != (0, 0):
            raise ConfigError(f"degradation range: expected jpeg in 1..100, got {self.jpeg}")
        for end in (0, 1):  # the parameters know their own bounds
            DegradationParams.from_low_side(
                self.low_side[end],
                size=self.size,
                sigma=self.sigma[end],
                noise=self.noise[end],
                jpeg=self.jpeg[end],
            )

    def sample(self, generator: np.random.Generator) -> DegradationParams:
        """Draw one set of parameters."""
        return DegradationParams.from_low_side(
            self._sample_low_side(generator),
            size=self.size,
            sigma=generator.uniform(*self.sigma),
            noise=generator.uniform(*self.noise),
            jpeg=int(generator.integers(*self.jpeg, endpoint=True)),
        )

    def _sample_low_side(self, generator: np.random.Generator) -> int:
        low, high = self.low_side
        if self.low_side_law == "uniform":
            return int(generator.integers(low, high, endpoint=True))
        # Half a pixel beyond both ends, so that the ends are as likely as their neighbours.
        drawn = math.exp(generator.uniform(math.log(low - 0.5), math.log(high + 0.5)))
        return min(max(round(drawn), low), high)


FLOOR_RANGE = DegradationRange()
"""The validation floor: what the shipped model is judged on."""

MEASURED_RANGE = DegradationRange(
    low_side=(10, 200), sigma=(0.5, 4.5), noise=(0.0, 25.0), jpeg=(50, 95)
)
"""What the authors' published example images were made with, as far as it can be measured."""


def sample_floor(generator: np.random.Generator) -> DegradationParams:
    """Draw from `FLOOR_RANGE`, for images of 512 px."""
    return FLOOR_RANGE.sample(generator)


def sample_measured(generator: np.random.Generator) -> DegradationParams:
    """Draw from `MEASURED_RANGE`, for images of 512 px."""
    return MEASURED_RANGE.sample(generator)


def sample_paper(generator: np.random.Generator) -> DegradationParams:
    """Draw from the ranges that the paper prints below Eq. 10, r read as a factor.

    r in [10, 200], noise in [0, 25], JPEG quality in [5, 50]. At 512 px this leaves a low side of
    51 down to 3 px: `DegradationParams.low_side` never goes below 1. The paper gives no range for
    the blur; [0.2, 10] is that of GFP-GAN, whose practice it says it follows.
    """
    return DegradationParams(
        rate=generator.uniform(10, 200),
        sigma=generator.uniform(0.2, 10),
        noise=generator.uniform(0, 25),
        jpeg=int(generator.integers(5, 50, endpoint=True)),
    )


SAMPLERS: dict[str, Callable[[np.random.Generator], DegradationParams]] = {
    "paper": sample_paper,
    "measured": sample_measured,
    "floor": sample_floor,
}
"""The named ways to draw parameters, as `panini degrade --preset` offers them."""


# ----------------------------------------------------------------------------------------------
# The same on tensors, for training on an accelerator


@torch.no_grad()
def degrade_batch(
    images: Tensor, params: Sequence[DegradationParams], generator: torch.Generator
) -> Tensor:
    """Degrade a batch on its own device, every image by its own parameters.

    What `degrade` computes, but for the noise's values and for rounding: without noise the PSNR
    between the two is 54 dB in the median over the grid of the tests, and 38 dB at least, where a
    coarse JPEG rounds a block the other way. Not differentiable. Matrix products in TF32, where
    the caller has them on, cost about a tenth of a level.

    Args:
        images: RGB in [-1, 1], (N, 3, H, W).
        params: One entry an image.
        generator: Source of the noise; its own device may differ from that of the images.

    Returns:
        RGB in [-1, 1], (N, 3, H, W), at 256 levels, of the device and dtype of `images`.

    Raises:
        ValueError: The batch is not (N, 3, H, W), or `params` is not of length N.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"expected images (N, 3, H, W), got {tuple(images.shape)}")
    if len(params) != len(images):
        raise ValueError(f"expected {len(images)} parameters, one an image, got {len(params)}")
    # Half precision would lose levels: mixed precision stays outside.
    with torch.autocast(images.device.type, enabled=False):
        levels = _blur_and_resize((images.float() + 1) * 127.5, params)
        noise = torch.randn(images.shape, generator=generator, device=generator.device)
        deviation = levels.new_tensor([p.noise for p in params]).view(-1, 1, 1, 1)
        levels = (levels + deviation * noise.to(levels.device)).clamp(0, 255).round()
        levels = _jpeg_batch(levels, [p.jpeg for p in params])
        return (levels / 127.5 - 1).to(images.dtype)


def _blur_and_resize(levels: Tensor, params: Sequence[DegradationParams]) -> Tensor:
    """Blur, shrink and grow (N, 3, H, W): each is linear and separable, hence four matrices."""
    height, width = levels.shape[2:]
    down_rows, up_rows = _resize_matrices(height, params, levels.device)
    down_columns, up_columns = (
        (down_rows, up_rows) if height == width else _resize_matrices(width, params, levels.device)
    )
    low = down_rows @ levels @ down_columns.mT
    return up_rows @ low @ up_columns.mT


def _resize_matrices(
    side: int, params: Sequence[DegradationParams], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Blur and shrink a side, (N, 1, S, side), and grow it again, (N, 1, side, S).

    S is the largest low side of the batch; the others' matrices end in zeros.
    """
    low_sides = [p.low_side(side) for p in params]
    low = torch.tensor(low_sides, device=device).view(-1, 1)  # (N, 1)
    full = torch.full_like(low, side)
    rows = torch.arange(max(low_sides), device=device)
    left, share = _bilinear_positions(low, full, rows)  # (N, S)
    right = (left + 1).clamp(max=side - 1)
    share = share.unsqueeze(-1)
    down = (1 - share) * _blur_rows(left, side, params) + share * _blur_rows(right, side, params)
    down = down * (rows < low).unsqueeze(-1)

    left, share = _bilinear_positions(full, low, torch.arange(side, device=device))  # (N, side)
    position = (left + share).unsqueeze(-1)
    up = (1 - (position - rows).abs()).clamp(min=0)
    return down.unsqueeze(1), up.unsqueeze(1)


def _bilinear_positions(target: Tensor, source: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Where pixel `index` of a side of `target` px lies on one of `source` px, centre on centre.

    Returns:
        The pixel to the left and the share, in [0, 1), of its right neighbour.
    """
    position = (index + 0.5) * (source / target) - 0.5
    position = position.clamp(min=0).minimum(source - 1.0)
    left = position.floor()
    return left.long(), position - left


def _blur_rows(rows: Tensor, side: int, params: Sequence[DegradationParams]) -> Tensor:
    """The rows (N, S) of each image's blur matrix, (N, S, side), borders mirrored (reflect 101)."""
    if side == 1:
        return torch.ones(*rows.shape, 1, device=rows.device)
    radius = max(_blur_radius(p.sigma) for p in params)
    kernel = torch.tensor(
        [_blur_kernel(p.sigma, radius) for p in params], dtype=torch.float32, device=rows.device
    )  # (N, radius + 2)
    columns = torch.arange(side, device=rows.device)
    inner = (columns > 0) & (columns < side - 1)
    weights = torch.zeros(*rows.shape, side, device=rows.device)
    period = 2 * (side - 1)
    repeats = radius // period + 1
    for shift in range(-repeats * period, repeats * period + 1, period):
        # A mirrored line holds pixel j at j + shift and at -j + shift; the ends only once.
        for mirrored, counted in ((columns + shift, 1), (shift - columns, inner)):
            distance = (rows.unsqueeze(-1) - mirrored).abs().clamp(max=radius + 1)
            taps = kernel.gather(1, distance.flatten(1)).view_as(distance)
            weights += taps * counted
    return weights


def _blur_kernel(sigma: float, radius: int) -> list[float]:
    """Weights of the distances 0..radius, and a last zero for everything beyond."""
    own = _blur_radius(sigma)
    taps = cv2.getGaussianKernel(2 * own + 1, sigma or 1.0, cv2.CV_64F)[own:, 0]
    return [*taps.tolist(), *[0.0] * (radius + 1 - own)]


def _jpeg_batch(levels: Tensor, qualities: Sequence[int]) -> Tensor:
    """Compress and decode (N, 3, H, W) of whole levels as libjpeg would; quality 0 = leave."""
    if not any(qualities):
        return levels
    height, width = levels.shape[2:]
    padded = F.pad(levels, (0, -width % 16, 0, -height % 16), mode="replicate")
    to_ycc = levels.new_tensor(_RGB_TO_YCC)
    centre = levels.new_tensor([0.0, 128.0, 128.0]).view(3, 1, 1)
    ycc = torch.einsum("ij,njhw->nihw", to_ycc, padded).add(centre).round()
    tables = levels.new_tensor(np.stack([_quantisation_tables(q) for q in qualities]))  # (N, 2, 64)

    luma = _code_blocks(ycc[:, :1], tables[:, 0])
    # libjpeg rounds halves down and up in turn, lest the colour drift.
    bias = (torch.arange(padded.shape[3] // 2, device=levels.device) % 2 + 1) / 4
    chroma = (F.avg_pool2d(ycc[:, 1:], 2) + bias).floor()
    chroma = _code_blocks(chroma, tables[:, 1])[:, :, : (height + 1) // 2, : (width + 1) // 2]
    chroma = F.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False).round()

    ycc = torch.cat([luma[..., :height, :width], chroma[..., :height, :width]], dim=1) - centre
    coded = torch.einsum("ij,njhw->nihw", torch.linalg.inv(to_ycc), ycc).round().clamp(0, 255)
    compressed = torch.tensor(qualities, device=levels.device).view(-1, 1, 1, 1) > 0
    return torch.where(compressed, coded, levels)


def _code_blocks(planes: Tensor, table: Tensor) -> Tensor:
    """Quantise the DCT of the 8x8 blocks of (N, C, H, W), with a table (N, 64) an image."""
    number, channels, height, width = planes.shape
    shape = (number, channels, height // 8, 8, width // 8, 8)
    blocks = (planes - 128).reshape(shape).transpose(3, 4).flatten(-2)  # (N, C, h, w, 64)
    basis = torch.from_numpy(_DCT).to(planes)
    steps = table.view(number, 1, 1, 1, 64)
    # libjpeg's transform gives whole eighths, and its quotient rounds halves away from zero; in
    # flat areas both decide.
    eighths = (blocks @ basis.T * 8).round()
    quotients = eighths.sign() * ((eighths.abs() + 4 * steps) / (8 * steps)).floor()
    blocks = (quotients * steps) @ basis
    planes = blocks.unflatten(-1, (8, 8)).transpose(3, 4).reshape(number, channels, height, width)
    return (planes + 128).round().clamp(0, 255)


def _quantisation_tables(quality: int) -> NDArray[np.float32]:
    """Steps of luma and chroma, (2, 64), by the IJG's rule; quality 0 gives ones."""
    if not quality:
        return np.ones((2, 64), np.float32)
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return np.clip((_IJG_TABLES * scale + 50) // 100, 1, 255).astype(np.float32)


def _dct_basis() -> NDArray[np.float32]:
    """The orthonormal 8x8 DCT-II of a flattened block as a matrix, (64, 64)."""
    frequency, position = np.mgrid[:8, :8]
    basis = np.cos((2 * position + 1) * frequency * math.pi / 16) / 2
    basis[0] /= math.sqrt(2)
    return np.kron(basis, basis).astype(np.float32)


_DCT = _dct_basis()

_RGB_TO_YCC = (
    (0.299, 0.587, 0.114),
    (-0.168735892, -0.331264108, 0.5),
    (0.5, -0.418687589, -0.081312411),
)
"""JFIF's colour transform, without the offset of 128 of the two chroma planes."""

# fmt: off
_IJG_TABLES = np.array([
    [16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55,
     14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
     18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
     49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99],
    [17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99,
     24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99, 99, 99, *[99] * 32],
])
# fmt: on
"""Steps of luma and chroma at quality 50, (2, 64): the examples of the JPEG standard, annex K."""
