"""How much memory `panini convert` needs for a large checkpoint of the authors' layout.

    python benchmarks/convert_memory.py --gb 1.5

Makes a synthetic file in a temporary folder (generator, discriminator, the optimizers' state and
a loss network, as their training framework stores them), converts it in a process of its own and
prints the file's size and the process's peak. The demand: peak < size + 1 GB. Linux only.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

GB = 10**9

# Peak resident memory of the process itself, mapped files counted in.
CHILD = """
import sys
from panini.cli.main import app
sys.argv = ["panini", "convert", {source!r}, {out!r}]
try:
    app()
finally:
    status = open("/proc/self/status").read()
    print("PEAK", int(status.split("VmHWM:")[1].split()[0]) * 1024)
"""
MAKER = """
import runpy
runpy.run_path({script!r})["make"]({path!r}, {size})
"""


def make(path: str, size: int) -> None:
    """Write a checkpoint of about `size` bytes; runs in a process of its own."""
    import torch
    from torch import Tensor

    from panini.checkpoints.convert import authors
    from panini.models.panini_net import PaniniNet
    from panini.models.stylegan2 import Discriminator

    # Few values differ from zero: the memory that holds the rest is never touched.
    generator = torch.Generator().manual_seed(0)

    def sparse(shape: tuple[int, ...]) -> Tensor:
        tensor = torch.zeros(shape)
        places = tensor.view(-1)[::4099]
        places.copy_(torch.randn(len(places), generator=generator))
        return tensor

    with torch.device("meta"):
        ours = PaniniNet.named("mfr-1024").state_dict()
        critic = Discriminator().state_dict()
    state: dict[str, Tensor] = {}
    for names, own in ((authors.mfr_names(), ours), (authors.discriminator_names(), critic)):
        for theirs, name in names.items():
            shape, counted = tuple(own[name].shape), own[name].dtype == torch.int64
            if theirs.startswith("generator.generator.") and theirs.endswith("conv.weight_orig"):
                shape = (1, *shape)
            elif name.endswith("to_rgb.bias"):
                shape = (1, *shape, 1, 1)
            state[theirs] = torch.zeros(shape, dtype=torch.int64) if counted else sparse(shape)
    moments = {
        index: {
            "step": 150_000,
            "exp_avg": sparse(tuple(t.shape)),
            "exp_avg_sq": sparse(tuple(t.shape)),
        }
        for index, t in enumerate(state.values())
        if t.is_floating_point()
    }
    used = 4 * 3 * sum(t.numel() for t in state.values())
    rest = max(size - used, 0) // 4
    state["perceptual_loss.vgg.vgg_layers.0.weight"] = sparse((rest,))
    optimizer = {"state": moments, "param_groups": [{"lr": 1e-4, "params": list(moments)}]}
    meta = {"iter": 150_000, "epoch": 8, "mmedit_version": "0.8.0"}
    torch.save({"meta": meta, "state_dict": state, "optimizer": {"generator": optimizer}}, path)


def run(code: str) -> str:
    """Output of a fresh interpreter."""
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.stdout)
    return done.stdout


def main() -> int:
    """Make, convert, print; 1 if the demand is not met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gb", type=float, default=1.5, help="size of the checkpoint, 10^9 bytes")
    size = int(parser.parse_args().gb * GB)
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "panini_mfr.pth", Path(folder) / "out.safetensors"
        run(MAKER.format(script=str(Path(__file__).resolve()), path=str(source), size=size))
        size = source.stat().st_size
        output = run(CHILD.format(source=str(source), out=str(out)))
        written = out.stat().st_size
    print(output.split("PEAK")[0].strip())
    peak = int(output.split("PEAK")[1])
    print(f"checkpoint      {size / GB:6.2f} GB")
    print(f"written         {written / GB:6.2f} GB")
    print(f"peak memory     {peak / GB:6.2f} GB")
    print(f"peak less size  {(peak - size) / GB:+6.2f} GB (demanded: below +1)")
    return int(peak >= size + GB)


if __name__ == "__main__":
    sys.exit(main())
