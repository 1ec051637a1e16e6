"""FID's Inception against its layers written out one by one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from panini.errors import CheckpointError
from panini.features.inception import FidInception, build_inception

FILE = Path("pt_inception-2015-12-05-6726825d.pth")


def random_state(seed=0):
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, value in FidInception().state_dict().items():
        noise = torch.randn(value.shape, generator=generator)
        if name.endswith("conv.weight"):
            state[name] = noise * (2 / value[0].numel()) ** 0.5
        elif name.endswith(("bn.weight", "running_var")):
            state[name] = 1 + 0.2 * noise.clamp(-3, 3)
        elif name.endswith(("bn.bias", "running_mean")):
            state[name] = 0.2 * noise
    return state


@pytest.fixture(scope="module")
def state():
    return random_state()


class Reference:
    """Convolution by name; blocks as the papers draw them."""

    def __init__(self, state):
        self.state = state

    def conv(self, name, x, stride=1, padding=0):
        weight, bias, mean, variance = (
            self.state[f"{name}.bn.{part}"].view(1, -1, 1, 1)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        x = F.conv2d(x, self.state[f"{name}.conv.weight"], stride=stride, padding=padding)
        return ((x - mean) / (variance + 1e-3).sqrt() * weight + bias).relu()

    @staticmethod
    def mean_pool(x):
        """TensorFlow's: at the border only what is there counts."""
        total = F.avg_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 1)
        share = F.avg_pool2d(F.pad(torch.ones_like(x), (1, 1, 1, 1)), 3, 1)
        return total / share

    def a(self, name, x):
        five = self.conv(f"{name}.branch5x5_1", x)
        five = self.conv(f"{name}.branch5x5_2", five, padding=2)
        double = self.conv(f"{name}.branch3x3dbl_1", x)
        double = self.conv(f"{name}.branch3x3dbl_2", double, padding=1)
        double = self.conv(f"{name}.branch3x3dbl_3", double, padding=1)
        pooled = self.conv(f"{name}.branch_pool", self.mean_pool(x))
        return torch.cat([self.conv(f"{name}.branch1x1", x), five, double, pooled], 1)

    def b(self, name, x):
        double = self.conv(f"{name}.branch3x3dbl_1", x)
        double = self.conv(f"{name}.branch3x3dbl_2", double, padding=1)
        double = self.conv(f"{name}.branch3x3dbl_3", double, stride=2)
        three = self.conv(f"{name}.branch3x3", x, stride=2)
        return torch.cat([three, double, F.max_pool2d(x, 3, 2)], 1)

    def c(self, name, x):
        row, column = (0, 3), (3, 0)
        seven = self.conv(f"{name}.branch7x7_1", x)
        seven = self.conv(f"{name}.branch7x7_2", seven, padding=row)
        seven = self.conv(f"{name}.branch7x7_3", seven, padding=column)
        double = self.conv(f"{name}.branch7x7dbl_1", x)
        for number, padding in enumerate((column, row, column, row), start=2):
            double = self.conv(f"{name}.branch7x7dbl_{number}", double, padding=padding)
        pooled = self.conv(f"{name}.branch_pool", self.mean_pool(x))
        return torch.cat([self.conv(f"{name}.branch1x1", x), seven, double, pooled], 1)

    def d(self, name, x):
        three = self.conv(f"{name}.branch3x3_2", self.conv(f"{name}.branch3x3_1", x), stride=2)
        seven = self.conv(f"{name}.branch7x7x3_1", x)
        seven = self.conv(f"{name}.branch7x7x3_2", seven, padding=(0, 3))
        seven = self.conv(f"{name}.branch7x7x3_3", seven, padding=(3, 0))
        seven = self.conv(f"{name}.branch7x7x3_4", seven, stride=2)
        return torch.cat([three, seven, F.max_pool2d(x, 3, 2)], 1)

    def e(self, name, x, pooled):
        three = self.conv(f"{name}.branch3x3_1", x)
        double = self.conv(f"{name}.branch3x3dbl_1", x)
        double = self.conv(f"{name}.branch3x3dbl_2", double, padding=1)
        parts = [self.conv(f"{name}.branch1x1", x)]
        for stem, y in ((f"{name}.branch3x3_2", three), (f"{name}.branch3x3dbl_3", double)):
            parts.append(self.conv(f"{stem}a", y, padding=(0, 1)))
            parts.append(self.conv(f"{stem}b", y, padding=(1, 0)))
        return torch.cat([*parts, self.conv(f"{name}.branch_pool", pooled)], 1)

    def __call__(self, x):
        x = self.conv("Conv2d_1a_3x3", x, stride=2)
        x = self.conv("Conv2d_2a_3x3", x)
        x = F.max_pool2d(self.conv("Conv2d_2b_3x3", x, padding=1), 3, 2)
        x = self.conv("Conv2d_4a_3x3", self.conv("Conv2d_3b_1x1", x))
        x = F.max_pool2d(x, 3, 2)
        for letter in "bcd":
            x = self.a(f"Mixed_5{letter}", x)
        x = self.b("Mixed_6a", x)
        for letter in "bcde":
            x = self.c(f"Mixed_6{letter}", x)
        x = self.d("Mixed_7a", x)
        x = self.e("Mixed_7b", x, self.mean_pool(x))
        x = self.e("Mixed_7c", x, F.max_pool2d(x, 3, 1, 1))
        return x.mean(dim=(2, 3))


