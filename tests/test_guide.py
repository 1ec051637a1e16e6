"""The Python of docs/guide.md runs as it stands there."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from panini.checkpoints import SPECS

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")
ONE, MANY = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)

pytestmark = pytest.mark.skipif(
    "mobile-mfr" not in SPECS, reason="the weights of mobile-mfr do not ship yet"
)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with one of the examples, so that it takes seconds."""
    (tmp_path / "examples").mkdir()
    shutil.copy(ROOT / "examples" / "astronaut_lq.png", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)


def test_one_photo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(ONE, "docs/guide.md", "exec"), {"__name__": "__guide__"})
    assert (tmp_path / "out.jpg").stat().st_size > 0
    assert "'prior_bias': {'64': 1.0}" in capsys.readouterr().out


def test_many_photos(tmp_path: Path) -> None:
    exec(compile(MANY, "docs/guide.md", "exec"), {"__name__": "__guide__"})
    lines = (tmp_path / "album" / "report.jsonl").read_text().splitlines()
    (line,) = map(json.loads, lines)
    assert (line["output"], line["state"]) == ("astronaut_lq.png", "done")
    for key in line:
        assert f"`{key}`" in TEXT
