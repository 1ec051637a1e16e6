"""What a request may ask for: checked, and nothing unknown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError, ValidationInfo, field_validator

from panini.config import Config
from panini.editing import parse_bias
from panini.errors import ConfigError
from panini.faces.select import ALL, parse_choice
from panini.restored import check_bias


class RestoreRequest(Config):
    """How a photo is to be restored; the names are those of `panini restore`."""

    upscale: Literal[1, 2, 4] = 1
    """Enlarges the rest of the photo."""
    prior_bias: float | dict[int, float] = 0.0
    """From -3 to 3: above 0 trusts the face generator more; also by level, {64: 1.0}."""
    min_face: float = Field(default=24.0, ge=12, allow_inf_nan=False)
    """Least largest side of a face, px."""
    faces: str | int = "all"
    """all, largest, center, or a face's number."""
    consistent: bool = False
    """Faces drawn by super-resolution agree with the photo once they are reduced again."""
    keep_colour: bool = False
    """A grey photo gets its faces' colours."""
    aligned: bool = False
    """The photo is a square crop of one face, aligned already."""
    format: Literal["avif", "jpg", "png", "tif", "webp"] | None = None
    """Of the answer; None keeps the photo's own where it can be written, and takes PNG else."""
    quality: int | None = Field(default=None, ge=1, le=100)
    """Of AVIF, JPEG and WebP; None is the default of `panini restore`."""

    @field_validator("upscale", mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        return int(value) if isinstance(value, str) and value.isdigit() else value

    @field_validator("prior_bias", mode="before")
    @classmethod
    def _bias(cls, value: Any) -> Any:
        try:
            return parse_bias(value) if isinstance(value, str) else check_bias(value)
        except ConfigError as error:
            raise ValueError(str(error).removeprefix("prior_bias: ")) from error

    @field_validator("faces", mode="before")
    @classmethod
    def _choice(cls, value: Any) -> Any:
        try:
            return parse_choice(value) if isinstance(value, str | int) else value
        except ConfigError as error:
            raise ValueError(str(error).removeprefix("faces: ")) from error

    @field_validator("aligned")
    @classmethod
    def _alone(cls, value: bool, info: ValidationInfo) -> bool:
        # The fields before it are checked already: a bad one is missing here, and is told first.
        if value and info.data.get("upscale", 1) != 1:
            raise ValueError("upscale enlarges the rest of a photo: an aligned face has none")
        if value and info.data.get("faces", ALL) != ALL:
            raise ValueError("faces chooses among the faces of a photo: an aligned crop is one")
        return value


class ExplainRequest(Config):
    """What is to be explained."""

    face: int = Field(default=1, ge=1)
    """Which face, 1 for the largest."""
    variations: int = Field(default=8, ge=2, le=16)
    """Equally plausible faces that the invention map is made of."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Of the variations: the same seed, the same map."""
    min_face: float = Field(default=24.0, ge=12, allow_inf_nan=False)
    """Least largest side of a face, px."""
    aligned: bool = False
    """The photo is a square crop of one face, aligned already."""

    @field_validator("aligned")
    @classmethod
    def _alone(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("face", 1) != 1:
            raise ValueError("face chooses among the faces of a photo: an aligned crop is one")
        return value


OptionsT = TypeVar("OptionsT", bound=Config)


def read_options(schema: type[OptionsT], values: Mapping[str, Any]) -> OptionsT:
    """Check the values of a request.

    Raises:
        ConfigError: An unknown name or a bad value; the first is told.
    """
    try:
        return schema.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "options"
        if first["type"] == "extra_forbidden":
            known = ", ".join(schema.model_fields)
            raise ConfigError(f"{name}: unknown; known are {known}") from error
        reason = first["msg"].removeprefix("Value error, ")
        reason = reason[0].lower() + reason[1:]
        got = "" if first["type"] == "value_error" else f", got {first['input']!r}"
        raise ConfigError(f"{name}: {reason}{got}") from error
