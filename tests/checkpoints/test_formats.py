"""Foreign checkpoints: real files of each format, recognised, converted, loaded and run."""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F
from typer.testing import CliRunner

from panini.checkpoints import (
    convert,
    hub,
    load_degradation_encoder,
    load_model,
    load_network_prior,
    load_prior,
    load_tensors,
    read,
    recognise,
    save_model,
    save_tensors,
)
from panini.checkpoints.convert import authors, stylegan2
from panini.cli.main import app
from panini.errors import CheckpointError
from panini.models.degradation_encoder import DegradationEncoder
from panini.models.panini_net import PaniniNet, named_config
from panini.models.stylegan2 import StyleGAN2, StyleGAN2Config

TAPS = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
FILTER = torch.outer(TAPS, TAPS)
SMALL = StyleGAN2Config(
    size=64, style_dim=12, mapping_layers=2, channel_multiplier=1 / 32, max_channels=16
)
DIALECTS = {"mmgen": stylegan2.MMGEN, "rosinality": stylegan2.ROSINALITY}


def load_golden():
    """The filling rule and the comparison are those of tests/models/test_golden.py."""
    path = Path(__file__).parents[1] / "models" / "test_golden.py"
    spec = importlib.util.spec_from_file_location("golden_of_formats", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


golden = load_golden()


def error_of(function, *arguments) -> str:
    with pytest.raises(CheckpointError) as caught:
        function(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


def small_generator(config: StyleGAN2Config = SMALL, seed: int = 0) -> StyleGAN2:
    torch.manual_seed(seed)
    net = StyleGAN2(config).requires_grad_(False).eval()
    for name, tensor in net.state_dict().items():
        if name.endswith(("bias", "noise_strength")):
            tensor += 0.3 * torch.randn(tensor.shape)
    net.estimate_w_avg(64, torch.Generator().manual_seed(0))
    return net


def counted_tensors(net: StyleGAN2, dialect: stylegan2.Dialect) -> dict[str, Tensor]:
    """A generator's tensors in the names and shapes of mmgen or rosinality."""
    state = net.state_dict()
    tensors = {}
    for theirs, ours in stylegan2.counted_names(dialect, net.config).items():
        tensor = state[ours]
        if theirs.endswith(dialect.weight) and ".conv." in f".{theirs}":
            tensor = tensor[None]
        if ours.endswith("to_rgb.bias"):
            tensor = tensor.reshape(1, 3, 1, 1)
        tensors[theirs] = tensor
    for i in range(len(net.levels) - 1):
        tensors[f"convs.{2 * i}.conv.blur.kernel"] = 4 * FILTER
        tensors[f"to_rgbs.{i}.upsample.kernel"] = 4 * FILTER
    return tensors


def adam(tensors: dict[str, Tensor], count: int) -> dict:
    """Optimizer state as Adam writes it, of the first tensors."""
    chosen = list(tensors.values())[:count]
    state = {
        i: {"step": 5, "exp_avg": torch.zeros_like(t), "exp_avg_sq": torch.zeros_like(t)}
        for i, t in enumerate(chosen)
    }
    group = {"lr": 1e-4, "betas": (0.9, 0.99), "eps": 1e-8, "params": list(range(count))}
    return {"state": state, "param_groups": [group]}


def mmcv(generator: dict[str, Tensor], **more: dict[str, Tensor]) -> dict:
    """A checkpoint as mmcv's runner writes it."""
    state = {f"generator.{name}": tensor for name, tensor in generator.items()}
    for prefix, tensors in more.items():
        state |= {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}
    meta = {"epoch": 0, "iter": 800000, "time": "x", "hook_msgs": {"best": np.float64(23.4)}}
    optimizer = {"generator": adam(generator, 3), "discriminator": adam(generator, 1)}
    return {"meta": meta, "state_dict": state, "optimizer": optimizer}


# ----------------------------------------------------------------------------------------------
# The authors' files, at full size, against golden values


def through_files(task: str, folder: Path) -> SimpleNamespace:
    """Synthetic weights → the authors' file → `convert` → `load_model`; the files are deleted."""
    names = getattr(authors, f"{task}_names")()
    model = PaniniNet.named("mfr-1024" if task == "mfr" else "sr16-1024")
    state = golden.synthetic_state(names, model)
    for i in range(8):
        state[f"generator.generator.convs.{2 * i}.conv.blur.kernel"] = 4 * FILTER
        state[f"generator.generator.to_rgbs.{i}.upsample.kernel"] = 4 * FILTER
    generator = {name.removeprefix("generator."): tensor for name, tensor in state.items()}
    foreign, ours = folder / f"panini_{task}_latest.pth", folder / f"{task}.safetensors"
    vgg = {"vgg.mean": torch.zeros(1, 3, 1, 1), "vgg.vgg_layers.0.weight": torch.zeros(64, 3, 3, 3)}
    critic = {"final_linear.1.bias": torch.zeros(1), "convs.1.skip.0.kernel": FILTER}
    torch.save(mmcv(generator, discriminator=critic, perceptual_loss=vgg), foreign)
    del state, generator, model
    found = recognise(foreign)
    assert convert(foreign, ours) == recognise_again(found)
    net = load_model(ours)
    meta = load_tensors(ours, kind="panini-net")[1]
    foreign.unlink()
    ours.unlink()
    return SimpleNamespace(found=found, net=net, meta=meta)


def recognise_again(found):
    """What `convert` says has one sentence more: it has made the mean style."""
    note = "the mean style is estimated from 4096 latents: the file has none"
    return type(found)(**(vars(found) | {"notes": (*found.notes, note)}))


@pytest.mark.parametrize(
    ("task", "seed", "in_size", "parameters"),
    [("mfr", 1, 512, 94_339_836), ("sr", 2, 64, 108_847_096)],
)
def test_the_authors_file_computes_what_their_code_computes(
    task, seed, in_size, parameters, tmp_path
):
    made = through_files(task, tmp_path)
    found = made.found
    assert (found.format, found.kind) == ("authors", "panini-net")
    assert found.task == {"mfr": "mfr", "sr": "sr16"}[task]
    assert (found.size, found.parameters, found.channel_multiplier) == (1024, parameters, 2)
    assert not found.ema
    assert found.left_aside == {
        "state_dict.discriminator": 2,
        "state_dict.perceptual_loss.": 2,
        "optimizer.": 8,
    }
    assert made.meta["provenance"]["source"] == f"panini_{task}_latest.pth"
    assert len(made.meta["provenance"]["sha256"]) == 64
    with torch.inference_mode():
        out = made.net(golden.uniform(seed, (1, 3, in_size, in_size)))
    arrays = golden.panini_arrays(out)
    golden.compare(f"panini_{task}", arrays | ({"dre": out.degradation} if task == "mfr" else {}))


def test_the_moco_file_gives_the_degradation_encoder(tmp_path):
    encoder = DegradationEncoder()
    ours = encoder.state_dict()
    names = authors.encoder_names("generator.deg_encoder.")
    tensors = {
        theirs.removeprefix("generator.deg_encoder."): golden.synthetic_tensor(
            theirs, tuple(ours[name].shape)
        )
        for theirs, name in names.items()
    }
    state = {f"module.encoder_q.{name}": tensor for name, tensor in tensors.items()}
    state |= {f"module.encoder_k.{name}": tensor.clone() for name, tensor in tensors.items()}
    state |= {"module.queue": torch.zeros(256, 32), "module.queue_ptr": torch.zeros(1).long()}
    momentum = {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": []}
    path = tmp_path / "moco_checkpoint_0199.pth.tar"
    torch.save({"epoch": 200, "arch": "x", "state_dict": state, "optimizer": momentum}, path)
    found = recognise(path)
    assert (found.format, found.kind, found.size) == ("moco", "degradation-encoder", None)
    assert found.parameters == 1_278_784
    convert(str(path), str(tmp_path / "dre.safetensors"))
    for source in (path, tmp_path / "dre.safetensors"):
        loaded = load_degradation_encoder(source)
        with torch.inference_mode():
            v = loaded(golden.uniform(1, (1, 3, 512, 512)))
        with np.load(golden.GOLDEN / "panini_mfr.npz") as arrays:
            expected = torch.from_numpy(arrays["dre"])
        error = ((v - expected).norm() / expected.norm()).item()
        print(f"dre of {source.name}: {error:.1e}")
        assert error < golden.TOLERANCE
    assert "expected a StyleGAN2 prior or mobile prior, found a degradation" in error_of(
        load_prior, path
    )


def test_a_network_gives_its_degradation_encoder(tmp_path):
    tiny = PaniniNet.named("tiny").eval()
    bare = PaniniNet(replace(tiny.config, degradation_encoder=None))
    for net, name in ((tiny, "whole"), (bare, "bare")):
        save_model(net, tmp_path / f"{name}.safetensors", provenance={})
    found = load_degradation_encoder(tmp_path / "whole.safetensors")
    own = tiny.degradation_encoder.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in found.state_dict().items())
    assert "bare.safetensors: this network has no degradation encoder" in error_of(
        load_degradation_encoder, tmp_path / "bare.safetensors"
    )


# ----------------------------------------------------------------------------------------------
# StyleGAN2 priors


def golden_generator() -> StyleGAN2:
    """The generator of the golden values."""
    names = stylegan2.counted_names(stylegan2.MMGEN, StyleGAN2Config(), "generator.generator.")
    net = StyleGAN2().requires_grad_(False)
    state = net.state_dict()
    shapes = {theirs: tuple(state[ours].shape) for theirs, ours in names.items()}
    for theirs, ours in names.items():
        state[ours].copy_(golden.synthetic_tensor(theirs, shapes[theirs]))
    net.w_avg.copy_(stylegan2.mean_style(state, net.config))
    return net


def test_the_golden_generator_comes_back_from_each_format(tmp_path, nvidia):
    net = golden_generator()
    mmgen = {f"generator_ema.{k}": v for k, v in counted_tensors(net, stylegan2.MMGEN).items()}
    torch.save({"state_dict": mmgen, "meta": {}}, tmp_path / "mmgen.pth")
    rosinality = {"g_ema": counted_tensors(net, stylegan2.ROSINALITY), "latent_avg": net.w_avg}
    torch.save(rosinality, tmp_path / "rosinality.pt")
    nvidia({"G_ema": nvidia.module(nvidia.tensors(net))}, tmp_path / "nvidia.pkl")
    for source in ("mmgen.pth", "rosinality.pt", "nvidia.pkl"):
        out = tmp_path / "out.safetensors"
        found = convert(tmp_path / source, out, overwrite=True)
        assert (found.kind, found.size, found.ema) == ("stylegan2-prior", 1024, True)
        assert (found.channel_multiplier, found.parameters) == (2, 30_370_060)
        (tmp_path / source).unlink()
        state, _ = load_tensors(out, kind="stylegan2-prior")
        assert state.keys() == net.state_dict().keys()
        # Bit for bit: what one of them computes, all compute.
        assert all(torch.equal(state[name], t) for name, t in net.state_dict().items())
    prior = load_prior(out)
    out.unlink()
    rng = np.random.Generator(np.random.PCG64(3))
    z = torch.from_numpy(rng.standard_normal((2, 512), dtype=np.float32))
    with torch.inference_mode():
        w = prior.mapping(z)
        image = prior.synthesis(prior.broadcast(w[:1]))
    golden.compare("stylegan2", golden.image_arrays(image) | {"w": w})


def upsampled(x: Tensor, up: int, before: int, after: int, gain: float) -> Tensor:
    """NVIDIA's upfirdn2d as their comments define it: zeros between, pad, filter."""
    if up == 2:
        wide = x.new_zeros(*x.shape[:2], x.shape[2] * 2, x.shape[3] * 2)
        wide[:, :, ::2, ::2] = x
        x = wide
    x = F.pad(x, (before, after, before, after))
    kernel = (FILTER.to(x) * gain).expand(x.shape[1], 1, 4, 4)
    return F.conv2d(x, kernel, groups=x.shape[1])


def nvidia_layer(t: dict[str, Tensor], name: str, x: Tensor, w: Tensor) -> Tensor:
    """Their synthesis layer by its definition, not by the fast path that programs take.

    Upsampling: zeros, filter with gain 4, then a true convolution (the kernel is turned).
    """
    weight, gain = t[f"{name}.weight"], 1 / math.sqrt(w.shape[1])
    style = w @ (t[f"{name}.affine.weight"] * gain).T + t[f"{name}.affine.bias"]
    if name.endswith("torgb"):
        weight = weight * style[0][:, None, None] / math.sqrt(weight.shape[1])
        rgb = F.conv2d(x, weight) + t[f"{name}.bias"][:, None, None]
        return rgb.clamp(-256, 256)
    weight = weight * style[0][:, None, None]
    weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
    if name.endswith("conv0"):
        x = F.conv2d(upsampled(x, 2, 3, 2, 4.0), weight.flip((2, 3)))
    else:
        x = F.conv2d(x, weight, padding=1)
    x = x + t[f"{name}.noise_const"] * t[f"{name}.noise_strength"]
    x = F.leaky_relu(x + t[f"{name}.bias"][:, None, None], 0.2) * math.sqrt(2)
    return x.clamp(-256, 256)


def nvidia_image(t: dict[str, Tensor], ws: Tensor) -> Tensor:
    """Their synthesis network: architecture skip."""
    x, image, index = t["synthesis.b4.const"][None], None, 0
    for level in (4 << i for i in range(10) if f"synthesis.b{4 << i}.conv1.weight" in t):
        for layer in ("conv0", "conv1")[level == 4 :]:
            x = nvidia_layer(t, f"synthesis.b{level}.{layer}", x, ws[:, index])
            index += 1
        rgb = nvidia_layer(t, f"synthesis.b{level}.torgb", x, ws[:, index])
        image = rgb if image is None else upsampled(image, 2, 2, 1, 4.0) + rgb
    assert image is not None
    return image


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_nvidias_formulas_give_the_same_image(nvidia, protocol):
    net = small_generator()
    tensors = nvidia.tensors(net)
    # Half-precision blocks keep their weights in another order of axes.
    key = "synthesis.b64.conv1.weight"
    module = nvidia.module(tensors | {key: tensors[key].to(memory_format=torch.channels_last)})
    path = nvidia({"G": nvidia.module(tensors), "G_ema": module, "D": None}, protocol=protocol)
    prior = load_prior(path)
    assert isinstance(prior, StyleGAN2)
    assert prior.config == SMALL
    ws = torch.randn(1, prior.num_ws, 12, generator=torch.Generator().manual_seed(1))
    expected = nvidia_image({k: t.double() for k, t in tensors.items()}, ws.double())
    error = ((prior.synthesis(ws) - expected).norm() / expected.norm()).item()
    z = torch.randn(3, 12, generator=torch.Generator().manual_seed(2)).double()
    w = z / (z.square().mean(1, keepdim=True) + 1e-8).sqrt()
    for i in range(2):
        weight, bias = (tensors[f"mapping.fc{i}.{part}"].double() for part in ("weight", "bias"))
        w = F.leaky_relu(w @ (weight * 0.01 / math.sqrt(12)).T + bias * 0.01, 0.2) * math.sqrt(2)
    w_error = ((prior.mapping(z.float()) - w).norm() / w.norm()).item()
    print(f"NVIDIA's formulas, protocol {protocol}: image {error:.1e}, w {w_error:.1e}")
    assert max(error, w_error) < 1e-5


def test_nvidias_file_says_what_it_is(nvidia, tmp_path):
    net = small_generator()
    module = nvidia.module(nvidia.tensors(net), lr_mul=np.float64(0.02))
    path = nvidia({"G": nvidia.module(nvidia.tensors(net)), "G_ema": module})
    found = recognise(path)
    assert (found.format, found.size, found.ema) == ("nvidia", 64, True)
    assert found.channel_multiplier == SMALL.channel_multiplier
    assert found.config.mapping_lr_mul == 0.02
    assert found.left_aside == {"G.": len(nvidia.tensors(net))}
    assert "clamped to ±256" in found.notes[0]
    assert found.provenance["init_kwargs"]["mapping_kwargs"] == {"num_layers": 8}
    convert(path, tmp_path / "a.safetensors")
    _, meta = load_tensors(tmp_path / "a.safetensors", kind="stylegan2-prior")
    assert meta["provenance"]["init_kwargs"]["z_dim"] == 512
    assert meta["provenance"]["ema"] is True


def test_a_number_too_long_to_print_is_told_by_its_type(nvidia, tmp_path):
    module = nvidia.module(nvidia.tensors(small_generator()))
    module._init_kwargs |= {"n": 10**5000, "deep": {"n": [-(10**5000), 7]}}
    path, out = nvidia({"G_ema": module}), tmp_path / "a.safetensors"
    assert convert(path, out).provenance["init_kwargs"]["n"] == "int"
    assert recognise(out).provenance["init_kwargs"]["deep"] == {"n": ["int", 7]}


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize("size", [32, 256])
def test_sizes_and_depths_are_read_off_the_shapes(name, size, tmp_path):
    config = StyleGAN2Config(
        size=size, style_dim=8, mapping_layers=3, channel_multiplier=size / 4096, max_channels=24
    )
    net = small_generator(config)
    path = tmp_path / "a.pt"
    tensors = counted_tensors(net, DIALECTS[name])
    torch.save({"g_ema": tensors} if name == "rosinality" else mmcv(tensors), path)
    prior = load_prior(path)
    assert prior.config == config
    again = prior.w_avg.clone()
    torch.testing.assert_close(again, stylegan2.mean_style(net.state_dict(), config))
    z = torch.randn(1, 8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(prior(z), net(z))


def test_the_moving_average_is_preferred(tmp_path):
    trained, average = small_generator(seed=1), small_generator(seed=2)
    for name, dialect in DIALECTS.items():
        path = tmp_path / f"{name}.pt"
        two = [counted_tensors(net, dialect) for net in (trained, average)]
        args = argparse.Namespace(size=64, path="data")
        if name == "mmgen":
            torch.save(mmcv(two[0], generator_ema=two[1]), path)
        else:
            content = {"g": two[0], "d": {"x": torch.zeros(2)}, "g_ema": two[1], "args": args}
            torch.save(content | {"g_optim": adam(two[0], 2), "ada_aug_p": 0.1}, path)
        assert recognise(path).ema
        assert torch.equal(load_prior(path).constant, average.constant)


def test_the_old_format_of_torch_save_is_read(tmp_path):
    net = small_generator()
    path = tmp_path / "550000.pt"
    content = {"g_ema": counted_tensors(net, stylegan2.ROSINALITY), "latent_avg": net.w_avg}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    prior = load_prior(path)
    for (name, tensor), again in zip(
        net.state_dict().items(), prior.state_dict().values(), strict=True
    ):
        assert torch.equal(tensor, again), name


def test_a_bare_state_dict_in_safetensors_is_read(tmp_path):
    net = small_generator()
    path = tmp_path / "bare.safetensors"
    save_file(counted_tensors(net, stylegan2.MMGEN), path)
    assert recognise(path).format == "mmgen"
    assert torch.equal(load_prior(path).constant, net.constant)


def test_converted_twice_is_the_same(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"g_ema": counted_tensors(small_generator(), stylegan2.ROSINALITY)}, path)
    once, twice = tmp_path / "1.safetensors", tmp_path / "2.safetensors"
    convert(path, once)
    convert(once, twice)
    assert recognise(twice).provenance == recognise(once).provenance
    assert recognise(twice).provenance["source"] == "a.pt"
    first, second = read(once).state, read(twice).state
    assert all(torch.equal(first[name], second[name]) for name in first)


# ----------------------------------------------------------------------------------------------
# What is not mapped


def test_every_tensor_is_used_once_and_none_is_missing(tmp_path):
    tensors = counted_tensors(small_generator(), stylegan2.ROSINALITY)
    path = tmp_path / "a.pt"

    def complaint(**changes) -> str:
        changed = {name: t for name, t in (tensors | changes).items() if t is not None}
        torch.save({"g_ema": changed, "d": {}, **extra}, path)
        message = error_of(recognise, path)
        assert message.startswith(f"{path}: ")
        return message

    extra: dict = {}
    assert "1 of its tensors are missing: 'to_rgbs.0.bias'" in complaint(**{"to_rgbs.0.bias": None})
    assert "1 of its tensors are missing: 'conv1.noise.weight'" in complaint(
        **{"conv1.noise.weight": None}
    )
    assert "1 of its tensors are unknown: 'extra'" in complaint(extra=torch.zeros(1))
    assert "1 misshapen tensors, first: 'blocks.8.conv0.bias' (7,) for (16,)" in complaint(
        **{"convs.0.activate.bias": torch.zeros(7)}
    )
    assert "numbers of type torch.int64" in complaint(
        **{"convs.0.activate.bias": torch.zeros(16).long()}
    )
    other = {"convs.0.conv.blur.kernel": FILTER}
    assert "filter 'convs.0.conv.blur.kernel' is not [1, 3, 3, 1]" in complaint(**other)
    assert "a StyleGAN2 without 'input.input'" in complaint(**{"input.input": None})
    extra = {"h": torch.zeros(3)}
    assert "unknown tensor 'h'" in complaint()


def test_a_conversion_that_would_repeat_numbers_is_refused(tmp_path):
    tensors = counted_tensors(small_generator(), stylegan2.ROSINALITY)
    tensors["convs.1.activate.bias"] = tensors["convs.0.activate.bias"]
    torch.save({"g_ema": tensors}, tmp_path / "a.pt")
    message = error_of(recognise, tmp_path / "a.pt")
    assert message.endswith("blocks.8.conv1.bias and blocks.8.conv0.bias share their numbers")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"mapping.embed.weight": torch.zeros(12, 10)}, "class labels"),
        ({"synthesis.b8.skip.weight": torch.zeros(16, 16, 1, 1)}, "unknown: 'synthesis.b8.skip"),
        ({"synthesis.b8.torgb.weight": torch.zeros(4, 16, 1, 1)}, "misshapen"),
    ],
)
def test_other_generators_of_nvidia_are_refused(nvidia, change, reason):
    module = nvidia.module(nvidia.tensors(small_generator()) | change)
    assert reason in error_of(recognise, nvidia({"G_ema": module}))


