"""The authors' checkpoints (jianzhangcs/panini): their names to ours.

Their training framework stores `generator.`, `discriminator.` and loss networks in one state
dict. What is here are tables of names; `foreign` maps by them.
"""

from __future__ import annotations

from panini.checkpoints.convert.stylegan2 import MMGEN, counted_names
from panini.models.stylegan2 import StyleGAN2Config

SIZE = 1024
FUSED_LEVELS = (4, 8, 16, 32, 64)
MFR_RRDB_BLOCKS = 2
SR_RRDB_BLOCKS = 23


def mfr_names() -> dict[str, str]:
    """The authors' name of every MFR tensor with ours."""
    names = _shared_names(MFR_RRDB_BLOCKS, stem_convs=4)
    return names | encoder_names("generator.deg_encoder.", "degradation_encoder.")


def encoder_names(theirs: str = "", ours: str = "") -> dict[str, str]:
    """Names of the degradation encoder, each side with its prefix."""
    names: dict[str, str] = {}
    for i in range(6):
        _add_layer(names, f"{theirs}E.{3 * i}", f"{ours}blocks.{i}.conv")
        _add_norm(names, f"{theirs}E.{3 * i + 1}", f"{ours}blocks.{i}.norm")
    for i in (0, 2):
        _add_layer(names, f"{theirs}mlp.{i}", f"{ours}head.{i}")
    return names


def sr_names() -> dict[str, str]:
    """The authors' name of every SR tensor with ours."""
    names = _shared_names(SR_RRDB_BLOCKS, stem_convs=1)
    names["generator.choice_vector"] = "degradation_constant"
    return names


def discriminator_names(size: int = SIZE) -> dict[str, str]:
    """The authors' name of every tensor of the discriminator of `size` px with ours."""
    names: dict[str, str] = {}

    def add(theirs: str, index: int, ours: str, *, bias: bool = True) -> None:
        # Theirs is a sequence: blur (if it halves the side), convolution, activation.
        names[f"discriminator.{theirs}.{index}.conv.weight_orig"] = f"{ours}.weight"
        if bias:
            names[f"discriminator.{theirs}.{index + 1}.bias"] = f"{ours}.bias"

    add("convs.0", 0, "from_rgb")
    add("final_conv", 0, "final_conv")
    for i in range(1, size.bit_length() - 2):
        block = f"blocks.{size >> (i - 1)}"
        add(f"convs.{i}.conv1", 0, f"{block}.conv0")
        add(f"convs.{i}.conv2", 1, f"{block}.conv1")
        add(f"convs.{i}.skip", 1, f"{block}.skip", bias=False)
    for i, ours in enumerate(("final_linear", "logit")):
        names[f"discriminator.final_linear.{i}.linear.weight_orig"] = f"{ours}.weight"
        names[f"discriminator.final_linear.{i}.bias"] = f"{ours}.bias"
    return names


def _shared_names(rrdb_blocks: int, stem_convs: int) -> dict[str, str]:
    """What MFR and SR have in common: prior, encoder, fusion."""
    names = counted_names(MMGEN, StyleGAN2Config(), "generator.generator.", "prior.")
    _add_rrdb(names, "generator.encoder.0.0", "encoder.rrdb", rrdb_blocks)
    _add_attention(names, "generator.encoder.0.1", "encoder.attention")
    for i in range(stem_convs):
        _add_layer(names, f"generator.encoder.0.{2 * i + 2}", f"encoder.stem.{i}")
    for i, level in enumerate((32, 16, 8, 4)):
        _add_layer(names, f"generator.encoder.{i + 1}.0", f"encoder.stages.{level}")
    _add_layer(names, "generator.encoder.5.0", "encoder.latent_conv")
    _add_layer(names, "generator.encoder.5.3", "encoder.latent_linear")
    for i in (0, 2):
        _add_layer(names, f"generator.AFS_maskGen.mapping.{i}", f"fusion.mask_mlp.{i}")
    for i, level in enumerate(FUSED_LEVELS):
        _add_layer(names, f"generator.fusion_out.{i}", f"fusion.convs.{level}")
    return names


def _add_layer(names: dict[str, str], theirs: str, ours: str) -> None:
    for part in ("weight", "bias"):
        names[f"{theirs}.{part}"] = f"{ours}.{part}"


def _add_norm(names: dict[str, str], theirs: str, ours: str) -> None:
    _add_layer(names, theirs, ours)
    for part in ("running_mean", "running_var", "num_batches_tracked"):
        names[f"{theirs}.{part}"] = f"{ours}.{part}"


def _add_rrdb(names: dict[str, str], theirs: str, ours: str, blocks: int) -> None:
    _add_layer(names, f"{theirs}.conv_first", f"{ours}.first")
    _add_layer(names, f"{theirs}.conv_body", f"{ours}.last")
    for block in range(blocks):
        for dense in range(3):
            for conv in range(5):
                _add_layer(
                    names,
                    f"{theirs}.body.{block}.rdb{dense + 1}.conv{conv + 1}",
                    f"{ours}.blocks.{block}.dense.{dense}.convs.{conv}",
                )


def _add_attention(names: dict[str, str], theirs: str, ours: str) -> None:
    _add_layer(names, f"{theirs}.fea_preprocess", f"{ours}.conv")
    _add_layer(names, f"{theirs}.ChannelGate.mlp.1", f"{ours}.channel_mlp.0")
    _add_layer(names, f"{theirs}.ChannelGate.mlp.3", f"{ours}.channel_mlp.2")
    names[f"{theirs}.SpatialGate.spatial.conv.weight"] = f"{ours}.spatial_conv.weight"
    _add_norm(names, f"{theirs}.SpatialGate.spatial.bn", f"{ours}.spatial_norm")
