"""What requests may ask for, and limits."""

from __future__ import annotations

import re

import pytest

from panini.errors import ConfigError
from panini.web.limits import Limits
from panini.web.options import ExplainRequest, RestoreRequest, read_options


def test_forms_and_json_mean_the_same() -> None:
    form = {
        "upscale": "2",
        "prior_bias": "64=1,32=-0.5",
        "min_face": "30",
        "faces": "2",
        "keep_colour": "true",
        "format": "webp",
        "quality": "80",
    }
    json = {
        "upscale": 2,
        "prior_bias": {"64": 1, "32": -0.5},
        "min_face": 30,
        "faces": 2,
        "keep_colour": True,
        "format": "webp",
        "quality": 80,
    }
    asked = read_options(RestoreRequest, form)
    assert asked == read_options(RestoreRequest, json)
    assert asked.prior_bias == {64: 1.0, 32: -0.5}
    assert read_options(RestoreRequest, {"prior_bias": "1.5"}).prior_bias == 1.5
    assert read_options(RestoreRequest, {"faces": "Largest"}).faces == "largest"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"upscale": 3}, "upscale: input should be 1, 2 or 4, got 3"),
        ({"upscale": "x"}, "upscale: input should be 1, 2 or 4, got 'x'"),
        ({"prior_bias": 4}, "prior_bias: expected -3 to 3, got 4"),
        ({"prior_bias": {"64": -5}}, "prior_bias: expected -3 to 3, got -5"),
        ({"prior_bias": float("nan")}, "prior_bias: expected -3 to 3, got nan"),
        (
            {"prior_bias": [1]},
            "prior_bias: expected a number, or numbers by level ({64: 1.0}), got [1]",
        ),
        ({"prior_bias": 10**400}, "prior_bias: expected -3 to 3, got 1000"),
        ({"prior_bias": {"fine": 1}}, "prior_bias: expected a level in px, got 'fine'"),
        ({"prior_bias": "much"}, "prior bias 'much': expected a number"),
        ({"min_face": 3}, "min_face: input should be greater than or equal to 12, got 3"),
        ({"faces": "everybody"}, "faces: "),
        ({"faces": 0}, "faces: "),
        ({"format": "gif"}, "format: input should be 'avif', 'jpg'"),
        ({"quality": 101}, "quality: input should be less than or equal to 100, got 101"),
        ({"sharpen": 1}, "sharpen: unknown; known are upscale, prior_bias, min_face"),
        (
            {"aligned": "true", "upscale": "2"},
            "aligned: upscale enlarges the rest of a photo: an aligned face has none",
        ),
        (
            {"aligned": True, "faces": 1},
            "aligned: faces chooses among the faces of a photo: an aligned crop is one",
        ),
    ],
)
def test_bad_restore_options(values: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        read_options(RestoreRequest, values)


def test_an_aligned_crop_may_name_what_it_has_anyway() -> None:
    form = {"aligned": "true", "upscale": "1", "faces": "all"}
    assert read_options(RestoreRequest, form).aligned
    assert read_options(ExplainRequest, {"aligned": "true", "face": "1"}).aligned
    with pytest.raises(ConfigError, match=r"^aligned: face chooses among the faces of a photo"):
        read_options(ExplainRequest, {"aligned": "true", "face": "2"})


@pytest.mark.parametrize(
    "values", [{"face": 0}, {"variations": 1}, {"variations": 17}, {"seed": -1}, {"upscale": 2}]
)
def test_bad_explain_options(values: dict) -> None:
    (name,) = values
    with pytest.raises(ConfigError, match=f"^{name}: "):
        read_options(ExplainRequest, values)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"queue": -1}, "queue: expected at least 0, got -1"),
        ({"sessions": 0}, "sessions: expected at least 1, got 0"),
        ({"timeout": 0}, "timeout: expected a number above 0, got 0"),
        ({"max_mb": float("inf")}, "max_mb: expected a number above 0, got inf"),
    ],
)
def test_bad_limits(limits: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Limits(**limits)


def test_limits_in_bytes_and_pixels() -> None:
    limits = Limits(max_mb=1.5, max_megapixels=0.25)
    assert (limits.max_bytes, limits.max_pixels) == (1_500_000, 250_000)
