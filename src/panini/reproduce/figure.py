"""Figure 7: what the prior's features and the image's features draw alone, at four rates."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path

import torch
from PIL import Image

from panini.data import resize as resize_image
from panini.evaluation import read_faces
from panini.evaluation.cases import THETA_RATES, at_rate
from panini.evaluation.sheet import picture_table
from panini.evaluation.sizes import DEGRADED_SIZE, resize
from panini.images import RgbImage, to_tensor, to_uint8
from panini.models.fusion import FusionControl
from panini.models.panini_net import PaniniNet, PaniniOutput
from panini.reproduce.sheets import prior_faces, write_picture
from panini.reproduce.study import Study

COLUMNS: dict[str, FusionControl | None] = {
    "Y": None,
    "Y of the prior's features": FusionControl(image_gain=0.0),
    "Y of the image's features": FusionControl(prior_gain=0.0),
}
"""Y, Y_GPB (F_IFE = 0) and Y_IFE (F_GPB = 0), as Eq. 12 and 13 make them."""
BARE = "the same without bands"
"""Beside Y_IFE, where a network has bands: they hand on the photo, and hide what features draw."""
DRAWN_SIZE = 256
"""Side of the restored faces, px: that of the sheet's tiles."""


def figure(study: Study) -> list[Path]:
    """Draw figure 7 on faces of the network's prior, and on the data if there is; the files."""
    net, _ = study.masked_network()
    count, seed = study.config.figure_faces, study.config.evaluation.seed
    files = [
        write_picture(
            study.out / "figure7.png", sheet(net, prior_faces(net.prior, count, seed), seed)
        )
    ]
    if study.options.data is not None:
        faces = itertools.islice(read_faces(study.data), count)
        files.append(write_picture(study.out / "figure7-data.png", sheet(net, faces, seed)))
    return files


@torch.inference_mode()
def sheet(net: PaniniNet, faces: Iterable[tuple[str, RgbImage]], seed: int) -> Image.Image:
    """Rows: each face at each rate; columns: input, `COLUMNS`, `BARE`, truth."""
    titles = [*COLUMNS, *([] if net.bands is None else [BARE])]
    rows = []
    for key, image in faces:
        gt = resize_image(image, DEGRADED_SIZE)
        for rate in THETA_RATES:
            lq = at_rate(key, gt, seed, rate)
            outputs = _outputs(net, lq)
            drawn = [picture for out in outputs for picture in to_uint8(out.image)]
            rows.append((f"r = {rate}   theta {outputs[0].theta.item():.2f}", (lq, *drawn, gt)))
    return picture_table(("X", *titles, "truth"), rows, 192)


def _outputs(net: PaniniNet, lq: RgbImage) -> list[PaniniOutput]:
    """Of `COLUMNS`, and of `BARE` where there are bands."""
    given = resize(to_tensor(lq).to(next(net.parameters()).device), net.config.in_size)
    size = min(DRAWN_SIZE, net.config.out_size)
    outputs = [net(given, control, size=size) for control in COLUMNS.values()]
    if net.bands is not None:
        bands, net.bands = net.bands, None
        outputs.append(net(given, list(COLUMNS.values())[-1], size=size))
        net.bands = bands
    return outputs
