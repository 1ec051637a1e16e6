"""Imports point down only: the layers of docs/architecture.md, read off the source with `ast`."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "panini"

# Top to bottom. A module may import its own layer (without a circle) and those below.
LAYERS = [
    {"__main__"},
    {"cli", "web"},
    {
        *("drawing", "restored", "restorer", "upscaler", "editing", "batch", "training"),
        *("evaluation", "peers", "reproduce"),
    },
    {"checkpoints", "data", "shards", "losses", "metrics", "faces"},
    {"models", "features", "degradations", "consistency"},
    {"photos", "deep_files", "metadata", "images", "decoding", "config", "errors", "runtime"},
]
RANK = {unit: rank for rank, layer in enumerate(LAYERS) for unit in layer}
STAGES = {"degradation", "prior", "warmup", "restoration"}

FILES = sorted(PACKAGE.rglob("*.py"))


def parts_of(file: Path) -> list[str]:
    """Dotted name of a file below `panini`: ["models", "fusion"]; [] is the package itself."""
    parts = list(file.relative_to(PACKAGE).with_suffix("").parts)
    return parts[:-1] if parts[-1] == "__init__" else parts


def imports(file: Path) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted name) of everything a file imports, inside functions too."""
    package = ["panini", *file.relative_to(PACKAGE).parent.parts]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield node.lineno, f"{module}.{alias.name}"


def internal(file: Path) -> Iterator[tuple[int, list[str]]]:
    """(line, name below panini) of what a file imports from the package itself."""
    for line, name in imports(file):
        head, *rest = name.split(".")
        if head == "panini":
            yield line, rest


def test_every_unit_has_a_layer() -> None:
    units = {parts[0] for file in FILES if (parts := parts_of(file))}
    assert units <= RANK.keys(), f"place in LAYERS and docs/architecture.md: {units - RANK.keys()}"


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_imports_point_down(file: Path) -> None:
    parts = parts_of(file)
    if not parts:
        return  # the public API gathers names from every layer
    for line, name in internal(file):
        where = f"{file.relative_to(PACKAGE.parent)}:{line}"
        if name == ["__version__"]:
            continue
        assert name, f"{where} imports the public API; import the module that defines the name"
        assert name[0] in RANK, f"{where} imports panini.{name[0]}, which is no unit of LAYERS"
        assert RANK[name[0]] >= RANK[parts[0]], f"{where}: {parts[0]} must not import {name[0]}"


def test_units_of_a_layer_form_no_circle() -> None:
    edges: dict[str, set[str]] = {unit: set() for unit in RANK}
    for file in FILES:
        if parts := parts_of(file):
            edges[parts[0]] |= {name[0] for _, name in internal(file) if name} & RANK.keys()
    for unit in edges:
        seen: set[str] = set()
        todo = edges[unit] - {unit}
        while todo:
            seen |= todo
            todo = {after for before in todo for after in edges[before]} - seen
        assert unit not in seen, f"panini.{unit} imports itself by way of {sorted(seen)}"


def test_stages_meet_only_through_checkpoints() -> None:
    for file in FILES:
        parts = parts_of(file)
        if len(parts) > 1 and parts[0] == "training" and parts[1] in STAGES:
            siblings = {name[1] for _, name in internal(file) if name[:1] == ["training"]}
            wrong = siblings & (STAGES - {parts[1]})
            assert not wrong, f"training.{parts[1]} imports the stage {wrong}"


def test_models_need_torch_and_nothing_else() -> None:
    allowed = {*sys.stdlib_module_names, "torch", "panini"}
    for file in FILES:
        if parts_of(file)[:1] == ["models"]:
            foreign = {name.split(".")[0] for _, name in imports(file)} - allowed
            assert not foreign, f"{file.relative_to(PACKAGE.parent)} imports {foreign}"
