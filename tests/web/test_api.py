"""The JSON API and what guards it, with the whole application in this process."""

from __future__ import annotations

import base64
import io
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

gradio = pytest.importorskip("gradio", reason="the extra web is not installed")

WAIT = 300.0

Make = Callable[..., tuple]


def files_in(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def as_json(photo: bytes, **values: object) -> dict:
    return {"json": {"photo": base64.b64encode(photo).decode(), **values}}


def as_form(photo: bytes, **values: object) -> dict:
    return {"files": {"photo": ("../../old photo.jpg", photo)}, "data": values}


def error_of(response: object, status: int, kind: str) -> str:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert set(response.json()) == {"error"}
    assert (error["status"], error["type"]) == (status, kind)
    return error["message"]


def test_restore_by_form_and_by_json(make_client: Make, photo: bytes) -> None:
    client, service = make_client()
    form = client.post("/api/v1/restore", **as_form(photo, faces="1", prior_bias="64=1"))
    told = form.json()
    assert form.status_code == 200
    assert (told["media_type"], told["width"], told["height"]) == ("image/png", 320, 240)
    (face,) = told["faces"]
    assert face["number"] == 1
    assert face["box"] == [40.0, 60.0, 150.0, 170.0]
    assert 0 < face["theta"] < 1
    assert len(face["landmarks"]) == 5
    assert told["settings"]["model"] == "tiny-test"
    assert told["settings"]["prior_bias"] == {"64": 1.0}
    restored = pixels(base64.b64decode(told["photo"]))
    assert not np.array_equal(restored, pixels(photo))
    assert np.array_equal(restored[:, 200:], pixels(photo)[:, 200:])

    by_json = client.post("/api/v1/restore", **as_json(photo, faces=1, prior_bias={"64": 1}))
    assert by_json.json() == told
    data_url = {"photo": "data:image/png;base64," + base64.b64encode(photo).decode(), "faces": 1}
    assert client.post("/api/v1/restore", json=data_url).status_code == 200
    assert files_in(service.folder) == []


def test_restore_as_a_file(make_client: Make, photo: bytes) -> None:
    client, _ = make_client()
    response = client.post(
        "/api/v1/restore", **as_form(photo, format="jpg"), headers={"Accept": "image/*"}
    )
    assert response.headers["content-type"] == "image/jpeg"
    assert response.headers["x-panini-faces"] == "2"
    assert len(response.headers["x-panini-theta"].split(",")) == 2
    assert response.headers["x-panini-models"] == "tiny-test,tiny-test"
    assert pixels(response.content).shape == (240, 320, 3)
    assert b"compositeWithTrainedAlgorithmicMedia" in response.content


def test_a_photo_without_faces_comes_back(make_client: Make, photo: bytes) -> None:
    client, _ = make_client()
    told = client.post("/api/v1/restore", **as_form(photo, min_face="200")).json()
    assert told["faces"] == []
    assert base64.b64decode(told["photo"]) == photo
    jpeg = io.BytesIO()
    Image.open(io.BytesIO(photo)).save(jpeg, "JPEG", quality=60)
    sent = as_form(jpeg.getvalue(), min_face="200")
    answer = client.post("/api/v1/restore", **sent, headers={"Accept": "image/*"})
    assert answer.content == jpeg.getvalue()
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["x-panini-faces"] == "0"


def test_explain(make_client: Make, photo: bytes) -> None:
    client, _ = make_client()
    response = client.post("/api/v1/explain", **as_form(photo, face=2, variations=2, seed=1))
    told = response.json()
    assert response.status_code == 200
    assert told["model"] == "tiny-test"
    assert told["face"]["number"] == 2
    assert told["face"]["box"][0] == 200.0
    assert set(told["prior_share"]) == {"4", "8", "16", "32", "64"}
    assert told["prior_share"]["64"] == pytest.approx(told["face"]["theta"], abs=1e-3)
    assert 0 < told["invented"] < 1
    names = {"input", "restored", "photo_only", "generator_only", "invention_map"}
    assert set(told["pictures"]) == names
    for text in told["pictures"].values():
        assert pixels(base64.b64decode(text)).shape == (128, 128, 3)
    none = client.post("/api/v1/explain", **as_form(photo, min_face=200))
    assert "no face of at least 200 px found" in error_of(none, 422, "no_face")


def test_health_and_models(make_client: Make) -> None:
    import panini

    client, _ = make_client(max_mb=3, queue=2)
    health = client.get("/api/v1/health").json()
    assert health == {
        "status": "ok",
        "version": panini.__version__,
        "model": "tiny-test",
        "device": "cpu",
        "waiting": 0,
        "limits": {"max_mb": 3, "max_megapixels": 24.0, "timeout_s": WAIT, "queue": 2},
    }
    models = client.get("/api/v1/models").json()
    assert models["loaded"]["name"] == "tiny-test"
    assert models["loaded"]["levels"] == [4, 8, 16, 32, 64]
    assert models["loaded"]["small_faces"] is None
    assert "mobile-mfr" in [model["name"] for model in models["shipped"]]


BAD_REQUESTS = [
    (as_form(b"not a photo"), 422, "bad_image", "photo: not an image"),
    (as_json(b"\xff\xd8\xff and no more"), 422, "bad_image", "truncated or damaged"),
    (as_json(b""), 422, "bad_image", "photo: the file is empty"),
    (as_json(b"x", upscale=3), 422, "bad_option", "upscale: input should be 1, 2 or 4"),
    (as_json(b"x", sharpen=1), 422, "bad_option", "sharpen: unknown"),
    (as_json(b"x", consistent="maybe"), 422, "bad_option", "consistent: "),
    (as_form(b"x", aligned="true", upscale="2"), 422, "bad_option", "aligned: upscale enlarges"),
    (as_json(b"x", aligned=True, faces=1), 422, "bad_option", "aligned: faces chooses among"),
    ({"json": {"photo": "no base64!"}}, 400, "bad_request", '"photo" is not base64'),
    ({"json": {"image": "eA=="}}, 400, "bad_request", 'with a text "photo"'),
    ({"json": ["eA=="]}, 400, "bad_request", "expected a JSON object"),
    ({"files": {"image": ("a", b"x")}}, 400, "bad_request", 'the form has no file "photo"'),
    ({"content": b"x"}, 400, "bad_request", "content type missing: send multipart"),
    (
        {"content": b"{", "headers": {"Content-Type": "application/json"}},
        *(400, "bad_request", "not JSON"),
    ),
    (
        {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}},
        *(400, "bad_request", "the form cannot be read"),
    ),
    (
        {"files": [("photo", ("a", b"x")), ("photo", ("b", b"x"))]},
        *(400, "bad_request", "the form cannot be read"),
    ),
]


