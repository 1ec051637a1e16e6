from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from panini.consistency import reduce
from panini.errors import ConfigError
from panini.evaluation import System
from panini.peers import PulseConfig, pulse_system

SHORT = PulseConfig(steps=4, drawn_size=64, correct_every=2, candidates=3)


@pytest.fixture(scope="module")
def faces(net) -> torch.Tensor:
    """Two faces that the prior can draw, at 32 px."""
    z = torch.randn(2, 32, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        return reduce(net.prior(z), 32)


def distance(images: torch.Tensor, target: torch.Tensor) -> list[float]:
    return (reduce(images, target.shape[-1]) - target).square().mean(dim=(1, 2, 3)).tolist()


def test_system_draws_a_face_for_each_input(net, faces) -> None:
    system: System = pulse_system(net, SHORT)
    assert (system.name, system.task, system.in_size) == ("pulse", None, 512)
    drawn = system(faces)
    assert drawn.image.shape == (2, 3, 128, 128)
    assert drawn.theta is None
    assert not drawn.image.requires_grad
    assert all(weight.grad is None and weight.requires_grad for weight in net.prior.parameters())


@pytest.mark.parametrize("space", ["z", "w", "w+"])
def test_search_comes_nearer_to_its_input(net, faces, space) -> None:
    config = PulseConfig(space=space, steps=40, candidates=4)
    found = pulse_system(net, config)
    start = pulse_system(net, replace(config, steps=1, learning_rate=1e-9))
    for after, before in zip(
        distance(found(faces).image, faces), distance(start(faces).image, faces), strict=True
    ):
        assert after < 0.6 * before


def test_faces_of_full_size_correct_what_is_drawn_small(net, faces) -> None:
    config = PulseConfig(steps=60, drawn_size=64, correct_every=5, candidates=4)
    blind = replace(config, correct_every=1000)
    (aware, _), (unaware, _) = (
        distance(pulse_system(net, one)(faces).image, faces) for one in (config, blind)
    )
    assert aware < unaware


def test_a_face_is_the_same_alone_in_company_and_in_inference_mode(net, faces) -> None:
    system = pulse_system(net, SHORT)
    both = system(faces).image
    again = pulse_system(net, SHORT)(faces[1:]).image
    assert torch.allclose(both[1:], again, atol=1e-5)
    with torch.inference_mode():
        inside = pulse_system(net, SHORT)(faces.clone()).image
    assert torch.equal(both, inside)


def test_random_numbers_of_others_are_left_alone(net, faces) -> None:
    state = torch.get_rng_state()
    pulse_system(net, SHORT)(faces[:1])
    assert torch.equal(state, torch.get_rng_state())


def test_vectors_of_all_layers_lie_on_the_sphere_and_unseen_ones_between(net) -> None:
    system = pulse_system(net, SHORT)
    assert system.layers == 10
    u = torch.zeros(1, 10, 32)
    u[:, :5, 0] = u[:, 5:, 1] = math.sqrt(32)
    between = torch.zeros(32)
    between[:2] = 4  # at √32, halfway between the two axes
    ws = system.ws(u)
    assert ws.shape == (1, 14, 32)
    assert torch.allclose(ws[0, 10:], system.styles(between).expand(4, -1), atol=1e-6)
    assert torch.allclose(ws[0, :5], system.styles(u[0, 0]).expand(5, -1), atol=1e-6)


def test_large_inputs_are_compared_where_they_still_say_something(net, monkeypatch) -> None:
    system = pulse_system(net, replace(SHORT, drawn_size=128))
    seen: list[tuple[int, ...]] = []
    search = system.search
    monkeypatch.setattr(
        system, "search", lambda target: seen.append(target.shape) or search(target)
    )
    lq = torch.rand(2, 3, 512, 512, generator=torch.Generator().manual_seed(0))
    image = system(lq, low_sides=[100, 16]).image
    assert seen == [(1, 3, 16, 16), (1, 3, 64, 64)]
    assert image.shape == (2, 3, 128, 128)
    seen.clear()
    system(lq[:1])
    assert seen == [(1, 3, 64, 64)]  # noise is detail of every size


def test_identity_tells_weights_and_settings(net) -> None:
    one, again = (pulse_system(net, SHORT).identity for _ in range(2))
    assert one == again
    assert pulse_system(net.prior, replace(SHORT, steps=5)).identity != one
    with torch.no_grad():
        net.prior.w_avg.add_(1)
        changed = pulse_system(net, SHORT).identity
        net.prior.w_avg.sub_(1)
    assert changed != one


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"space": "v"}, "pulse: expected a space among z, w, w\\+, got 'v'"),
        ({"steps": 0}, "pulse: expected steps above 0, got 0"),
        ({"learning_rate": float("nan")}, "pulse: expected learning_rate above 0, got nan"),
        ({"geocross": -1.0}, "pulse: expected geocross of at least 0, got -1.0"),
        ({"drawn_size": 100}, "drawn_size to be a power of two from 32, got 100"),
        ({"drawn_size": 16}, "drawn_size to be a power of two from 32, got 16"),
    ],
)
def test_bad_settings_are_refused(setting, message) -> None:
    with pytest.raises(ConfigError, match=message):
        PulseConfig(**setting)


def test_learning_rate_rises_falls_and_ends_near_nothing() -> None:
    config = PulseConfig()
    rates = [config.rate(step) for step in range(config.steps)]
    assert max(rates) == config.learning_rate
    assert rates[0] < 0.2 * config.learning_rate
    assert rates[-1] < 0.02 * config.learning_rate
    assert [step for step in range(100) if config.corrects(step)] == list(range(30, 100, 10))
