"""Which photos are meant, and the file that each of them becomes."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from panini.errors import ConfigError, ImageError
from panini.images import FORMATS, IMAGE_SUFFIXES, check_format, find_images
from panini.photos import suffix_for, variation_files

REPORT = "report.jsonl"
"""Name of the file that says that a folder holds results."""
FACES = "faces"
"""Folder of the single faces, beside their photo."""
_FACE = re.compile(r"(.+)_[0-9]+_(?:lq|restored)\.png", re.IGNORECASE)
"""Name of a single face; the group is what it has of its photo's."""
_DOCUMENTS = frozenset(
    (".pdf", ".psd", ".jp2", ".jxl", ".jpe", ".svg", ".eps", ".dng", ".cr2", ".nef", ".arw", ".ico")
)
"""Suffixes of files that somebody may hope for."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One photo."""

    source: Path
    """The file to read."""
    target: Path
    """The file to write; its suffix is the format."""
    stem: str = ""
    """Begins the names of what is written beside it: variations and faces. "" is the target's."""

    @property
    def beside(self) -> Path:
        """Name by which files beside the target are called."""
        return self.target.with_name((self.stem or self.target.stem) + self.target.suffix)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What was asked for, as files."""

    jobs: list[Job] = field(default_factory=list)
    """The photos in their order; no two have the same target."""
    problems: list[str] = field(default_factory=list)
    """One line for each argument or folder that is no good."""
    left_out: list[str] = field(default_factory=list)
    """One line for each folder of earlier results, and for the files of kinds that are not read."""


def make_plan(
    photos: Sequence[Path],
    out: Path,
    *,
    recursive: bool = False,
    suffix: str | None = None,
    variations: int = 0,
) -> Plan:
    """Find the photos, name their results, and make OUT.

    In a folder, hidden files and folders, linked folders, OUT itself and folders of earlier results
    are left out. Two photos that would become one file (a.jpg and a.png as WebP) get names of
    their own (a.webp, a-2.webp), and so does one that would become the file of another photo.

    Args:
        photos: Files, and folders.
        out: A folder, which need not exist; or, for one photo, the file to write.
        recursive: Take the folders below a folder too, and keep their tree in OUT.
        suffix: Format of the results (".png"); None keeps each photo's own, where it can be
            written.
        variations: Of each photo, which are files as well.

    Raises:
        ImageError: OUT is a file where a folder is needed, or cannot be made.
        ConfigError: `suffix` is of no format that can be written, or OUT is a file with another.
        MissingExtraError: `suffix` needs a package that is not installed.
    """
    if suffix is not None:
        if suffix not in FORMATS:
            known = " ".join(sorted(name[1:] for name in FORMATS))
            raise ConfigError(f"--format: cannot write {suffix[1:]!r}; use one of {known}")
        check_format(Path(f"--format {suffix}"))
    problems: list[str] = []
    left_out: list[str] = []
    found: dict[Path, Path] = {}
    for source, name in _find(photos, out, recursive, problems, left_out):
        found.setdefault(source, name)
    if out.suffix.lower() in FORMATS and not out.is_dir():
        if recursive:
            raise ImageError(f"{out}: is a file's name, but -r fills a folder")
        return _into_file(list(found), out, suffix, len(photos), problems)
    if out.exists() and not out.is_dir():
        raise ImageError(f"{out}: is a file, expected a folder")
    if len(found) == 1 and not recursive and not out.exists():
        _check_not_a_file(out)
    jobs: list[Job] = []
    # The file of no photo may become the result of another.
    taken = {_key(source) for source in found}
    for source, name in found.items():
        target = _free(out / _result_name(name, suffix), taken, own=_key(source))
        jobs.append(Job(source=source, target=target))
    if jobs:
        make_folder(out)
    return Plan(jobs=_with_stems(jobs, variations), problems=problems, left_out=left_out)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it.

    Raises:
        ImageError: It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImageError(f"{folder}: cannot be made ({error.strerror})") from error


def _find(
    photos: Sequence[Path],
    out: Path,
    recursive: bool,
    problems: list[str],
    left_out: list[str],
) -> Iterator[tuple[Path, Path]]:
    """(photo, its name below OUT) of every argument."""
    for photo in photos:
        try:
            if recursive and photo.is_dir():
                inside = _photos_below(photo, out, problems, left_out)
                yield from ((path, path.relative_to(photo)) for path in inside)
            else:
                yield from ((path, Path(path.name)) for path in find_images([photo]))
        except ImageError as error:
            problems.append(str(error))
        except OSError as error:
            problems.append(f"{photo}: cannot be read ({error.strerror})")


def _photos_below(folder: Path, out: Path, problems: list[str], left_out: list[str]) -> list[Path]:
    """The photos of a tree, each folder's own before those of the folders in it."""
    if _same(folder, out):
        raise ImageError(f"{out}: is the folder of the photos itself; choose another output")

    def unreadable(error: OSError) -> None:
        problems.append(f"{error.filename}: the folder cannot be read ({error.strerror})")

    found: list[Path] = []
    known = len(problems)
    # Linked folders are not followed: they may lead back, and photos would be done twice.
    for place, folders, names in os.walk(folder, onerror=unreadable):
        here = Path(place)
        left_out += _not_read(here, folders, names, out)
        folders[:] = sorted(name for name in folders if not _left_out(here / name, out))
        found += [path for name in sorted(names) if _is_photo(path := here / name)]
    if not found and len(problems) == known:
        raise ImageError(f"{folder}: the folder holds no image")
    return found