def test_bad_requests(make_client: Make) -> None:
    client, service = make_client()
    for request, status, kind, words in BAD_REQUESTS:
        response = client.post("/api/v1/restore", **request)
        assert words in error_of(response, status, kind), request
    assert files_in(service.folder) == []


def test_what_is_not_there(make_client: Make) -> None:
    client, _ = make_client()
    error_of(client.get("/api/v1/nothing"), 404, "not_found")
    error_of(client.get("/api/v1/restore"), 405, "method_not_allowed")
    error_of(client.get("/download/guess"), 404, "forgotten")
    # Nor what Gradio would fetch, write or run for anybody who asks.
    for path in ("proxy=http://x.org", "file=https://x.org/a.png", "deep_link", "vibe-code"):
        error_of(client.get(f"/gradio_api/{path}"), 404, "not_found")
    error_of(client.post("/gradio_api/run/predict", json={}), 404, "not_found")


def test_files_of_the_machine_are_not_served(make_client: Make, photo: bytes) -> None:
    client, service = make_client()
    session = service.open("page", photo, "a.png")
    assert client.get(f"/gradio_api/file={session.after}").status_code == 200
    for path in (__file__, str(service.folder), str(session.after.parent), "/etc/hostname"):
        assert client.get(f"/gradio_api/file={path}").status_code in (403, 404)


def test_large_bodies_are_refused_before_they_are_read(make_client: Make, photo: bytes) -> None:
    client, _ = make_client(max_mb=0.1)
    huge = client.post("/api/v1/restore", content=b"", headers={"Content-Length": "10000000000"})
    assert "a body of 10000.0 MB is more than" in error_of(huge, 413, "too_large")
    over = client.post("/api/v1/restore", **as_form(bytes(120_000)))
    assert error_of(over, 413, "too_large") == "photo: 0.1 MB is more than 0.1 MB"
    stream = client.post("/api/v1/restore", content=iter([b"x"]))
    assert "Content-Length" in error_of(stream, 411, "length_required")
    # Chunks win over a length, which then says nothing.
    both = {"Content-Length": "1", "Transfer-Encoding": "chunked"}
    chunked = client.post("/api/v1/restore", content=b"x", headers=both)
    assert "no Transfer-Encoding" in error_of(chunked, 411, "length_required")
    upload = client.post("/gradio_api/upload", files={"files": ("a.png", bytes(120_000))})
    assert upload.status_code == 413


def test_pages_from_elsewhere_are_refused(make_client: Make, photo: bytes) -> None:
    client, _ = make_client(hosts=("localhost", "127.0.0.1"))
    elsewhere = {"Origin": "http://evil.example"}
    message = error_of(
        client.post("/api/v1/restore", **as_form(photo), headers=elsewhere), 403, "forbidden"
    )
    assert "evil.example" in message
    error_of(client.options("/api/v1/restore", headers=elsewhere), 403, "forbidden")
    # A name that was pointed to this machine.
    rebound = {"Host": "evil.example:7860"}
    error_of(client.get("/api/v1/health", headers=rebound), 403, "forbidden")
    error_of(client.get("/", headers=rebound), 403, "forbidden")
    own = {"Origin": "http://localhost:7860", "Host": "localhost:7860"}
    response = client.post("/api/v1/restore", **as_form(photo), headers=own)
    assert response.status_code == 200
    page = client.get("/", headers={"Origin": "http://localhost:1"})
    for answer in (response, page):
        assert not [name for name in answer.headers if name.startswith("access-control-")]
        assert "default-src 'self'" in answer.headers["content-security-policy"]