def test_another_activation_is_refused(nvidia):
    module = nvidia.module(nvidia.tensors(small_generator()), activation="relu")
    assert "whose activation is not 'lrelu'" in error_of(recognise, nvidia({"G_ema": module}))


def test_formats_that_compute_something_else_say_so(tmp_path):
    path = tmp_path / "model_1.pt"
    block = {"GE.blocks.0.to_style1.weight": torch.zeros(4, 4), "GE.initial_block": torch.zeros(1)}
    torch.save({"GAN": block, "version": "1.8.9"}, path)
    assert "lucidrains' stylegan2-pytorch, which is another function" in error_of(recognise, path)
    torch.save({"synthesis.input.freqs": torch.zeros(4, 2)}, path)
    assert "StyleGAN3, which has no features at 4 to 64 px" in error_of(recognise, path)
    torch.save({"model": {"layer.weight": torch.zeros(3)}}, path)
    message = error_of(recognise, path)
    assert "1 tensors of no known format (authors, moco, mmgen, rosinality, nvidia)" in message
    assert message.endswith("such as 'model.layer.weight'")
    torch.save({"epoch": 3}, path)
    assert error_of(recognise, path) == f"{path}: it holds no tensors"


def test_a_file_of_another_kind_is_told_apart(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"g_ema": counted_tensors(small_generator(), stylegan2.ROSINALITY)}, path)
    assert error_of(load_model, path) == f"{path}: expected a Panini-Net, found a StyleGAN2 prior"