def _not_read(here: Path, folders: list[str], names: list[str], out: Path) -> Iterator[str]:
    """A line for each thing in a folder that somebody may miss among the results."""
    for name in sorted(folders):
        inner = here / name
        if not name.startswith(".") and not _same(inner, out) and (inner / REPORT).is_file():
            yield f"{inner}: holds the results of an earlier run, left out"
    kinds = [suffix for name in names if (suffix := Path(name).suffix.lower()) in _DOCUMENTS]
    if kinds:
        files = "1 file" if len(kinds) == 1 else f"{len(kinds)} files"
        told = ", ".join(sorted(set(kinds)))
        yield f"{here}: {files} left out of kinds that are not read ({told})"


def _left_out(folder: Path, out: Path) -> bool:
    return folder.name.startswith(".") or _same(folder, out) or (folder / REPORT).is_file()


def _same(first: Path, second: Path) -> bool:
    try:
        return first.samefile(second)
    except OSError:
        return False


def _is_photo(path: Path) -> bool:
    if path.name.startswith(".") or path.suffix.lower() not in IMAGE_SUFFIXES:
        return False
    # A link to nowhere is kept, so that its line says so; a pipe would never end.
    return path.is_file() or (path.is_symlink() and not path.exists())


def _into_file(
    found: list[Path], out: Path, suffix: str | None, count: int, problems: list[str]
) -> Plan:
    if count > 1 or len(found) > 1:
        raise ImageError(f"{out}: is one file for {max(count, len(found))} photos; give a folder")
    if suffix is not None and not _same_format(out, suffix):
        raise ConfigError(f"--format {suffix[1:]}: but the file {out} says its format itself")
    jobs = [Job(source=source, target=out) for source in found]
    if jobs:
        make_folder(out.parent)
    return Plan(jobs=jobs, problems=problems)


def _result_name(name: Path, suffix: str | None) -> Path:
    """The name in its new format; kinds that are not written become PNG, under the whole name."""
    if suffix is not None:
        return name if _same_format(name, suffix) else name.with_suffix(suffix)
    written = suffix_for(name)
    return name if written == name.suffix.lower() else name.with_name(name.name + written)


def _same_format(name: Path, suffix: str) -> bool:
    """Whether a file is of a format already: .jpeg and .jpg are one."""
    return FORMATS.get(name.suffix.lower()) is FORMATS[suffix]


def _free(target: Path, taken: set[str], own: str) -> Path:
    """The target, or the first of target-2, target-3, … that is not `taken`, where it is noted.

    The photo's own file is let pass: that a photo is its own result is for the run to refuse.
    """
    free, number = target, 2
    while (key := _key(free)) in taken and key != own:
        free = target.with_stem(f"{target.stem}-{number}")
        number += 1
    taken.add(key)
    return free


def _key(path: Path) -> str:
    """Equal for paths of one file: a disk may hold A.jpg and a.jpg to be one."""
    return _folded(path.resolve())


def _folded(path: Path) -> str:
    return str(path).casefold()


def _with_stems(jobs: Sequence[Job], variations: int) -> list[Job]:
    """Jobs under whose stems no two write the same file beside their targets.

    Single faces are reckoned with whether they are asked for or not: names stay the same.
    """
    # All of them lie below one folder, so that their names tell them apart.
    stems = Counter(_folded(job.target.with_suffix("")) for job in jobs)
    targets = {_folded(job.target) for job in jobs}
    as_faces = {_photo_of_face(job.target) for job in jobs}

    def clashes(job: Job) -> bool:
        files = variation_files(job.target, variations) if variations else []
        shared = stems[_folded(job.target.with_suffix(""))] > 1
        is_face = _folded(job.target.with_suffix("")) in as_faces
        return shared or is_face or not targets.isdisjoint(map(_folded, files))

    return [replace(job, stem=job.target.name) if clashes(job) else job for job in jobs]


def _photo_of_face(target: Path) -> str | None:
    """Of a target that has the name of a single face, its photo's without the suffix."""
    named = _FACE.fullmatch(target.name)
    if named is None or target.parent.name.casefold() != FACES:
        return None
    return _folded(target.parent.with_name(named[1]))


def _check_not_a_file(out: Path) -> None:
    """Refuse a folder that was meant to be a file of a kind that is not written.

    Raises:
        ConfigError: It is named like one.
    """
    suffix = out.suffix.lower()
    if suffix in IMAGE_SUFFIXES | _DOCUMENTS:
        known = " ".join(sorted(FORMATS))
        raise ConfigError(f"{out}: cannot write '{suffix}' files; use one of {known}, or a folder")