def test_the_page_loads_nothing_from_elsewhere(make_client: Make) -> None:
    client, _ = make_client()
    assert client.get("/").status_code == 200
    theme = client.get("/theme.css").text
    assert "font-family" in theme or "--font" in theme
    assert "googleapis" not in theme
    config = client.get("/config").json()
    assert config["analytics_enabled"] is False
    assert config["title"] == "Panini"


def post_in_thread(client: object, photo: bytes) -> tuple[threading.Thread, list]:
    answers: list = []
    thread = threading.Thread(
        target=lambda: answers.append(client.post("/api/v1/restore", **as_form(photo)))
    )
    thread.start()
    return thread, answers


def test_a_full_line_says_when_to_come_again(
    make_client: Make, photo: bytes, known: object
) -> None:
    client, service = make_client(queue=1)
    known.gate.clear()
    first = post_in_thread(client, photo)
    assert known.began.wait(WAIT)
    second = post_in_thread(client, photo)
    end = time.monotonic() + WAIT
    while service.line.waiting < 1:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert client.get("/api/v1/health").json()["waiting"] == 1
    refused = client.post("/api/v1/restore", **as_form(photo))
    assert "busy: 1 requests are waiting" in error_of(refused, 503, "busy")
    assert int(refused.headers["retry-after"]) >= 1
    known.gate.set()
    for thread, answers in (first, second):
        thread.join(WAIT)
        assert answers[0].status_code == 200


def test_out_of_time(make_client: Make, photo: bytes, known: object) -> None:
    client, _ = make_client(timeout=0.2)
    known.gate.clear()
    late = client.post("/api/v1/restore", **as_form(photo))
    assert "not done within 0.2 s" in error_of(late, 504, "timeout")


def test_a_bug_tells_nothing(
    make_client: Make, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastapi.testclient import TestClient

    client, service = make_client()
    monkeypatch.setattr(service, "restore", lambda *_: 1 // 0)
    quiet = TestClient(client.app, client.base_url, raise_server_exceptions=False)
    message = error_of(quiet.post("/api/v1/restore", **as_form(photo)), 500, "internal")
    assert "division" not in message


def test_download(make_client: Make, photo: bytes) -> None:
    client, service = make_client()
    session = service.open("page", photo, 'Oma "1931"\r\nX: y.png')
    response = client.get(f"/download/{session.token}")
    assert response.status_code == 200
    name = response.headers["content-disposition"]
    assert name == "attachment; filename*=UTF-8''Oma%20%221931%22%0D%0AX%3A%20y_restored.png"
    assert b"compositeWithTrainedAlgorithmicMedia" in response.content
    service.forget("page", ended=True)
    error_of(client.get(f"/download/{session.token}"), 404, "forgotten")


@pytest.fixture(scope="module")
def opened() -> Iterator[list[str]]:
    """Paths that are opened for writing while `opened.watch` is set."""
    paths: list[str] = []
    state = {"on": True}

    def hook(event: str, args: tuple) -> None:
        if state["on"] and event == "open" and isinstance(args[0], str | bytes | os.PathLike):
            writing = args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if writing:
                paths.append(os.fsdecode(args[0]))

    sys.addaudithook(hook)  # It cannot be taken away again, only made deaf.
    yield paths
    state["on"] = False


def test_nothing_is_written_outside_the_folder(
    make_client: Make, photo: bytes, opened: list[str]
) -> None:
    client, service = make_client()
    opened.clear()
    big = photo + bytes(2_000_000)  # More than an upload that Starlette keeps in memory.
    for asked in (as_form(big), as_json(photo)):
        assert client.post("/api/v1/restore", **asked).status_code == 200
    assert client.post("/api/v1/explain", **as_form(big, variations=2)).status_code == 200
    uploaded = client.post("/gradio_api/upload", files={"files": ("../../x.png", big)})
    assert uploaded.status_code == 200
    session = service.open("page", photo, "../../x.png")
    service.edit("page", lambda s: s.toggle(0))
    client.get(f"/download/{session.token}")
    outside = [p for p in opened if not Path(p).resolve().is_relative_to(service.folder)]
    assert opened
    assert [path for path in outside if path != os.devnull] == []
    service.close()
    assert not service.folder.exists()


def test_json_is_plain(make_client: Make, photo: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    client, service = make_client()
    drawer = service.restorer.drawers.main
    draw = drawer.draw
    # As of a network without masks.
    monkeypatch.setattr(
        drawer,
        "draw",
        lambda *asked, **how: [each._replace(theta=float("nan")) for each in draw(*asked, **how)],
    )
    response = client.post("/api/v1/restore", **as_json(photo))
    assert [face["theta"] for face in response.json()["faces"]] == [None, None]
    session = service.open("page", photo, "a.png")
    assert [caption for _, caption in session.gallery()] == ["restored", "restored"]
