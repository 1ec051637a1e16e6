"""The public names: exactly these, importable, and cheap until one is used."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

import panini

ROOT = Path(__file__).parents[1]


def test_names_are_sorted_and_listed() -> None:
    assert panini.__all__ == sorted(panini.__all__)
    assert dir(panini) == panini.__all__


@pytest.mark.parametrize("name", panini.__all__)
def test_name_is_importable(name: str) -> None:
    value = getattr(panini, name)
    assert value is getattr(panini, name)
    if name != "__version__":
        assert value.__doc__, f"panini.{name} has no docstring"


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse((ROOT / "src" / "panini" / "__init__.py").read_text(encoding="utf-8"))
    block = next(n for n in tree.body if isinstance(n, ast.If))
    typed = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert typed == panini._HOME
    assert {*typed, "__version__"} == set(panini.__all__)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'panini' has no attribute 'restore_photo'"):
        _ = panini.restore_photo


def test_import_is_light() -> None:
    code = "import sys, panini; print([m for m in ('torch', 'numpy', 'cv2') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_version_is_that_of_pyproject() -> None:
    try:
        installed = version("panini-net")
    except PackageNotFoundError:
        pytest.skip("panini-net is not installed here: pip install -e .")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert panini.__version__ == installed == project["version"]


def test_citation_has_the_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {project['version']}\n" in citation
