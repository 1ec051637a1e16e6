"""Models on the hub: fetched from and pushed to a server of our own that speaks its protocol."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from panini.checkpoints import hub, load_model, save_model
from panini.errors import CheckpointError, MissingExtraError
from panini.models.panini_net import PaniniNet

pytest.importorskip("huggingface_hub", reason="the extra hub is not installed")

# The library's own way to upload is deprecated by the HTTP library below it.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

TOKEN = "hf_test"
COMMIT = "c" * 40


@dataclass
class Repo:
    files: dict[str, bytes] = field(default_factory=dict)
    gated: bool = False
    private: bool = False
    messages: list[str] = field(default_factory=list)


@dataclass
class FakeHub:
    """The few endpoints that downloads and commits need."""

    url: str
    repos: dict[str, Repo] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    """LFS objects by sha256."""
    requests: list[str] = field(default_factory=list)
    broken: bool = False
    """Answers everything with 503."""


class Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format, *args):
        pass

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def do_POST(self):
        self.answer()

    def do_PUT(self):
        self.answer()

    def answer(self):
        body = self.read()
        path = self.path.split("?")[0]
        self.hub.requests.append(f"{self.command} {path}")
        if self.hub.broken:
            return self.send(503, b"down")
        for method, pattern, handle in ROUTES:
            match = re.fullmatch(pattern, path)
            if match and self.command in method:
                return handle(self, body, **match.groupdict())
        return self.send(404, b"no such endpoint")

    def read(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def send(self, status: int, body: bytes, **headers: str):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def json(self, value, status: int = 200):
        self.send(status, json.dumps(value).encode(), Content_Type="application/json")

    def repo(self, name: str, revision: str = "main") -> Repo | None:
        """The repository; None when the answer has been given already."""
        known = self.hub.repos.get(name)
        if known is None or (known.private and not self.may_write()):
            self.send(401, b"", X_Error_Code="RepoNotFound")
        elif revision not in ("main", "v1", COMMIT):
            self.send(404, b"", X_Error_Code="RevisionNotFound")
        else:
            return known
        return None

    def may_write(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    # Reading.

    def tree(self, body, repo, revision):
        if found := self.repo(repo, revision):
            self.json(
                [
                    {"type": "file", "path": name, "size": len(data), "oid": "0" * 40}
                    for name, data in found.files.items()
                ]
            )

    def resolve(self, body, repo, revision, file):
        found = self.repo(repo, revision)
        if found is None:
            return
        if found.gated:
            self.send(403, b"", X_Error_Code="GatedRepo")
        elif file not in found.files:
            self.send(404, b"", X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
        else:
            data = found.files[file]
            etag = f'"{hashlib.sha256(data).hexdigest()}"'
            self.send(200, data, ETag=etag, X_Repo_Commit=COMMIT)

    # Writing.

    def create(self, body):
        if not self.may_write():
            return self.send(401, b"", X_Error_Message="Invalid username or password.")
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.hub.repos:
            return self.json({"url": f"{self.hub.url}/{name}"}, status=409)
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        self.hub.repos[name] = Repo(private=private)
        return self.json({"url": f"{self.hub.url}/{name}"})

    def validate(self, body):
        good = json.loads(body)["content"].startswith("---\n")
        warnings = [] if good else [{"message": "empty metadata"}]
        self.json({"errors": [], "warnings": warnings})

    def preupload(self, body, repo):
        self.json(
            {
                "files": [
                    {
                        "path": file["path"],
                        "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                        "shouldIgnore": False,
                    }
                    for file in json.loads(body)["files"]
                ]
            }
        )

    def batch(self, body, repo):
        objects = [
            {**asked, "actions": {"upload": {"href": f"{self.hub.url}/lfs/{asked['oid']}"}}}
            for asked in json.loads(body)["objects"]
        ]
        self.json({"transfer": "basic", "objects": objects})

    def store(self, body, oid):
        assert hashlib.sha256(body).hexdigest() == oid
        self.hub.large[oid] = body
        self.send(200, b"")

    def commit(self, body, repo):
        found = self.repo(repo)
        if found is None:
            return
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                found.messages.append(value["summary"])
            elif line["key"] == "file":
                found.files[value["path"]] = base64.b64decode(value["content"])
            else:
                found.files[value["path"]] = self.hub.large[value["oid"]]
        url = f"{self.hub.url}/{repo}/commit/{COMMIT}"
        self.json({"commitUrl": url, "commitOid": COMMIT})


REPO = r"(?P<repo>[^/]+/[^/]+)"
ROUTES = [
    ("GET", rf"/api/models/{REPO}/tree/(?P<revision>[^/]+)", Handler.tree),
    ("HEAD GET", rf"/{REPO}/resolve/(?P<revision>[^/]+)/(?P<file>.+)", Handler.resolve),
    ("POST", r"/api/repos/create", Handler.create),
    ("POST", r"/api/validate-yaml", Handler.validate),
    ("POST", rf"/api/models/{REPO}/preupload/main", Handler.preupload),
    ("POST", rf"/{REPO}.git/info/lfs/objects/batch", Handler.batch),
    ("PUT", r"/lfs/(?P<oid>\w+)", Handler.store),
    ("POST", rf"/api/models/{REPO}/commit/main", Handler.commit),
]


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A hub, and the library turned to it, with a cache of its own and nobody logged in."""
    from huggingface_hub import constants

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    Handler.hub = FakeHub(url=f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    # The library reads its environment once, when it is imported.
    for name, value in {
        "ENDPOINT": Handler.hub.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": Handler.hub.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(tmp_path / "cache"),
        "HF_TOKEN_PATH": str(tmp_path / "no-token"),
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
    }.items():
        monkeypatch.setattr(constants, name, value)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    # Between attempts the library waits for up to half a minute.
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    yield Handler.hub
    server.shutdown()
    server.server_close()
    thread.join()
    close = pytest.importorskip("huggingface_hub.utils._http").close_session
    close()


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("hub") / "tiny.safetensors"
    save_model(PaniniNet.named("tiny"), path, provenance={"images": 7})
    return path


def cut_off(monkeypatch):
    """Turn the library to a port where nobody listens."""
    from huggingface_hub import constants

    nowhere = "http://127.0.0.1:9"
    template = nowhere + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", nowhere)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def refused(call, *arguments, **named) -> str:
    with pytest.raises(CheckpointError) as caught:
        call(*arguments, **named)
    message = str(caught.value)
    assert "\n" not in message
    return message


# ----------------------------------------------------------------------------------------------
# Names


@pytest.mark.parametrize(
    ("name", "repo", "revision", "file"),
    [
        ("hf://me/net", "me/net", None, None),
        ("hf://me/net.v2@main", "me/net.v2", "main", None),
        ("hf://me/net/a/b.safetensors", "me/net", None, "a/b.safetensors"),
        ("hf://me/net@0af3/b.safetensors", "me/net", "0af3", "b.safetensors"),
    ],
)
def test_names_are_taken_apart(name, repo, revision, file):
    assert hub.HubName.parse(name) == hub.HubName(repo=repo, revision=revision, file=file)


@pytest.mark.parametrize(
    "name", ["hf://", "hf://net", "hf:///net", "hf://me/net@", "hf://../x", "hf://me/net@a@b"]
)
def test_other_names_are_refused(name):
    message = refused(hub.fetch, name)
    assert message.startswith(f"{name}: expected hf://owner/repo, hf://owner/repo@revision or")


# ----------------------------------------------------------------------------------------------
# Fetching


def test_a_model_comes_from_the_hub_once(fake, weights):
    fake.repos["me/net"] = Repo({"model.safetensors": weights.read_bytes(), "README.md": b"x"})
    net = load_model("hf://me/net")
    expected = load_model(weights)
    assert net.config == expected.config
    state = net.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in expected.state_dict().items())
    fake.requests.clear()
    load_model("hf://me/net@main")
    assert not any(request.startswith("GET /me/net/resolve") for request in fake.requests)