def test_what_is_there_is_not_overwritten(tmp_path):
    path, out = tmp_path / "a.pt", tmp_path / "a.safetensors"
    torch.save({"g_ema": counted_tensors(small_generator(), stylegan2.ROSINALITY)}, path)
    out.write_bytes(b"mine")
    assert "exists already; add --overwrite" in error_of(convert, path, out)
    assert "expected a name that ends in .safetensors" in error_of(convert, path, path)
    assert out.read_bytes() == b"mine"


def test_a_config_that_lies_is_refused_before_anything_is_built(tmp_path):
    path = tmp_path / "a.safetensors"
    config = PaniniNet.named("mfr-1024").config.to_dict() if False else None
    for part, field, value in itertools.chain(
        [("encoder", "rrdb_blocks", 60_000), ("encoder", "rrdb_channels", 10**12)],
        [("prior", "mapping_layers", 50_000), ("prior", "style_dim", float("inf"))],
    ):
        config = json.loads(json.dumps(named_config("mfr-1024").to_dict()))
        config[part][field] = value
        save_tensors({"a": torch.zeros(1)}, path, kind="panini-net", meta={"config": config})
        assert "its configuration is unusable: a number of" in error_of(recognise, path)
    config = named_config("mfr-1024").to_dict()
    save_tensors({"a": torch.zeros(1)}, path, kind="panini-net", meta={"config": config})
    assert "missing tensors" in error_of(recognise, path)


