"""The README (and the other pages) say only what is true: commands, files and snippets."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import typer

from panini.checkpoints import SPECS
from panini.cli.main import app

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "CONTRIBUTING.md", "examples/README.md"]
PAGES += sorted(
    str(page.relative_to(ROOT))
    for name in ("docs", "model_cards")
    for page in (ROOT / name).rglob("*.md")
)

FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
OURS = re.compile(r"^(examples|configs|docs|model_cards|benchmarks|tests|src)/")


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a page in one language."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [body for tag, body in FENCE.findall(text) if tag == language]


def commands() -> list[tuple[str, list[str]]]:
    """(page, words) of every line of every bash block, comments taken off."""
    lines = [
        (page, line)
        for page in PAGES
        for block in blocks(page, "bash")
        for line in block.replace("\\\n", " ").splitlines()
    ]
    split = [(page, shlex.split(line, comments=True)) for page, line in lines]
    return [(page, words) for page, words in split if words]


def case_name(case: tuple[str, list[str]]) -> str:
    return f"{case[0]}: {' '.join(case[1])}"


PANINI = [case for case in commands() if case[1][0] == "panini"]
SNIPPETS = blocks("README.md", "python")


def mute(command: Any) -> None:
    """Let a tree of commands parse its arguments and then do nothing."""
    command.callback = lambda **_: None
    for child in getattr(command, "commands", {}).values():
        mute(child)


@pytest.mark.parametrize("case", PANINI, ids=case_name)
def test_command_parses(case: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    command = typer.main.get_command(app)
    mute(command)
    # Raises on an unknown command or option, and on a missing, bad or additional value.
    command.main(case[1][1:], prog_name="panini", standalone_mode=False)


@pytest.mark.parametrize("case", commands(), ids=case_name)
def test_named_files_and_targets_exist(case: tuple[str, list[str]]) -> None:
    words = case[1]
    for word in words:
        if OURS.match(word):
            assert (ROOT / word).exists(), f"{case[0]} names {word}"
    if words[0] == "make":
        targets = re.findall(r"^([\w.]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert words[1] in targets


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in LINK.findall(text):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert ((ROOT / page).parent / target).exists(), f"{page} links to {target}"


@pytest.mark.skipif("mobile-mfr" not in SPECS, reason="the weights of mobile-mfr do not ship yet")
@pytest.mark.parametrize("snippet", SNIPPETS, ids=[f"block{i}" for i in range(len(SNIPPETS))])
def test_python_snippet_runs(snippet: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    exec(compile(snippet, "README.md", "exec"), {"__name__": "__readme__"})
    for name in re.findall(r'\.save\("([^"]+)"\)', snippet):
        assert (tmp_path / name).stat().st_size > 0
