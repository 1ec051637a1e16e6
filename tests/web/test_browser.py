"""The page in a browser, end to end: `panini serve` in a process of its own, and Chromium.

The network is the tiny one, untrained: it draws no faces, but it draws them differently.
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from panini.checkpoints import save_model
from panini.metadata import DIGITAL_SOURCE_TYPE
from panini.models.panini_net import PaniniNet
from panini.photos import load_photo

pytest.importorskip("gradio", reason="the extra web is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

PHOTO = Path(__file__).parents[2] / "examples" / "astronaut_lq.png"
WAIT = 300.0
"""Seconds: a busy machine may stop a process for minutes."""

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


class Server:
    """`panini serve`, with folders of its own for all that programs write somewhere."""

    def __init__(self, folder: Path) -> None:
        torch.manual_seed(0)
        model = folder / "tiny.safetensors"
        save_model(PaniniNet.named("tiny"), model, provenance={})
        self.temporary, self.home, self.work = (folder / name for name in ("tmp", "home", "work"))
        for path in (self.temporary, self.home, self.work):
            path.mkdir()
        source = Path(sys.modules["panini"].__file__ or "").parents[1]
        environment = os.environ | {
            "HOME": str(self.home),
            "TMPDIR": str(self.temporary),
            "PYTHONPATH": str(source),
            "PYTHONUNBUFFERED": "1",
        }
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-c", "from panini.cli.main import app; app()", "serve"),
                *("--port", "0", "--device", "cpu", "--timeout", str(WAIT), "--model", str(model)),
            ],
            stdout=subprocess.PIPE,
            text=True,
            cwd=self.work,
            env=environment,
        )
        assert self.process.stdout
        (self.url,) = re.findall(r"http://\S+", self.process.stdout.readline())

    def files(self) -> list[str]:
        """Of photos, kept by the server."""
        return [str(path) for path in self.temporary.rglob("*") if path.is_file()]

    def stop(self) -> None:
        """Ask it to end; a second time does nothing."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(WAIT)
        assert self.process.stdout
        self.process.stdout.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=CHROMIUM, args=ARGUMENTS, timeout=WAIT * 1000
        )
        yield browser
        browser.close()


@contextmanager
def opened(browser: object, server: Server) -> Iterator[object]:
    """The page in a browser without a past; it is closed afterwards."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    context.set_default_timeout(WAIT * 1000)
    page = context.new_page()
    page.asked, page.errors = [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.goto(server.url)
    yield page
    context.close()


@pytest.fixture
def page(server: Server, browser: object) -> Iterator[object]:
    with opened(browser, server) as page:
        yield page


def drop(page: object, file: Path) -> None:
    page.wait_for_selector("#drop input[type=file]", state="attached")
    page.set_input_files("#drop input[type=file]", file)


def sources(page: object) -> list[str]:
    """Addresses of the pictures before and after."""
    return page.eval_on_selector_all("#photo img", "images => images.map(image => image.src)")


def shown(page: object) -> np.ndarray:
    """The picture after, as the browser got it."""
    content = page.context.request.get(sources(page)[1]).body()
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


def wait_for_change(page: object, old: list[str]) -> None:
    page.wait_for_function(
        "old => [...document.querySelectorAll('#photo img')].some(i => !old.includes(i.src))",
        arg=old,
    )


def api(server: Server, photo: bytes) -> dict:
    body = json.dumps({"photo": base64.b64encode(photo).decode()}).encode()
    request = urllib.request.Request(
        f"{server.url}/api/v1/restore", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=WAIT) as response:
        return json.load(response)


def test_from_drop_to_download(server: Server, page: object, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"\xff\xd8\xff this is no photo")
    drop(page, bad)
    page.wait_for_selector(".message.bad")
    assert "bad.jpg: begins like an image, but is truncated" in page.inner_text(".message.bad")

    drop(page, PHOTO)
    page.wait_for_selector("#save a.save")
    page.wait_for_function("document.querySelectorAll('#photo img').length == 2")
    assert page.query_selector(".message.bad") is None
    told = api(server, PHOTO.read_bytes())
    left, top, right, bottom = (round(edge) for edge in told["faces"][0]["box"])
    before = np.asarray(Image.open(PHOTO).convert("RGB")).astype(int)
    first = shown(page)
    assert first.shape == before.shape
    difference = np.abs(first - before).mean(axis=2)
    inside = difference[top:bottom, left:right].mean()
    # The page shows JPEGs, which are not exact anywhere.
    assert inside > 4
    assert difference[:, :64].mean() < 2
    api_result = Image.open(io.BytesIO(base64.b64decode(told["photo"]))).convert("RGB")
    assert np.abs(first - np.asarray(api_result)).mean() < 2

    old = sources(page)
    page.focus("#bias input[type=range]")
    for _ in range(8):
        page.keyboard.press("ArrowRight")
    wait_for_change(page, old)
    page.wait_for_timeout(500)
    second = shown(page)
    assert np.abs(second - first)[top:bottom, left:right].mean() > 0.1
    assert np.array_equal(second[:, :64], first[:, :64])

    with page.expect_download() as download:
        page.click("#save a.save")
    assert download.value.suggested_filename == "astronaut_lq_restored.png"
    download.value.save_as(tmp_path / "restored.png")
    saved = load_photo(tmp_path / "restored.png")
    assert saved.rgb.shape == before.shape
    assert saved.metadata.xmp is not None
    assert DIGITAL_SOURCE_TYPE.encode() in saved.metadata.xmp
    assert b"tiny.safetensors" in saved.metadata.xmp

    # Left as it was, and back again.
    for caption in ("left as it was", "θ"):
        old = sources(page)
        page.click("#faces button.thumbnail-item")
        wait_for_change(page, old)
        page.wait_for_selector(f"#faces .caption-label:has-text('{caption}')")
    assert page.errors == []
    elsewhere = [url for url in page.asked if not url.startswith((server.url, "data:", "blob:"))]
    assert elsewhere == []


def test_variations_and_map(page: object) -> None:
    drop(page, PHOTO)
    page.wait_for_selector("#save a.save")
    page.click("#variations button.label-wrap")
    page.click("#vary")
    page.wait_for_selector("#offered img")
    old = sources(page)
    page.click("#offered button.thumbnail-item >> nth=1")
    wait_for_change(page, old)
    page.click("#invention button.label-wrap")
    page.click("#explain")
    page.wait_for_selector("#maps img")
    assert "0 is all held by the photo" in page.inner_text("#invented")
    assert page.errors == []


def test_nothing_is_left(browser: object, server: Server) -> None:
    with opened(browser, server) as page:
        drop(page, PHOTO)
        page.wait_for_selector("#save a.save")
        assert server.files()
    # Closing the page forgets the photo, an answer of the API takes it along,
    until(lambda: server.files() == [])
    assert len(api(server, PHOTO.read_bytes())["faces"]) == 1
    assert server.files() == []
    # and the end of the server leaves not even a folder.
    server.stop()
    for folder in (server.temporary, server.work):
        assert list(folder.iterdir()) == []
    assert [path for path in server.home.rglob("*") if path.is_file()] == []


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.5)
