"""The page without a browser: what it takes, and what its events answer."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace

import pytest

from panini.errors import ServiceError
from panini.web.service import Service

gr = pytest.importorskip("gradio", reason="the extra web is not installed")
page = pytest.importorskip("panini.web.page")
take_upload = page.take_upload

PAGE = SimpleNamespace(session_hash="page")


def upload(folder: Path, content: bytes, name: str = "a.png") -> dict:
    path = folder / ("0" * 64) / "stored.png"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return {"path": str(path), "orig_name": name}


@pytest.fixture
def handlers(service: Service) -> object:
    async def build() -> object:
        with gr.Blocks(analytics_enabled=False):
            return page.Handlers(service, page.lay_out([4, 8, 16, 32, 64]))

    # In a loop, because Gradio otherwise makes loops of its own and leaves them open.
    return asyncio.run(build())


def test_uploads_are_read_and_removed(tmp_path: Path) -> None:
    given = upload(tmp_path, b"content", "C:\\photos\\Oma\n1931.png")
    assert take_upload(tmp_path, given) == (b"content", "Oma1931.png")
    assert not Path(given["path"]).exists()
    with pytest.raises(ServiceError, match="the upload was lost"):
        take_upload(tmp_path, given)


def test_only_uploads_are_read(tmp_path: Path) -> None:
    inside = tmp_path / "folder"
    inside.mkdir()
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"x")
    session = inside / "sessions" / "token" / "before.jpg"
    session.parent.mkdir(parents=True)
    session.write_bytes(b"x")
    paths = [
        secret,
        session,
        inside / "x" / ".." / ".." / "secret.png",
        inside,
        Path("/etc/hostname"),
    ]
    for path in paths:
        with pytest.raises(ServiceError):
            take_upload(inside, {"path": str(path)})
    for nothing in (None, {}, {"path": None}):
        with pytest.raises(ServiceError):
            take_upload(inside, nothing)
    assert secret.exists()
    assert session.exists()


def test_a_drop_shows_photo_and_faces(handlers: object, photo: bytes) -> None:
    parts = handlers.parts
    shown = handlers.open(upload(handlers.service.folder, photo), PAGE)
    before, after = shown[parts.slider]
    assert Path(before).name == "before.jpg"
    assert Path(after).exists()
    assert shown[parts.message] == ""
    assert len(shown[parts.faces]["value"]) == 2
    assert shown[parts.which]["choices"] == ["1", "2"]
    assert shown[parts.start]["visible"] is False
    assert set(shown) <= set(parts.outputs)
    assert "download/" in shown[parts.download]


def test_sliders_and_clicks_draw_again(handlers: object, photo: bytes) -> None:
    parts = handlers.parts
    _, first = handlers.open(upload(handlers.service.folder, photo), PAGE)[parts.slider]
    _, second = handlers.bias(PAGE, 1.0, 0, 0, 0, 0, 0.5)[parts.slider]
    assert second != first
    assert handlers.service.edit("page", lambda s: s.bias)[64] == 1.5
    click = SimpleNamespace(index=1)
    faces = handlers.toggle(click, PAGE)[parts.faces]
    assert faces["value"][1][1] == "left as it was"
    offered = handlers.vary(0, 2, 1, PAGE)[parts.offered]
    assert len(offered["value"]) == 2
    assert handlers.take(click, PAGE)[parts.slider][1] != second
    told = handlers.explain(0, PAGE)
    assert "<b>On the whole 0." in told[parts.invented]
    assert len(told[parts.maps]["value"]) == 4


def test_mistakes_are_told_on_the_page(handlers: object) -> None:
    parts = handlers.parts
    given = upload(handlers.service.folder, b"<script>", "<b>bad.jpg")
    shown = handlers.open(given, PAGE)
    assert "&lt;b&gt;bad.jpg: not an image" in shown[parts.message]
    assert set(shown) == {parts.message, parts.drop}
    assert (
        "this photo was forgotten" in handlers.toggle(SimpleNamespace(index=0), PAGE)[parts.message]
    )


def test_no_face(handlers: object, photo: bytes) -> None:
    handlers.service.restorer.detector.faces = []
    shown = handlers.open(upload(handlers.service.folder, photo), PAGE)
    assert "No face was found" in shown[handlers.parts.message]
    assert shown[handlers.parts.tools]["visible"] is False


def test_another_photo_and_the_end_forget(handlers: object, photo: bytes) -> None:
    parts = handlers.parts
    handlers.open(upload(handlers.service.folder, photo), PAGE)
    shown = handlers.again(PAGE)
    assert shown[parts.slider] is None
    assert shown[parts.start]["visible"] is True
    handlers.open(upload(handlers.service.folder, photo), PAGE)
    handlers.forget(PAGE)
    left = [path for path in handlers.service.folder.rglob("*") if path.is_file()]
    assert left == []
