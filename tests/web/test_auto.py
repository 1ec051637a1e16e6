"""Two networks behind the page and the API: each face says which one drew it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from panini.checkpoints import save_model
from panini.errors import ConfigError
from panini.models.panini_net import PaniniNet
from panini.restorer import Restorer
from panini.web.limits import Limits
from panini.web.options import ExplainRequest, RestoreRequest
from panini.web.service import Service

if TYPE_CHECKING:
    from .conftest import Known


@pytest.fixture(scope="module")
def files(net: PaniniNet, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("weights")
    encoder = replace(net.config.encoder, in_size=64, unshuffle=1)
    small = PaniniNet(replace(net.config, task="sr16", encoder=encoder, degradation_encoder=None))
    for name, each in (("large", net), ("small", small)):
        save_model(each, folder / f"{name}.safetensors", provenance={})
    return folder / "large.safetensors", folder / "small.safetensors"


@pytest.fixture
def two(files: tuple[Path, Path], known: Known) -> Iterator[Service]:
    restorer = Restorer.from_pair(*files, device="cpu")
    restorer.__dict__["detector"] = known  # faces of 110 and 70 px
    service = Service(restorer, Limits(timeout=300.0))
    yield service
    service.close()


def test_the_answer_says_which_network_drew_which_face(two: Service, photo: bytes) -> None:
    pytest.importorskip("fastapi", reason="the extra web is not installed")
    from panini.web.api import describe_face, describe_models, picture_response

    written = two.restore(photo, RestoreRequest())
    told = [describe_face(n, face) for n, face in enumerate(written.restoration.faces, 1)]
    assert [face["model"] for face in told] == ["large.safetensors", "small.safetensors"]
    assert [face["theta_fixed"] for face in told] == [False, True]
    headers = picture_response(written).headers
    assert headers["x-panini-models"] == "large.safetensors,small.safetensors"
    loaded = describe_models(two)["loaded"]
    assert loaded["small_faces"] == {"name": "small.safetensors", "below_px": 96.0}


def test_consistent_changes_the_small_face(two: Service, service: Service, photo: bytes) -> None:
    plain, consistent = (
        two.restore(photo, RestoreRequest(consistent=wanted)).restoration.faces
        for wanted in (False, True)
    )
    same = [
        np.array_equal(np.asarray(a.restored), np.asarray(b.restored))
        for a, b in zip(plain, consistent, strict=True)
    ]
    assert same == [True, False]
    with pytest.raises(ConfigError, match="consistent: is for faces drawn by a network for sr16"):
        service.restore(photo, RestoreRequest(consistent=True))


def test_a_small_face_is_explained_and_edited(two: Service, photo: bytes) -> None:
    explained = two.explain(photo, ExplainRequest(face=2, variations=2))
    assert explained.face.model == "small.safetensors"
    session = two.open("page", photo, "a.png")
    captions = [caption for _, caption in session.gallery()]
    assert captions[0].startswith("large.safetensors, θ 0.")
    assert captions[1].startswith("small.safetensors, θ 0.")
    assert captions[1].endswith(", the same for every face")
    before = [face.drawn.theta for face in session.faces]
    session.set_bias(2.0)
    assert all(face.drawn.theta > theta for face, theta in zip(session.faces, before, strict=True))
    assert len(session.vary(1, 2, seed=0)) == 2
    session.take(1)
    assert session.result.mark.settings["models"] == ["large.safetensors", "small.safetensors"]
