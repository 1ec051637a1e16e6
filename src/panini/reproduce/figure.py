"""Figure 7: what the prior's features and the image's features draw alone, at four rates."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

from panini.data import load_live_prior, resize, resize_batch
from panini.evaluation.cases import THETA_RATES, at_rate
from panini.evaluation.sheet import picture_table
from panini.evaluation.sizes import DEGRADED_SIZE
from panini.images import RgbImage, to_tensor, to_uint8
from panini.models.fusion import FusionControl
from panini.models.panini_net import PaniniNet, PaniniOutput
from panini.reproduce.inputs import Needs
from panini.reproduce.result import Table
from panini.reproduce.study import Study
from panini.reproduce.synthetic import prior_faces, write_picture

COLUMNS: dict[str, FusionControl | None] = {
    "Y: both sources": None,
    "Y_GPB: prior alone": FusionControl(image_gain=0.0),
    "Y_IFE: image alone": FusionControl(prior_gain=0.0),
}
"""Y, Y_GPB (F_IFE = 0) and Y_IFE (F_GPB = 0), as Eq. 12 and 13 make them."""
BARE = "Y_IFE without bands"
"""Where a network has bands: they hand on the photo, and hide what features draw."""
DRAWN_SIZE = 256
"""Side of the restored faces, px: that of the sheet's tiles."""


def figure_needs(study: Study) -> Needs:
    """What figure 7 reads."""
    needs = Needs(networks=frozenset({"mfr"}), masks=True)
    if study.options.data is None:
        return needs
    return replace(needs, faces=1, heads=study.config.figure_faces)


def figure(study: Study) -> list[Path]:
    """Draw figure 7 on faces of the study's prior, and on the data if there is; the files."""
    net, name = study.masked_network()
    count, seed = study.config.figure_faces, study.config.evaluation.seed
    sheets: dict[str, Iterable[tuple[str, RgbImage]]] = {
        "figure7.png": prior_faces(load_live_prior(study.prior_path("mfr")), count, seed)
    }
    if study.options.data is not None:
        sheets["figure7-data.png"] = study.faces(count)
    files = [write_picture(study.out / file, sheet(net, f, seed)) for file, f in sheets.items()]
    table = Table(
        name="figure7",
        title="Figure 7: what each source draws alone",
        about=study.about() | {"network": name, "faces": count},
        notes=_NOTES,
        more={"columns": titles(net), "rates": list(THETA_RATES), "pictures": list(sheets)},
        sections=[f"![{_SHOWN[file]}]({file})" for file in sheets],
    )
    return [*files, *study.write(table)]


def titles(net: PaniniNet) -> list[str]:
    """Of the columns."""
    return ["X: input", *COLUMNS, *([] if net.bands is None else [BARE]), "truth"]


_NOTES = [
    "Y_GPB is drawn with F_IFE = 0 (Eq. 13) and Y_IFE with F_GPB = 0 (Eq. 12), at every fused "
    "level; masks and latent codes are those of Y.",
    f"Without bands: the last step of the mobile sizes, which takes over the photo's own bands of "
    f"frequency, is left out, so that only features draw. Faces are drawn at {DRAWN_SIZE} px.",
    "A row is one face at one downsampling rate; σ 1.5 px, noise 5 and JPEG quality 80 stay. theta "
    "is θ of Eq. 11. figure7.png shows new faces of the study's prior, which are nobody's; "
    "figure7-data.png, where there is --data, the first faces of it.",
]
_SHOWN = {"figure7.png": "New faces of the prior", "figure7-data.png": "Faces of the data"}


@torch.inference_mode()
def sheet(net: PaniniNet, faces: Iterable[tuple[str, RgbImage]], seed: int) -> Image.Image:
    """Rows: each face at each rate; columns: input, `COLUMNS`, `BARE`, truth."""
    rows = []
    for key, image in faces:
        gt = resize(image, DEGRADED_SIZE)
        for rate in THETA_RATES:
            lq = at_rate(key, gt, seed, rate)
            outputs = _outputs(net, lq)
            drawn = [picture for out in outputs for picture in to_uint8(out.image)]
            rows.append((f"r = {rate}   theta {outputs[0].theta.item():.2f}", (lq, *drawn, gt)))
    return picture_table(titles(net), rows, 192)


def _outputs(net: PaniniNet, lq: RgbImage) -> list[PaniniOutput]:
    """Of `COLUMNS`, and of `BARE` where there are bands."""
    given = resize_batch(to_tensor(lq).to(next(net.parameters()).device), net.config.in_size)
    size = min(DRAWN_SIZE, net.config.out_size)
    outputs = [net(given, control, size=size) for control in COLUMNS.values()]
    if net.bands is not None:
        bands, net.bands = net.bands, None
        outputs.append(net(given, list(COLUMNS.values())[-1], size=size))
        net.bands = bands
    return outputs
