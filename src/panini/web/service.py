"""The server without a framework: photos come as bytes, answers go as plain objects."""

from __future__ import annotations

import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import TypeVar

from PIL import Image

from panini.editing import Explanation, explain
from panini.errors import NoFaceError, PaniniError
from panini.faces.select import ALL
from panini.images import FORMATS
from panini.photos import load_photo, suffix_for
from panini.restored import Restoration, RestoredFace
from panini.restorer import Restorer
from panini.web.limits import ForgottenError, Limits, TooLargeError
from panini.web.line import Line
from panini.web.options import ExplainRequest, RestoreRequest
from panini.web.session import Session

T = TypeVar("T")

_MAGIC = {
    b"\xff\xd8\xff": ".jpg",
    b"\x89PNG": ".png",
    b"GIF8": ".gif",
    b"BM": ".bmp",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
}
_SWEEP = 60.0  # Seconds from one look for photos that nobody touches to the next, at most.
_ENDED = 1000  # Pages remembered as closed, so that what still runs for them leaves nothing.


@dataclass(frozen=True, kw_only=True, eq=False)
class Written:
    """A restored photo as a file."""

    content: bytes
    media_type: str
    suffix: str
    restoration: Restoration


@dataclass(frozen=True, kw_only=True, eq=False)
class Explained:
    """Where a face comes from."""

    face: RestoredFace
    explanation: Explanation


class Service:
    """Restores, explains, and keeps the photos that are being edited.

    All files are in `folder`, which `close` removes. A photo that was only
    restored or explained is gone when its answer is; one that is edited, when `forget` is called,
    when nobody touched it for long, or when too many others came after it.

    Args:
        restorer: Used by one request at a time.
        limits: What is taken on.
        folder: An empty one, to be removed at the end; None makes one.
    """

    def __init__(
        self, restorer: Restorer, limits: Limits | None = None, folder: Path | None = None
    ) -> None:
        self.restorer = restorer
        self.limits = limits or Limits()
        self.line = Line(self.limits.queue, self.limits.timeout)
        self.folder = (folder or make_folder()).resolve()
        # Apart from the uploads, which lie directly in the folder.
        self._own = self.folder / "own"
        self._own.mkdir()
        self._lock = threading.Lock()
        self._sessions: OrderedDict[str, tuple[Session, float]] = OrderedDict()
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._closed = threading.Event()
        self._sweeper = threading.Thread(target=self._sweep, name="panini-sweeper", daemon=True)
        self._sweeper.start()

    def restore(self, photo: bytes, request: RestoreRequest) -> Written:
        """Restore a photo, and write it with its mark; without a face, it comes back as sent.

        Raises:
            TooLargeError: More bytes than the limit.
            BusyError: The waiting line is full.
            TimeLimitError: Not done in time.
            ImageError: Not a photo, or one with too many pixels.
            ConfigError: A bad option.
        """
        self._check_size(photo)

        def job() -> Written:
            with self._unpacked(photo) as path:
                return _write(self._restored(path, request), path.parent, request, sent=photo)

        return self.line.run(job)

    def explain(self, photo: bytes, request: ExplainRequest) -> Explained:
        """Restore one face of a photo, and tell what of it was invented.

        Raises:
            NoFaceError: The photo has none.
            PaniniError: As `restore`.
        """
        self._check_size(photo)

        def job() -> Explained:
            asked = RestoreRequest(
                faces=ALL if request.aligned else request.face,
                min_face=request.min_face,
                aligned=request.aligned,
            )
            with self._unpacked(photo) as path:
                found = self._restored(path, asked).faces
            if not found:
                raise NoFaceError(f"photo: no face of at least {request.min_face:g} px found")
            told = explain(
                self.restorer, found[0], variations=request.variations, seed=request.seed
            )
            return Explained(face=found[0], explanation=told)

        return self.line.run(job)

    def open(self, key: str, photo: bytes, name: str) -> Session:
        """Restore a photo and keep it for editing, in the place of what was kept under the key.

        Args:
            key: Of the page that asks.
            photo: The file.
            name: Its name, as it is told to the user; never used as a path.

        Raises:
            PaniniError: As `restore`.
        """
        self._check_size(photo, name)
        with self._lock:
            # Its line may have been cut for a moment: who drops a photo is there.
            self._ended.pop(key, None)

        def job() -> Session:
            with self._unpacked(photo, name) as path:
                restoration = self._restored(path, RestoreRequest())
            folder = Path(mkdtemp(prefix="session-", dir=self._own))
            session = Session(self.restorer, restoration, folder, Path(name).stem)
            self._keep(key, session)
            return session

        return self.line.run(job)

    def edit(self, key: str, change: Callable[[Session], T]) -> T:
        """Change the photo of a page, when its turn comes.

        Raises:
            ForgottenError: The page has no photo, or no longer.
            PaniniError: As `restore`, and what `change` raises.
        """

        def job() -> T:
            session = self._session(key)
            try:
                return change(session)
            except FileNotFoundError as error:
                if session.is_there:
                    raise
                raise ForgottenError("this photo was forgotten; drop it again") from error

        return self.line.run(job)

    def download(self, token: str) -> tuple[Written, str]:
        """The photo of a page as it is drawn now, and a name for it.

        Raises:
            ForgottenError: The photo is no longer there.
            PaniniError: As `restore`.
        """

        def write(session: Session) -> tuple[Written, str]:
            with self._scratch() as folder:
                written = _write(session.result, folder, RestoreRequest())
            return written, f"{session.stem}_restored{written.suffix}"

        with self._lock:
            keys = [key for key, (kept, _) in self._sessions.items() if kept.token == token]
        if not keys:
            raise ForgottenError("this photo was forgotten; drop it on the page again")
        return self.edit(keys[0], write)

    def forget(self, key: str, *, ended: bool = False) -> None:
        """Remove the photo of a page and everything made of it.

        Args:
            key: Of the page.
            ended: The page was closed, so that what still runs for it is not kept either.
        """
        with self._lock:
            if ended:
                self._ended[key] = None
                while len(self._ended) > _ENDED:
                    self._ended.popitem(last=False)
            kept = self._sessions.pop(key, None)
        if kept:
            kept[0].remove()

    def close(self) -> None:
        """Stop, and remove the folder."""
        self._closed.set()
        self._sweeper.join()
        self.line.close()
        with self._lock:
            self._sessions.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _check_size(self, photo: bytes, name: str = "photo") -> None:
        if len(photo) > self.limits.max_bytes:
            found = f"{len(photo) / 1e6:.1f} MB"
            raise TooLargeError(f"{name}: {found} is more than {self.limits.max_mb:g} MB")

    def _restored(self, path: Path, request: RestoreRequest) -> Restoration:
        photo = load_photo(path, max_pixels=self.limits.max_pixels)
        restorer = self.restorer.with_consistency(request.consistent)
        if request.aligned:
            return restorer.restore_aligned(
                photo, prior_bias=request.prior_bias, keep_colour=request.keep_colour
            )
        return restorer.restore(
            photo,
            upscale=request.upscale,
            prior_bias=request.prior_bias,
            min_face=request.min_face,
            faces=request.faces,
            keep_colour=request.keep_colour,
        )

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        folder = Path(mkdtemp(prefix="request-", dir=self._own))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def _unpacked(self, photo: bytes, name: str = "photo") -> Iterator[Path]:
        """The photo as a file of ours; errors speak of it by the name that its sender knows."""
        with self._scratch() as folder:
            path = folder / f"photo{suffix_of(photo)}"
            path.write_bytes(photo)
            try:
                yield path
            except PaniniError as error:
                error.args = tuple(str(text).replace(str(path), name) for text in error.args)
                raise

    def _keep(self, key: str, session: Session) -> None:
        with self._lock:
            old = [self._sessions.pop(key)[0]] if key in self._sessions else []
            self._sessions[key] = (session, time.monotonic())
            for other in list(self._sessions):
                if len(self._sessions) > self.limits.sessions or other in self._ended:
                    old.append(self._sessions.pop(other)[0])
        for kept in old:
            kept.remove()
        self._expire()

    def _session(self, key: str) -> Session:
        self._expire()
        with self._lock:
            if key not in self._sessions:
                raise ForgottenError("this photo was forgotten; drop it again")
            session, _ = self._sessions.pop(key)
            self._sessions[key] = (session, time.monotonic())
        return session

    def _expire(self) -> None:
        """Forget the photos that nobody touched for long."""
        last = time.monotonic() - self.limits.idle
        with self._lock:
            idle = [key for key, (_, touched) in self._sessions.items() if touched < last]
            old = [self._sessions.pop(key)[0] for key in idle]
        for kept in old:
            kept.remove()

    def _sweep(self) -> None:
        """Expire now and then, until the end: photos are to go also where nobody asks any more."""
        while not self._closed.wait(min(_SWEEP, self.limits.idle)):
            self._expire()