def test_a_revision_and_a_file_can_be_named(fake, weights):
    files = {"a.safetensors": weights.read_bytes(), "b.safetensors": b"b"}
    fake.repos["me/net"] = Repo(files)
    assert hub.fetch("hf://me/net@v1/b.safetensors").read_bytes() == b"b"
    assert "GET /me/net/resolve/v1/b.safetensors" in fake.requests
    message = refused(hub.fetch, "hf://me/net")
    assert message.endswith("2 .safetensors files; name one of them: hf://me/net/a.safetensors")


def test_the_only_weights_are_taken_under_any_name(fake):
    fake.repos["me/net"] = Repo({"sub/panini.safetensors": b"w", "model.bin": b"pickle"})
    assert hub.fetch("hf://me/net").read_bytes() == b"w"


def test_pickles_are_never_fetched(fake):
    fake.repos["me/net"] = Repo({"model.pth": b"pickle", "pytorch_model.bin": b"pickle"})
    message = refused(hub.fetch, "hf://me/net")
    assert "holds no .safetensors file, and other files are not fetched" in message
    message = refused(hub.fetch, "hf://me/net/model.pth")
    assert "only .safetensors files are fetched from the hub" in message
    assert not any("resolve" in request for request in fake.requests)


def test_what_is_not_there_is_said_in_a_line(fake):
    fake.repos["me/net"] = Repo({"model.safetensors": b"w"})
    message = refused(hub.fetch, "hf://me/nothing")
    assert message.startswith("hf://me/nothing: no such repository, or a private one; check")
    message = refused(hub.fetch, "hf://me/net@v9")
    assert "the repository has no revision 'v9'" in message
    message = refused(hub.fetch, "hf://me/net/other.safetensors")
    assert "the repository has no such file" in message