def test_a_network_keeps_the_prior_that_restoration_changed(tmp_path):
    before = PaniniNet(named_config("tiny")).prior
    net = PaniniNet(named_config("tiny"))
    net.prior.load_state_dict(before.state_dict())
    with torch.no_grad():
        for module in net.prior.modules_above(32):
            for parameter in module.parameters():
                parameter.add_(0.5)
    path = tmp_path / "net.safetensors"
    save_model(net, path, provenance={}, prior=before)
    kept = load_network_prior(path).state_dict()
    changed = load_model(path).prior.state_dict()
    for name, tensor in before.state_dict().items():
        assert torch.equal(kept[name], tensor)
    assert any(not torch.equal(changed[name], kept[name]) for name in kept)
    assert recognise(path).tensors == len(net.state_dict())
    with safe_open(path, "pt") as file:
        names = [name for name in file.keys() if name.startswith("own_prior.")]  # noqa: SIM118
    assert len(names) == sum(not torch.equal(changed[name], kept[name]) for name in kept)
    # Without one, it is the prior inside.
    save_model(net, path, provenance={})
    assert all(torch.equal(changed[n], t) for n, t in load_network_prior(path).state_dict().items())


def test_a_conversion_keeps_the_prior_as_it_was(tmp_path):
    before = PaniniNet(named_config("tiny")).prior
    net = PaniniNet(named_config("tiny"))
    save_model(net, tmp_path / "net.safetensors", provenance={}, prior=before)
    convert(tmp_path / "net.safetensors", tmp_path / "again.safetensors")
    for name, tensor in load_network_prior(tmp_path / "again.safetensors").state_dict().items():
        assert torch.equal(tensor, before.state_dict()[name])


def test_what_lies_on_the_hub_can_be_converted(tmp_path, monkeypatch):
    net = PaniniNet(named_config("tiny"))
    save_model(net, tmp_path / "net.safetensors", provenance={})
    monkeypatch.setattr(hub, "fetch", {"hf://me/net": tmp_path / "net.safetensors"}.__getitem__)
    out = tmp_path / "here.safetensors"
    assert CliRunner().invoke(app, ["convert", "hf://me/net", str(out)]).exit_code == 0
    assert recognise(out).kind == "panini-net"