def make_folder() -> Path:
    """A temporary folder that only this user can read."""
    return Path(mkdtemp(prefix="panini-"))


def suffix_of(photo: bytes) -> str:
    """The suffix that fits the first bytes of an image file; ".bin" for what is none."""
    for magic, suffix in _MAGIC.items():
        if photo.startswith(magic):
            return suffix
    if photo[:4] == b"RIFF" and photo[8:12] == b"WEBP":
        return ".webp"
    if photo[4:8] == b"ftyp":
        # The brand comes first, or among those that the file is compatible with.
        return ".avif" if b"avi" in photo[8:32] else ".heic"
    return ".bin"


def _write(
    restoration: Restoration, folder: Path, request: RestoreRequest, sent: bytes | None = None
) -> Written:
    """As a file, with its mark.

    Args:
        restoration: What was made of the photo.
        folder: For the file, until its bytes are read.
        request: What was asked for.
        sent: The file that came in: where nothing is to be changed, depth, alpha and all metadata
            stay in it. None always writes.
    """
    suffix = suffix_for(restoration.photo, request.format)
    kind = FORMATS[suffix]
    same_kind = FORMATS.get(restoration.source.suffix) == kind
    if sent is not None and same_kind and not restoration.faces and request.upscale == 1:
        content = sent
    else:
        path = folder / f"restored{suffix}"
        restoration.save(path, quality=request.quality)
        content = path.read_bytes()
    media_type = Image.MIME.get(kind.name, "application/octet-stream")
    return Written(content=content, media_type=media_type, suffix=suffix, restoration=restoration)
