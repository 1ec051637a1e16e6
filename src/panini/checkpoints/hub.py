"""Models on the Hugging Face hub: `hf://owner/repo`, fetched and pushed.

Only .safetensors files are ever fetched: a stranger's pickle does not even reach the disk.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from panini.errors import CheckpointError, MissingExtraError

PREFIX = "hf://"
WEIGHTS = "model.safetensors"
"""What `push` calls the weights, and what `fetch` takes where a name says no file."""

_SUFFIX = ".safetensors"
_REPO = r"[\w-][\w.-]*/[\w-][\w.-]*"
_NAME = re.compile(rf"hf://(?P<repo>{_REPO})(@(?P<revision>[\w.-]+))?(/(?P<file>[^@]+))?", re.ASCII)

# What the hub's own pages read of a card; a card that says so itself is left as it is.
_FRONT_MATTER = """---
library_name: panini-net
pipeline_tag: image-to-image
tags:
- face-restoration
---

"""


@dataclass(frozen=True, kw_only=True)
class HubName:
    """The parts of a name on the hub."""

    repo: str
    """owner/repo."""
    revision: str | None = None
    """Branch, tag or commit; None is the main branch."""
    file: str | None = None
    """Path inside the repository; None: `WEIGHTS`, or the only .safetensors file there."""

    @classmethod
    def parse(cls, name: str) -> HubName:
        """Split `hf://owner/repo[@revision][/file.safetensors]`.

        Raises:
            CheckpointError: The name has another form, or names a file of another kind.
        """
        match = _NAME.fullmatch(name)
        if match is None:
            raise CheckpointError(
                f"{name}: expected hf://owner/repo, hf://owner/repo@revision or"
                " hf://owner/repo/file.safetensors"
            )
        place = cls(**match.groupdict())
        if place.file is not None and not place.file.endswith(_SUFFIX):
            raise CheckpointError(
                f"{name}: only .safetensors files are fetched from the hub; download other files"
                " yourself and convert them with `panini convert`"
            )
        return place


def fetch(name: str) -> Path:
    """The local copy of a weights file on the hub, downloaded where it is not cached yet.

    `HF_HUB_OFFLINE`, `HF_ENDPOINT`, `HF_HOME` and `HF_TOKEN` are respected.

    Args:
        name: `hf://owner/repo`, optionally with `@revision` and `/file.safetensors`.

    Raises:
        CheckpointError: A malformed name; no such repository, revision or file; no right to read
            it; no network and no copy in the cache.
        MissingExtraError: huggingface_hub is not installed.
    """
    place = HubName.parse(name)
    _require_hub()
    from huggingface_hub import hf_hub_download

    try:
        file = place.file or _weights_of(place, name)
        return Path(hf_hub_download(place.repo, file, revision=place.revision))
    except _failures() as error:
        raise CheckpointError(f"{name}: {_why_not_read(place, error)}") from error


def push(
    model: str,
    repo: str,
    *,
    private: bool = False,
    message: str = "Upload a Panini-Net model",
    card: Path | None = None,
) -> str:
    """Upload a network's weights, config and card to the hub, in one commit.

    Args:
        model: A shipped model's name, or the path of a .safetensors file of ours.
        repo: owner/repo; made where it does not exist.
        private: Whether a repository that is made here is private.
        message: Of the commit.
        card: A Markdown page that becomes README.md; None leaves the repository's own.

    Returns:
        URL of the commit.

    Raises:
        CheckpointError: The file or the card is no good, or the hub does not take them.
        MissingExtraError: huggingface_hub is not installed.
    """
    if not re.fullmatch(_REPO, repo, re.ASCII):
        raise CheckpointError(f"{repo}: expected the name of a repository, owner/repo")
    _require_hub()
    from huggingface_hub import HfApi

    additions = _additions(model, card)
    api = HfApi()
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        commit = api.create_commit(repo, additions, commit_message=message)
    except _failures() as error:
        raise CheckpointError(f"{repo}: {_why_not_written(repo, error)}") from error
    return str(commit.commit_url)


def _require_hub() -> None:
    try:
        import huggingface_hub  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ImportError as error:
        raise MissingExtraError("hub", "the Hugging Face hub") from error


def _failures() -> tuple[type[Exception], ...]:
    """What a call of the hub's library may raise."""
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    # Its base is the error of the HTTP library, another one in each major version.
    http_error = HfHubHTTPError.__mro__[1]
    assert issubclass(http_error, Exception)
    return (http_error, EntryNotFoundError, OSError, RuntimeError, ValueError)


