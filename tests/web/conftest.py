"""A server with a tiny network and a detector that knows the answer."""

from __future__ import annotations

import asyncio
import io
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from panini.faces.align import TEMPLATE
from panini.faces.detect import Face
from panini.models.panini_net import PaniniNet
from panini.restorer import Restorer
from panini.web.limits import Limits
from panini.web.service import Service

ENVIRONMENT = (
    *("GRADIO_ANALYTICS_ENABLED", "GRADIO_TEMP_DIR", "HF_HUB_DISABLE_TELEMETRY"),
    *("TORCHINDUCTOR_CACHE_DIR", "MPLBACKEND", "MPLCONFIGDIR"),
)
"""What build_app writes there."""

WAIT = 300.0
"""Seconds: a process may be stopped for minutes; nothing here waits for it on purpose."""


def face_at(left: float, top: float, side: float) -> Face:
    box = (left, top, left + side, top + side)
    landmarks = (TEMPLATE * side + (left, top)).astype(np.float32)
    return Face(box=box, landmarks=landmarks, score=1.0)


class Known:
    """Finds faces where they are known to be; can be made to wait."""

    def __init__(self, faces: list[Face]) -> None:
        self.faces = faces
        self.calls = 0
        self.began = threading.Event()
        self.gate = threading.Event()
        self.gate.set()

    def detect(self, photo: np.ndarray, *, min_face: float) -> list[Face]:
        self.calls += 1
        self.began.set()
        assert self.gate.wait(WAIT)
        inside = [f for f in self.faces if f.box[2] <= photo.shape[1] and f.size >= min_face]
        return sorted(inside, key=lambda face: -face.size)


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def picture() -> Image.Image:
    """320 x 240 px, soft colours."""
    noise = np.random.default_rng(7).uniform(0, 255, (12, 16, 3)).astype(np.float32)
    soft = cv2.resize(noise, (320, 240), interpolation=cv2.INTER_CUBIC)
    return Image.fromarray(soft.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="session")
def photo(picture: Image.Image) -> bytes:
    return encode(picture)


@pytest.fixture
def known() -> Iterator[Known]:
    detector = Known([face_at(40, 60, 110), face_at(200, 80, 70)])
    yield detector
    detector.gate.set()


@pytest.fixture(scope="session")
def net() -> PaniniNet:
    torch.manual_seed(0)
    return PaniniNet.named("tiny")


@pytest.fixture
def restorer(net: PaniniNet, known: Known) -> Restorer:
    restorer = Restorer(net, device="cpu", name="tiny-test")
    restorer.__dict__["detector"] = known  # where the cached property keeps its own
    return restorer


@pytest.fixture
def make_service(restorer: Restorer) -> Iterator[Callable[..., Service]]:
    made: list[Service] = []

    def make(**limits: float) -> Service:
        made.append(Service(restorer, Limits(**{"timeout": WAIT, **limits})))
        return made[-1]

    yield make
    restorer.detector.gate.set()
    for service in made:
        service.close()


@pytest.fixture
def service(make_service: Callable[..., Service]) -> Service:
    return make_service()


def files_in(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@pytest.fixture
def make_client(
    make_service: Callable[..., Service], known: Known, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., object]]:
    """Starts the whole application in this process; gives a client and its service."""
    pytest.importorskip("gradio", reason="the extra web is not installed")
    from contextlib import ExitStack

    from fastapi.testclient import TestClient

    from panini.web.app import build_app

    # Put back afterwards what build_app writes there.
    for name in ENVIRONMENT:
        monkeypatch.setenv(name, os.environ.get(name, ""))
    stack = ExitStack()

    def make(hosts: tuple[str, ...] | None = None, **limits: float) -> tuple[TestClient, Service]:
        service = make_service(**limits)

        async def build() -> object:
            return build_app(service, hosts)

        # In a loop, because Gradio otherwise makes loops of its own and leaves them open.
        client = TestClient(asyncio.run(build()), base_url="http://127.0.0.1:7860")
        return stack.enter_context(client), service

    with stack:
        yield make
        known.gate.set()