def test_it_computes_what_the_layers_one_by_one_do(state):
    x = torch.rand(2, 3, 139, 107, generator=torch.Generator().manual_seed(1)) * 2 - 1
    found, expected = build_inception(state, FILE).describe(x), Reference(state)(x)
    assert expected.std() > 0.05
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_names_and_shapes_are_those_of_the_file():
    network = FidInception()
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    # Torchvision's Inception v3 has 27,161,264, of these 3,326,696 and 2,049,000 in its heads.
    assert sum(p.numel() for p in network.parameters()) == 21_785_568
    assert sum(name.endswith("conv.weight") for name in shapes) == 94
    assert shapes["Conv2d_1a_3x3.conv.weight"] == (32, 3, 3, 3)
    assert shapes["Mixed_5b.branch_pool.conv.weight"] == (32, 192, 1, 1)
    assert shapes["Mixed_6b.branch7x7dbl_5.conv.weight"] == (192, 128, 1, 7)
    assert shapes["Mixed_7a.branch7x7x3_4.bn.running_var"] == (192,)
    assert shapes["Mixed_7c.branch3x3dbl_3b.conv.weight"] == (384, 384, 3, 1)
    assert network.Mixed_7c.branch_pool.bn.eps == 0.001
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())


def test_images_of_any_size_are_brought_to_299_px(state):
    network = build_inception(state, FILE)
    x = torch.rand(1, 3, 80, 64) * 2 - 1
    # Half-pixel centres, no antialias: as pytorch-fid does.
    larger = F.interpolate((x + 1) / 2, (299, 299), mode="bilinear", align_corners=False) * 2 - 1
    torch.testing.assert_close(network(x), network.describe(larger), rtol=1e-4, atol=1e-4)


def test_the_head_and_counters_of_a_file_do_not_matter(state):
    head = {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}
    counters = {"Conv2d_1a_3x3.bn.num_batches_tracked": torch.tensor(7)}
    network = build_inception(state | head | counters, FILE)
    torch.testing.assert_close(
        network.Mixed_7b.branch1x1.conv.weight, state["Mixed_7b.branch1x1.conv.weight"]
    )


def test_other_files_are_refused(state):
    with pytest.raises(CheckpointError, match=r"6726825d\.pth: .*found torchvision's"):
        build_inception(state | {"fc.weight": torch.zeros(1000, 2048)}, FILE)
    with pytest.raises(CheckpointError, match="found torchvision's"):
        build_inception(state | {"AuxLogits.fc.weight": torch.zeros(1000, 768)}, FILE)
    with pytest.raises(CheckpointError, match=r"Conv2d_1a_3x3\.conv\.weight .* found nothing"):
        build_inception({}, FILE)
    wrong = state | {"Mixed_6c.branch1x1.bn.bias": torch.zeros(3)}
    with pytest.raises(CheckpointError, match=r"Mixed_6c\.branch1x1\.bn\.bias \(192,\), found \(3"):
        build_inception(wrong, FILE)
