"""MobileStyleGAN (Belousov 2021, arXiv 2104.04767): the light prior of the shipped models.

A StyleGAN2 student whose synthesis works in the Haar wavelet domain with depthwise-separable
modulated convolutions. `panini convert` fills it from the public wheel.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from panini.consistency import back_project
from panini.models.prior import Fuse, GanPrior, Window

ANCHOR_STEPS = 2
"""Steps of back-projection towards an anchor: one leaves what its filters do not pass."""


@dataclass(frozen=True, kw_only=True)
class MobileStyleGANConfig:
    """Shape of the generator; the defaults are those of the public FFHQ model."""

    size: int = 1024
    """Side of the largest image, px; a power of two."""
    w_dim: int = 512
    """Length of z and w."""
    mapping_layers: int = 8
    """Fully connected layers from z to w."""
    base_channels: int = 512
    """Channels at 4 px."""
    channels: tuple[int, ...] = (512, 512, 512, 512, 256, 128, 64)
    """Channels of the blocks at 8, 16, … size/2 px."""

    def __post_init__(self) -> None:
        blocks = self.size.bit_length() - 4
        if self.size != 1 << (self.size.bit_length() - 1) or self.size < 16:
            raise ValueError(f"size must be a power of two from 16, got {self.size}")
        if len(self.channels) != blocks:
            raise ValueError(
                f"a {self.size} px generator has {blocks} blocks, got channels {self.channels}"
            )


def haar_upsample(bands: Tensor) -> Tensor:
    """Inverse Haar transform of interleaved sub-bands.

    Args:
        bands: (N, 4C, H, W): C low bands, then for each channel its vertical, horizontal and
            diagonal details.

    Returns:
        (N, C, 2H, 2W).
    """
    n, bands4, h, w = bands.shape
    c = bands4 // 4
    half = bands * 0.5
    low = half[:, :c]
    vertical, horizontal, diagonal = half[:, c:].reshape(n, c, 3, h, w).unbind(2)
    # Two butterflies instead of four four-term sums.
    plus, minus = low + vertical, low - vertical
    detail_plus, detail_minus = horizontal + diagonal, horizontal - diagonal
    quads = torch.stack(
        [plus + detail_plus, plus - detail_plus, minus + detail_minus, minus - detail_minus], dim=2
    )  # (N, C, 4, H, W), the four pixels of each 2×2 square, row by row
    return F.pixel_shuffle(quads.reshape(n, 4 * c, h, w), 2)


def haar_downsample(image: Tensor) -> Tensor:
    """Haar transform, the inverse of `haar_upsample`: (N, C, 2H, 2W) → (N, 4C, H, W)."""
    n, c, h2, w2 = image.shape
    quads = F.pixel_unshuffle(image, 2).reshape(n, c, 4, h2 // 2, w2 // 2)
    p00, p01, p10, p11 = (quads * 0.5).unbind(2)
    low = p00 + p01 + p10 + p11
    vertical = p00 + p01 - p10 - p11
    horizontal = p00 - p01 + p10 - p11
    diagonal = p00 - p01 - p10 + p11
    details = torch.stack([vertical, horizontal, diagonal], dim=2)
    return torch.cat([low, details.reshape(n, 3 * c, h2 // 2, w2 // 2)], dim=1)


class Style(nn.Module):
    """Affine map from w to a multiplier for each channel."""

    def __init__(self, w_dim: int, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, w_dim) / w_dim**0.5)
        self.bias = nn.Parameter(torch.ones(channels))

    def forward(self, w: Tensor) -> Tensor:
        """(N, w_dim) → (N, channels, 1, 1)."""
        return F.linear(w, self.weight, self.bias)[:, :, None, None]


class StyledConv(nn.Module):
    """Modulate, convolve, add noise and bias, leaky ReLU 0.2 (without StyleGAN2's √2).

    Demodulation needs no w here: the student was trained with it folded into the weights.
    """

    noise: Tensor

    def __init__(self, w_dim: int, cin: int, cout: int, size: int, *, separable: bool) -> None:
        super().__init__()
        self.style = Style(w_dim, cin)
        self.depthwise = nn.Parameter(torch.randn(cin, 1, 3, 3) / 3) if separable else None
        kernel = 1 if separable else 3
        self.weight = nn.Parameter(
            torch.randn(cout, cin, kernel, kernel) / (cin * kernel**2) ** 0.5
        )
        self.bias = nn.Parameter(torch.zeros(1, cout, 1, 1))
        self.register_buffer("noise", torch.zeros(1, 1, size, size))

    def forward(self, x: Tensor, w: Tensor | None, window: Window | None = None) -> Tensor:
        """Convolve (N, cin, H, W); `w` None: the caller has modulated x already."""
        if w is not None:
            x = x * self.style(w)
        if self.depthwise is None:
            x = F.conv2d(x, self.weight, padding=1)
        else:
            x = F.conv2d(x, self.depthwise, padding=1, groups=x.shape[1])
            x = F.conv2d(x, self.weight)
        noise = self.noise if window is None else window.crop(self.noise)
        return F.leaky_relu(x + (noise + self.bias).to(x.dtype), 0.2)


class Block(nn.Module):
    """From r to 2r px: inverse Haar, then two styled convolutions."""

    def __init__(self, w_dim: int, cin: int, cout: int, size: int) -> None:
        super().__init__()
        self.up_style = Style(w_dim, cin)
        self.conv1 = StyledConv(w_dim, cin // 4, cout, size, separable=True)
        self.conv2 = StyledConv(w_dim, cout, cout, size, separable=True)

    def forward(self, x: Tensor, ws: Tensor, window: Window | None = None) -> Tensor:
        """(N, cin, r, r) and ws (N, 3, w_dim) → (N, cout, 2r, 2r)."""
        # The Haar step is linear and channel-wise, so conv1's modulation may go before it,
        # where there are a quarter of the pixels.
        style = self.conv1.style(ws[:, 1])
        style = torch.cat([style, style.repeat_interleave(3, dim=1)], dim=1)
        x = haar_upsample(x * (self.up_style(ws[:, 0]) * style))
        x = self.conv1(x, None, window)
        return self.conv2(x, ws[:, 2], window)


class ToImage(nn.Module):
    """1×1 convolution to the twelve Haar sub-bands of an RGB image of twice the size."""

    def __init__(self, w_dim: int, channels: int, *, styled: bool) -> None:
        super().__init__()
        self.style = Style(w_dim, channels) if styled else None
        self.weight = nn.Parameter(torch.randn(12, channels, 1, 1) / channels**0.5)
        self.bias = nn.Parameter(torch.zeros(12))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """(N, channels, r, r) → RGB (N, 3, 2r, 2r)."""
        if self.style is not None:
            x = x * self.style(w)
        return haar_upsample(F.conv2d(x, self.weight, self.bias))


class MobileStyleGAN(GanPrior):
    """The mobile face generator.

    Style vectors: 0 = first convolution; 1+3i, 2+3i, 3+3i = up-sampling and the two
    convolutions of block i; the last = `to_img` at the full size. The wheel has a `to_img`
    only there. The heads of the smaller sizes are ours, without a style; `fit_heads` derives
    them by least squares from the generator's own images.
    """

    constant: nn.Parameter

    def __init__(self, config: MobileStyleGANConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or MobileStyleGANConfig()
        self.size, self.z_dim, self.w_dim = config.size, config.w_dim, config.w_dim
        self.num_ws = 2 + 3 * len(config.channels)
        widths = (config.base_channels, *config.channels)
        sides = [4 << i for i in range(len(widths))]
        self.channels = {side: c for side, c in zip(sides, widths, strict=True) if side <= 64}
        self.mapping_layers = nn.ModuleList(
            nn.Linear(self.w_dim, self.w_dim) for _ in range(config.mapping_layers)
        )
        self.constant = nn.Parameter(torch.randn(1, widths[0], 4, 4))
        self.conv1 = StyledConv(self.w_dim, widths[0], widths[0], 4, separable=False)
        self.blocks = nn.ModuleList(
            Block(self.w_dim, cin, cout, side)
            for cin, cout, side in zip(widths[:-1], widths[1:], sides[1:], strict=True)
        )
        self.heads = nn.ModuleDict(
            {
                str(2 * side): ToImage(self.w_dim, c, styled=2 * side == self.size)
                for side, c in zip(sides, widths, strict=True)
            }
        )
        self.register_buffer("w_avg", torch.zeros(self.w_dim))

    def mapping(self, z: Tensor, truncation_psi: float = 1.0) -> Tensor:
        """See `GanPrior.mapping`."""
        w = z * torch.rsqrt(z.square().mean(dim=1, keepdim=True) + 1e-8)
        for layer in self.mapping_layers:
            w = F.leaky_relu(layer(w), 0.2) * 2**0.5
        return w if truncation_psi == 1.0 else self.w_avg.lerp(w, truncation_psi)

    def synthesis(
        self,
        ws: Tensor,
        *,
        size: int | None = None,
        fuse: Fuse | None = None,
        window: Window | None = None,
        anchor: int | None = None,
    ) -> Tensor:
        """See `GanPrior.synthesis`; `size` and `anchor` may be any power of two from 8.

        Here every size has a head of its own, where StyleGAN2 adds up the images of all sizes. An
        anchor ties the two together that matter most: what is drawn at its size stays what it is,
        and the full size adds what is finer.
        """
        size = size or self.size
        if str(size) not in self.heads:
            raise ValueError(f"size must be one of {', '.join(self.heads)}, got {size}")
        if ws.shape[1:] != (self.num_ws, self.w_dim):
            raise ValueError(f"expected ws (N, {self.num_ws}, {self.w_dim}), got {tuple(ws.shape)}")
        x = self.constant.expand(ws.shape[0], -1, -1, -1)
        x = self.conv1(x, ws[:, 0])
        side = 4
        cropped: Window | None = None
        anchored: Tensor | None = None
        while True:
            if fuse is not None and side in self.channels:
                x = fuse(side, x)
            if window is not None and side == window.level:
                cropped = window
                x = window.crop(x)
            if size == 2 * side:
                image = self.heads[str(size)](x, ws[:, -1])
                if anchored is not None:
                    image = back_project(image, anchored, ANCHOR_STEPS)
                return image if window is None or cropped else window.crop(image)
            if anchor == 2 * side:
                smaller: Tensor = self.heads[str(anchor)](x, ws[:, -1])
                # Cut as the features are, once they are so large.
                cut = window if window is not None and anchor == window.level else None
                anchored = smaller if cut is None else cut.crop(smaller)
            index = side.bit_length() - 3
            x = self.blocks[index](x, ws[:, 1 + 3 * index : 4 + 3 * index], cropped)
            side *= 2

    def modules_above(self, level: int) -> list[nn.Module]:
        """See `GanPrior.modules_above`; the heads of larger images are among them."""
        blocks = [block for i, block in enumerate(self.blocks) if 8 << i > level]
        heads = [head for size, head in self.heads.items() if int(size) > 2 * level]
        return [*blocks, *heads]

    @torch.no_grad()
    def fit_heads(self, num_samples: int, generator: torch.Generator) -> dict[int, float]:
        """Derive the heads below the full size by least squares from the prior's own images.

        Args:
            num_samples: Faces to fit on.
            generator: Draws their latents.

        Returns:
            Size → PSNR in dB (peak 2) of the head's images on the faces fitted.
        """
        sides = [int(key) // 2 for key in self.heads][:-1]
        grams: dict[int, Tensor] = {}
        for _ in range(num_samples):
            ws = self.broadcast(self.mapping(torch.randn(1, self.z_dim, generator=generator)))
            features, image = self._trace(ws)
            for side in sides:
                x = features[side].flatten(2)[0].double()
                x = torch.cat([x, torch.ones(1, x.shape[1], dtype=x.dtype)])
                target = haar_downsample(_shrink(image, 2 * side)).flatten(2)[0].double()
                both = torch.cat([x, target])
                grams[side] = grams.get(side, 0) + both @ both.T / both.shape[1]
        return {2 * side: self.solve_head(side, grams[side] / num_samples) for side in sides}

    def _trace(self, ws: Tensor) -> tuple[dict[int, Tensor], Tensor]:
        """Features after every block, and the image."""
        features: dict[int, Tensor] = {}
        x = self.conv1(self.constant.expand(ws.shape[0], -1, -1, -1), ws[:, 0])
        features[4] = x
        for index, block in enumerate(self.blocks):
            x = block(x, ws[:, 1 + 3 * index : 4 + 3 * index])
            features[8 << index] = x
        return features, self.heads[str(self.size)](x, ws[:, -1])

    def solve_head(self, side: int, gram: Tensor) -> float:
        """Put a ridge solution into the head that draws `2 * side` px.

        Args:
            side: Of its feature, px.
            gram: Mean of b bᵀ over the pixels, b = (feature, 1, `haar_downsample` of the image).

        Returns:
            PSNR of the fit in dB (peak 2).
        """
        n = gram.shape[0] - 12
        xx, xy, yy = gram[:n, :n], gram[:n, n:], gram[n:, n:]
        ridge = 1e-4 * xx.diagonal().mean() * torch.eye(n, dtype=xx.dtype)
        solution = torch.linalg.solve(xx + ridge, xy)  # (C + 1, 12)
        head = self.heads[str(2 * side)]
        assert isinstance(head, ToImage)
        head.weight.copy_(solution[:-1].T[:, :, None, None])
        head.bias.copy_(solution[-1])
        error = yy - 2 * xy.T @ solution + solution.T @ xx @ solution
        # The transform is orthonormal: twelve bands of one quad hold twelve pixel values.
        return float(10 * torch.log10(4 / error.diagonal().mean()))


def _shrink(image: Tensor, size: int) -> Tensor:
    """Box-filter an image down to `size` px."""
    factor = image.shape[-1] // size
    return F.avg_pool2d(image, factor) if factor > 1 else image