def test_a_gated_repository_tells_whom_to_ask(fake):
    fake.repos["me/net"] = Repo({"model.safetensors": b"w"}, gated=True)
    message = refused(hub.fetch, "hf://me/net")
    assert f"its owner grants access; ask for it on {fake.url}/me/net, then run" in message


def test_a_private_repository_opens_with_a_token(fake, monkeypatch):
    fake.repos["me/net"] = Repo({"model.safetensors": b"w"}, private=True)
    assert "or a private one" in refused(hub.fetch, "hf://me/net")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert hub.fetch("hf://me/net").read_bytes() == b"w"


@pytest.mark.parametrize("file", ["model.safetensors", "net.safetensors"])
def test_offline_takes_the_cache_and_asks_nobody(fake, monkeypatch, file):
    from huggingface_hub import constants

    fake.repos["me/net"] = Repo({file: b"w"})
    hub.fetch("hf://me/net")
    fake.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert hub.fetch("hf://me/net").read_bytes() == b"w"
    for name in ("hf://me/other", "hf://me/other/model.safetensors"):
        message = refused(hub.fetch, name)
        assert message == (
            f"{name}: is not in the cache, and HF_HUB_OFFLINE forbids to fetch it; unset it once"
        )
    assert fake.requests == []


@pytest.mark.parametrize("how", ["no server", "a server that is down"])
def test_a_missing_network_takes_the_cache_or_is_said(fake, monkeypatch, how):
    fake.repos["me/net"] = Repo({"model.safetensors": b"w"})
    hub.fetch("hf://me/net")
    if how == "no server":
        cut_off(monkeypatch)
    else:
        fake.broken = True
    assert hub.fetch("hf://me/net").read_bytes() == b"w"
    message = refused(hub.fetch, "hf://me/other")
    assert message.startswith("hf://me/other: the hub cannot be reached, and the model is not in")


def test_a_missing_library_names_the_extra(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'panini-net\[hub\]'"):
        load_model("hf://me/net")


# ----------------------------------------------------------------------------------------------
# Pushing


@pytest.fixture
def logged_in(fake, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return fake


def test_what_was_pushed_can_be_fetched(logged_in, weights, tmp_path):
    card = tmp_path / "card.md"
    card.write_text("# My net\n", encoding="utf-8")
    url = hub.push(str(weights), "me/net", private=True, message="First", card=card)
    assert url == f"{logged_in.url}/me/net/commit/{COMMIT}"
    repo = logged_in.repos["me/net"]
    assert repo.private
    assert repo.messages == ["First"]
    assert repo.files["model.safetensors"] == weights.read_bytes()
    assert repo.files["README.md"].startswith(b"---\nlibrary_name: panini-net\n")
    assert repo.files["README.md"].endswith(b"---\n\n# My net\n")
    config = json.loads(repo.files["config.json"])
    assert config["provenance"] == {"images": 7}
    assert config["config"] == load_model(weights).config.to_dict() | config["config"]
    assert load_model("hf://me/net").config == load_model(weights).config


def test_a_second_push_keeps_the_card_that_is_there(logged_in, weights, tmp_path):
    card = tmp_path / "card.md"
    card.write_text("---\nlicense: mit\n---\nMine.\n", encoding="utf-8")
    hub.push(str(weights), "me/net", card=card)
    hub.push(str(weights), "me/net", message="Again")
    repo = logged_in.repos["me/net"]
    assert repo.files["README.md"] == b"---\nlicense: mit\n---\nMine.\n"
    assert repo.messages[-1] == "Again"
    assert not repo.private


def test_a_push_that_cannot_be_is_refused_in_a_line(fake, weights, tmp_path, monkeypatch):
    from huggingface_hub import constants

    message = refused(hub.push, str(weights), "me/net")
    assert message == (
        "me/net: the hub refuses; run `hf auth login` with a token that may write to me"
    )
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert "expected the name of a repository" in refused(hub.push, str(weights), "net")
    missing = tmp_path / "none.safetensors"
    assert f"{missing}: no such file" in refused(hub.push, str(missing), "me/net")
    message = refused(hub.push, str(weights), "me/net", card=tmp_path / "no.md")
    assert "no.md: cannot be read" in message
    assert fake.repos == {}
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE forbids to upload" in refused(hub.push, str(weights), "me/net")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    cut_off(monkeypatch)
    assert "the hub cannot be reached" in refused(hub.push, str(weights), "me/net")