def _weights_of(place: HubName, name: str) -> str:
    """The weights of a repository: `WEIGHTS`, or else the only .safetensors file.

    Raises:
        CheckpointError: There is none, or more than one.
    """
    files = [file for file in _files_of(place) if file.endswith(_SUFFIX)]
    if WEIGHTS in files:
        return WEIGHTS
    if not files:
        raise CheckpointError(
            f"{name}: holds no .safetensors file, and other files are not fetched from the hub;"
            " download them yourself and convert them with `panini convert`"
        )
    if len(files) > 1:
        raise CheckpointError(
            f"{name}: holds {len(files)} .safetensors files; name one of them:"
            f" {PREFIX}{place.repo}/{sorted(files)[0]}"
        )
    return files[0]


def _files_of(place: HubName) -> list[str]:
    """Paths in a repository: on the hub, or in its cached copy where there is no network."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        entries = HfApi().list_repo_tree(place.repo, recursive=True, revision=place.revision)
        return [entry.path for entry in entries]
    except _failures() as error:
        # An answer about the repository is one; a hub that is down is none.
        if isinstance(error, HfHubHTTPError) and error.response.status_code < 500:
            raise
    folder = Path(
        snapshot_download(
            place.repo,
            revision=place.revision,
            allow_patterns=f"*{_SUFFIX}",
            local_files_only=True,
        )
    )
    return [file.relative_to(folder).as_posix() for file in folder.rglob(f"*{_SUFFIX}")]


def _why_not_read(place: HubName, error: Exception) -> str:
    """What happened on the way from the hub, and what to do about it."""
    from huggingface_hub import errors

    page = _page(place.repo)
    if isinstance(error, errors.GatedRepoError):
        return f"its owner grants access; ask for it on {page}, then run `hf auth login`"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "no such repository, or a private one; check the name, or run `hf auth login`"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"the repository has no revision {place.revision!r}; see {page}/tree/main"
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        return _why_not_reached()
    if isinstance(error, errors.EntryNotFoundError):
        return f"the repository has no such file; see {page}/tree/main"
    return _said_by(error)


def _why_not_written(repo: str, error: Exception) -> str:
    """What happened on the way to the hub, and what to do about it."""
    from huggingface_hub import errors

    if isinstance(error, errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE forbids to upload; unset it"
    if isinstance(error, errors.HfHubHTTPError):
        if error.response.status_code in (401, 403, 404):
            owner = repo.split("/")[0]
            return f"the hub refuses; run `hf auth login` with a token that may write to {owner}"
        return _said_by(error)
    if isinstance(error, (_failures()[0], ConnectionError)):
        return "the hub cannot be reached; check the network and HF_ENDPOINT"
    return _said_by(error)


def _why_not_reached() -> str:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "is not in the cache, and HF_HUB_OFFLINE forbids to fetch it; unset it once"
    return (
        "the hub cannot be reached, and the model is not in the cache; check the network and"
        " HF_ENDPOINT"
    )


def _said_by(error: Exception) -> str:
    # An upload's failure is told by what caused it.
    said = " ".join(f"{error} {error.__cause__ or ''}".split())[:200]
    return f"the hub's library gave up: {said or type(error).__name__}"


def _page(repo: str) -> str:
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{repo}"


def _additions(model: str, card: Path | None) -> list[Any]:
    """The operations of a commit: weights, config.json and, where there is a card, README.md."""
    from huggingface_hub import CommitOperationAdd

    from panini.checkpoints.io import FORMAT, load_tensors, resolve

    # Read as `load_model` will read it: what cannot be loaded is not worth an upload.
    path = resolve(model)
    _, meta = load_tensors(path, kind="panini-net")
    config = json.dumps({"format": FORMAT} | meta, indent=2) + "\n"
    additions = [
        CommitOperationAdd(WEIGHTS, str(path)),
        CommitOperationAdd("config.json", config.encode()),
    ]
    if card is not None:
        additions.append(CommitOperationAdd("README.md", _read_card(card).encode()))
    return additions


def _read_card(card: Path) -> str:
    """A card's text, with what the hub's pages read in front.

    Raises:
        CheckpointError: It is missing or no text.
    """
    try:
        text = card.read_text(encoding="utf-8")
    except OSError as error:
        raise CheckpointError(f"{card}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{card}: expected a Markdown page in UTF-8") from error
    return text if text.startswith("---\n") else _FRONT_MATTER + text
