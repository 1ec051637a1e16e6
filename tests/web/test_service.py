"""The server without a framework: limits, answers, sessions, and that nothing is left."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from panini.errors import ConfigError, ImageError, NoFaceError
from panini.metadata import DIGITAL_SOURCE_TYPE
from panini.photos import load_photo
from panini.web.limits import ForgottenError, TooLargeError
from panini.web.options import ExplainRequest, RestoreRequest
from panini.web.service import Service, suffix_of
from panini.web.session import combine_bias

WAIT = 300.0


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def files_in(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def preview(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


def test_restore_writes_the_photo_with_its_mark(
    service: Service, photo: bytes, tmp_path: Path
) -> None:
    written = service.restore(photo, RestoreRequest())
    assert (written.media_type, written.suffix) == ("image/png", ".png")
    assert len(written.restoration.faces) == 2
    changed = np.any(pixels(written.content) != pixels(photo), axis=2)
    assert changed[80:150, 60:130].mean() > 0.5
    assert not changed[:20].any()
    (tmp_path / "a.png").write_bytes(written.content)
    xmp = load_photo(tmp_path / "a.png").metadata.xmp
    assert xmp is not None
    assert DIGITAL_SOURCE_TYPE.encode() in xmp
    assert b"tiny-test" in xmp
    assert files_in(service.folder) == []


def test_requests_are_carried_out(service: Service, photo: bytes, picture: Image.Image) -> None:
    asked = RestoreRequest(upscale=2, faces=2, format="webp", quality=50, prior_bias={64: 2.0})
    written = service.restore(photo, asked)
    assert written.media_type == "image/webp"
    assert pixels(written.content).shape == (480, 640, 3)
    (face,) = written.restoration.faces
    assert face.box[0] == 200
    assert written.restoration.settings["prior_bias"] == {"64": 2.0}
    jpeg = service.restore(encode(picture, "JPEG"), RestoreRequest())
    assert jpeg.media_type == "image/jpeg"
    square = encode(picture.crop((0, 0, 200, 200)), "PNG")
    aligned = service.restore(square, RestoreRequest(aligned=True))
    assert pixels(aligned.content).shape == (128, 128, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
def test_a_photo_without_faces_comes_back_byte_for_byte(
    service: Service, picture: Image.Image, kind: str
) -> None:
    sent = encode(picture, kind) + b"what nobody reads"
    written = service.restore(sent, RestoreRequest(min_face=200, quality=50))
    assert written.content == sent
    assert written.media_type == Image.MIME[kind]
    assert written.restoration.faces == []
    assert files_in(service.folder) == []


def test_a_photo_without_faces_is_written_where_more_is_asked(
    service: Service, picture: Image.Image
) -> None:
    sent = encode(picture, "JPEG")
    same = service.restore(sent, RestoreRequest(min_face=200, format="jpg"))
    assert same.content == sent
    converted = service.restore(sent, RestoreRequest(min_face=200, format="png"))
    assert converted.media_type == "image/png"
    assert np.array_equal(pixels(converted.content), pixels(sent))
    enlarged = service.restore(sent, RestoreRequest(min_face=200, upscale=2))
    assert pixels(enlarged.content).shape == (480, 640, 3)
    # A kind that is not written for photos.
    gif = service.restore(encode(picture, "GIF"), RestoreRequest(min_face=200))
    assert gif.media_type == "image/png"
    assert gif.content.startswith(b"\x89PNG")


def test_refusals_speak_of_the_photo_and_not_of_our_files(
    make_service: Callable[..., Service], photo: bytes
) -> None:
    service = make_service(max_mb=0.2, max_megapixels=0.05)
    with pytest.raises(TooLargeError, match=r"^photo: 0\.3 MB is more than 0\.2 MB$"):
        service.restore(bytes(300_000), RestoreRequest())
    with pytest.raises(TooLargeError, match=r"^gran\.jpg: "):
        service.open("page", bytes(300_000), "gran.jpg")
    with pytest.raises(ImageError, match=r"^photo: 320x240 px is more than 0\.05 megapixels$"):
        service.restore(photo, RestoreRequest())
    with pytest.raises(ImageError, match=r"^photo: not an image$"):
        service.restore(b"hello, world", RestoreRequest())
    with pytest.raises(ImageError, match=r"^photo: the file is empty$"):
        service.restore(b"", RestoreRequest())
    with pytest.raises(ImageError, match=r"^gran\.jpg: .*truncated"):
        service.open("page", b"\xff\xd8\xff and no more", "gran.jpg")
    assert files_in(service.folder) == []


def test_a_bomb_is_refused_by_its_header(make_service: Callable[..., Service]) -> None:
    service = make_service()
    # The larger one is more than Pillow opens.
    for side in (5_000, 14_000):
        bomb = encode(Image.new("1", (side, side)), "PNG")
        assert len(bomb) < 100_000
        with pytest.raises(
            ImageError, match=rf"^photo: {side}x{side} px is more than 24 megapixels$"
        ):
            service.restore(bomb, RestoreRequest())


def test_explain(service: Service, photo: bytes) -> None:
    asked = ExplainRequest(face=2, variations=2, seed=3)
    explained = service.explain(photo, asked)
    assert explained.face.box[0] == 200
    invention = explained.explanation.invention
    assert invention.map.shape == (128, 128)
    assert 0 <= invention.mean <= 1
    again = service.explain(photo, asked).explanation.invention.map
    assert np.array_equal(invention.map, again)
    square = encode(Image.open(io.BytesIO(photo)).crop((0, 0, 200, 200)), "PNG")
    aligned = service.explain(square, ExplainRequest(aligned=True, variations=2))
    assert aligned.face.box == (0, 0, 200, 200)
    with pytest.raises(ConfigError, match="there is no face 3, the photo has 2 faces"):
        service.explain(photo, ExplainRequest(face=3, variations=2))
    with pytest.raises(NoFaceError, match="no face of at least 150 px found"):
        service.explain(photo, ExplainRequest(variations=2, min_face=150))


def test_a_photo_is_edited_without_being_searched_again(
    service: Service, photo: bytes, known: object
) -> None:
    session = service.open("page", photo, "family photo.png")
    assert known.calls == 1
    first = preview(session.after)
    assert np.abs(preview(session.before) - first).max() > 20
    theta = session.faces[0].drawn.theta

    service.edit("page", lambda s: s.set_bias(3.0))
    assert session.faces[0].drawn.theta > theta + 0.2
    assert np.abs(preview(session.after) - first).max() > 3
    assert session.result.settings["prior_bias"] == 3.0

    service.edit("page", lambda s: s.set_bias(0.0))
    # As before, but for the last bit: it was drawn together with the other face then.
    assert np.abs(preview(session.after) - first).mean() < 0.1
    service.edit("page", lambda s: s.set_bias({4: 0.0, 8: 0.0, 16: 0.0, 32: 0.0, 64: -3.0}))
    assert session.faces[0].drawn.theta < theta - 0.2
    assert known.calls == 1


def test_faces_are_chosen_one_by_one(service: Service, photo: bytes) -> None:
    session = service.open("page", photo, "a.png")
    assert [caption[:1] for _, caption in session.gallery()] == ["θ", "θ"]
    service.edit("page", lambda s: s.toggle(0))
    assert next(caption for _, caption in session.gallery()) == "left as it was"
    written, _ = service.download(session.token)
    assert np.array_equal(pixels(written.content)[:, :150], pixels(photo)[:, :150])
    assert not np.array_equal(pixels(written.content)[:, 200:270], pixels(photo)[:, 200:270])

    # Drawn when it is chosen again, with the bias of that time.
    service.edit("page", lambda s: s.set_bias(3.0))
    theta = session.faces[0].drawn.theta
    service.edit("page", lambda s: s.toggle(0))
    assert session.faces[0].drawn.theta > theta + 0.2
    for index in (0, 1):
        service.edit("page", lambda s, index=index: s.toggle(index))
    written, _ = service.download(session.token)
    assert np.array_equal(pixels(written.content), pixels(photo))
    with pytest.raises(ConfigError, match="face 3: the photo has 2"):
        service.edit("page", lambda s: s.toggle(2))


def test_variations_are_offered_and_taken(service: Service, photo: bytes) -> None:
    session = service.open("page", photo, "a.png")
    with pytest.raises(ConfigError, match="variation 1: 0 are offered"):
        service.edit("page", lambda s: s.take(0))
    before = preview(session.after)
    offered = service.edit("page", lambda s: s.vary(0, 2, 5))
    assert len(offered) == 2
    assert not np.array_equal(preview(offered[0]), preview(offered[1]))
    service.edit("page", lambda s: s.take(1))
    assert not np.array_equal(preview(session.after), before)
    service.edit("page", lambda s: s.set_bias(1.0))
    service.edit("page", lambda s: s.set_bias(0.0))
    assert np.abs(preview(session.after) - before).mean() < 0.1


def test_the_map_of_the_page(service: Service, photo: bytes) -> None:
    service.open("page", photo, "a.png")
    share, pictures = service.edit("page", lambda s: s.explain(1))
    assert 0 < share < 1
    assert [caption for _, caption in pictures] == [
        "invention map",
        "restored",
        "the photo alone",
        "the generator alone",
    ]


def test_the_name_is_kept_for_the_download_only(service: Service, photo: bytes) -> None:
    session = service.open("page", photo, "../../etc/Großmutter 1931.png")
    written, name = service.download(session.token)
    assert name == "Großmutter 1931_restored.png"
    assert written.content.startswith(b"\x89PNG")
    assert not [path for path in files_in(service.folder) if "1931" in path]


def test_closing_a_page_forgets_its_photo(service: Service, photo: bytes) -> None:
    session = service.open("page", photo, "a.png")
    other = service.open("other", photo, "a.png")
    assert files_in(service.folder)
    service.forget("page", ended=True)
    with pytest.raises(ForgottenError, match="this photo was forgotten"):
        service.edit("page", lambda s: s.toggle(0))
    with pytest.raises(ForgottenError):
        service.download(session.token)
    service.edit("other", lambda s: s.toggle(0))
    assert other.after.exists()
    service.forget("other")
    service.forget("never there")
    assert files_in(service.folder) == []


def test_a_page_closed_while_its_photo_is_restored(
    service: Service, photo: bytes, known: object
) -> None:
    known.gate.clear()
    thread = threading.Thread(target=service.open, args=("page", photo, "a.png"))
    thread.start()
    assert known.began.wait(WAIT)
    service.forget("page", ended=True)
    known.gate.set()
    thread.join(WAIT)
    assert files_in(service.folder) == []


def test_a_page_whose_line_was_cut_takes_another_photo(service: Service, photo: bytes) -> None:
    service.open("page", photo, "a.png")
    service.forget("page", ended=True)
    session = service.open("page", photo, "a.png")
    assert session.is_there
    service.edit("page", lambda s: s.toggle(0))
    assert session.after.exists()


def test_a_new_photo_takes_the_place_of_the_old(service: Service, photo: bytes) -> None:
    old = service.open("page", photo, "a.png")
    new = service.open("page", photo, "b.png")
    assert not old.after.exists()
    assert new.after.exists()
    with pytest.raises(ForgottenError):
        service.download(old.token)


def test_too_many_and_too_old_photos_are_forgotten(
    make_service: Callable[..., Service], photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make_service(sessions=2, idle=60)
    clock = [1000.0]
    monkeypatch.setattr("panini.web.service.time.monotonic", lambda: clock[0])
    for key in ("a", "b"):
        service.open(key, photo, "x.png")
    service.edit("a", lambda s: None)  # so that b is the one untouched for longest
    service.open("c", photo, "x.png")
    with pytest.raises(ForgottenError):
        service.edit("b", lambda s: None)
    clock[0] += 61
    service.open("d", photo, "x.png")
    for key in ("a", "c"):
        with pytest.raises(ForgottenError):
            service.edit(key, lambda s: None)
    service.edit("d", lambda s: None)


def test_an_idle_photo_goes_though_nobody_opens_another(
    make_service: Callable[..., Service], photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make_service(idle=3600)
    clock = [1000.0]
    monkeypatch.setattr("panini.web.service.time.monotonic", lambda: clock[0])
    session = service.open("page", photo, "a.png")
    clock[0] += 3000
    service.edit("page", lambda s: None)
    clock[0] += 3000
    service.edit("page", lambda s: None)
    clock[0] += 3601
    with pytest.raises(ForgottenError):
        service.download(session.token)
    assert files_in(service.folder) == []
    service.open("page", photo, "a.png")
    clock[0] += 3601
    with pytest.raises(ForgottenError):
        service.edit("page", lambda s: None)
    assert files_in(service.folder) == []


def test_an_idle_photo_goes_though_nobody_asks(
    make_service: Callable[..., Service], photo: bytes
) -> None:
    service = make_service(idle=0.5)
    service.open("page", photo, "a.png")
    end = time.monotonic() + WAIT
    while files_in(service.folder):
        assert time.monotonic() < end
        time.sleep(0.05)
    service.close()
    assert "panini-sweeper" not in [thread.name for thread in threading.enumerate()]


def test_close_removes_the_folder(make_service: Callable[..., Service], photo: bytes) -> None:
    service = make_service()
    service.open("page", photo, "a.png")
    assert service.folder.stat().st_mode & 0o077 == 0
    service.close()
    assert not service.folder.exists()


@pytest.mark.parametrize(
    ("head", "suffix"),
    [
        (b"\xff\xd8\xff\xe0", ".jpg"),
        (b"\x89PNG\r\n", ".png"),
        (b"RIFF\x00\x00\x00\x00WEBP", ".webp"),
        (b"II*\0", ".tif"),
        (b"\0\0\0\x18ftypavif", ".avif"),
        (b"\0\0\0\x18ftypheic", ".heic"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif", ".avif"),
        (b"<html>", ".bin"),
        (b"", ".bin"),
    ],
)
def test_suffixes_follow_the_content(head: bytes, suffix: str) -> None:
    assert suffix_of(head) == suffix


def test_biases_add_up_within_bounds() -> None:
    assert combine_bias(1.5, {4: 0, 64: 0}) == 1.5
    assert combine_bias(2.0, {4: 0.5, 64: 2.0}) == {4: 2.5, 64: 3.0}
    assert combine_bias(-2.0, {4: -2.0, 64: 1.0}) == {4: -3.0, 64: -1.0}
