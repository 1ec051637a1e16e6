"""What every number of a report is called, its unit, and which way is better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal


@dataclass(frozen=True)
class Description:
    """How a metric is shown."""

    label: str
    unit: str = ""
    """"" for a number without unit."""
    better: Literal["higher", "lower"] | None = None
    """None: neither, or only beside another number."""


DESCRIPTIONS: Mapping[str, Description] = MappingProxyType(
    {
        "psnr": Description("PSNR", "dB", "higher"),
        "psnr_peak1": Description("PSNR with peak 1 on [-1, 1]", "dB", "higher"),
        "psnr_full": Description("PSNR at full size", "dB", "higher"),
        "faithfulness": Description("faithfulness to the input", "dB", "higher"),
        "ssim": Description("SSIM", "", "higher"),
        "ms_ssim": Description("MS-SSIM", "", "higher"),
        "lpips": Description("LPIPS", "", "lower"),
        "lpips_vgg": Description("LPIPS (VGG-16)", "", "lower"),
        "lpips_vgg_caffe": Description("LPIPS (Caffe's VGG-16)", "", "lower"),
        "lpips_alex": Description("LPIPS (AlexNet)", "", "lower"),
        "identity": Description("identity distance", "", "lower"),
        "landmarks": Description("landmark distance", "eye distances", "lower"),
        "sharpness": Description("sharpness"),
        "grid": Description("8 px lattice", "levels", "lower"),
        "theta": Description("θ"),
        "fid_inception": Description("FID", "", "lower"),
        "kid_inception": Description("KID", "", "lower"),
        "fid_vgg16_caffe": Description("Fréchet distance (Caffe's VGG-16)", "", "lower"),
        "kid_vgg16_caffe": Description("kernel distance (Caffe's VGG-16)", "", "lower"),
    }
)
"""By the name in reports and files. `lpips` is one of the three below it: `Judge.names` says."""
