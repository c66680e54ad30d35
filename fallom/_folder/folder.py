"""``Folder``: configs, prompts and A/B tests from files, read again when they are edited.

    configs/*.yaml   prompts/*.yaml   prompt-ab-tests/*.yaml (or ab-tests/)      also .yml, .json

A file holds one object, a list of objects, an object with ``versions:``, or a whole payload
(``{"configs": [...]}``). The key defaults to the file's name; the highest version is the current one.

Freshness is one ``stat`` a file a request: no watcher, no thread, and no edit is ever seen late. A
file that cannot be read or served keeps what it last gave, whole; the others are served.
"""

from __future__ import annotations

import difflib
import errno
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from fallom._core.errors import ConfigurationError
from fallom._folder.documents import Document, FileError, load_document
from fallom._folder.shapes import SHAPES, Check

__all__ = ["Catalogue", "Folder", "Problem"]

DIRECTORIES: Final = {
    "configs": "configs",
    "prompts": "prompts",
    "prompt-ab-tests": "prompt_ab_tests",
    "ab-tests": "prompt_ab_tests",
}
_ENDINGS: Final = (".yaml", ".yml", ".json")
_FILE_BYTES_MAX: Final = 16 << 20  # a prompt is kilobytes; this is a wrong file
# A file that changed this shortly before it was read may change again within the same tick of the
# file system's clock (4 to 10 ms on Linux), with the same size; so it is read once more.
_SETTLED_NS: Final = 100_000_000


@dataclass(frozen=True, slots=True)
class Problem:
    """Something about a file that its author should know."""

    file: str
    line: int
    column: int
    message: str
    is_error: bool = True

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place}: {'' if self.is_error else 'warning: '}{self.message}"

    def to_dict(self) -> dict[str, Any]:
        """Give the fields by name, for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What is served at one moment. Versions ascend, so the last one of a key is current."""

    entries: dict[str, dict[str, dict[int, dict[str, Any]]]]  # kind -> key -> version -> entry
    problems: tuple[Problem, ...]

    def all_versions(self, kind: str) -> list[dict[str, Any]]:
        """Give every version of every key."""
        return [entry for versions in self.entries[kind].values() for entry in versions.values()]

    def current(self, kind: str) -> list[dict[str, Any]]:
        """Give the current version of every key."""
        return [versions[max(versions)] for versions in self.entries[kind].values()]

    def version(self, kind: str, key: str, version: int) -> dict[str, Any] | None:
        """Give one version, or None."""
        return self.entries[kind].get(key, {}).get(version)


@dataclass(slots=True)
class _File:
    signature: tuple[int, ...]
    read_unix_ns: int
    entries: list[tuple[dict[str, Any], int, int]]  # entry, line, column; the last good ones
    problems: list[Problem]

    def is_fresh(self, signature: tuple[int, ...]) -> bool:
        settled = self.read_unix_ns - signature[0] > _SETTLED_NS
        return settled and self.signature == signature


class Folder:
    """A folder of files. Blocks for the time of its stats; not safe for two threads at once."""

    def __init__(self, root: Path) -> None:
        """Take a folder.

        Raises:
            ConfigurationError: It is not a directory that can be read.
        """
        self.root = root
        try:
            names = os.listdir(root)
        except OSError as error:
            raise ConfigurationError(
                f"FOLDER {root}: {error.strerror}; expected a directory that holds configs/, "
                "prompts/ or prompt-ab-tests/. Without FOLDER a sample is served.",
                "folder",
            ) from None
        self._files: dict[tuple[str, str], _File] = {}
        self._catalogue: Catalogue | None = None
        self.notes = tuple(_notes(root, names))

    def catalogue(self) -> Catalogue:
        """Give what the files say now; the same object as before when nothing changed."""
        found: dict[tuple[str, str], _File] = {}
        changed = self._catalogue is None
        for kind, name, path in self._list():
            known = self._files.get((kind, name))
            file = _refreshed(known, kind, name, path)
            changed = changed or file is not known
            found[kind, name] = file
        if changed or found.keys() != self._files.keys():
            self._files = found
            self._catalogue = _assembled(found)
        assert self._catalogue is not None
        return self._catalogue

    def _list(self) -> Iterator[tuple[str, str, Path]]:
        for directory, kind in DIRECTORIES.items():
            try:
                names = sorted(os.listdir(self.root / directory))
            except OSError:
                continue  # not there: the folder has none of this kind
            for name in names:
                if name.endswith(_ENDINGS) and not name.startswith("."):
                    yield kind, f"{directory}/{name}", self.root / directory / name


def _notes(root: Path, names: list[str]) -> Iterator[str]:
    for name in sorted(names):
        close = difflib.get_close_matches(name, DIRECTORIES, n=1)
        if close and name not in DIRECTORIES and (root / name).is_dir():
            yield f"{root / name} is not read; did you mean {close[0]}/?"
    if not set(names) & set(DIRECTORIES):
        yield f"{root} holds no configs/, prompts/ or prompt-ab-tests/ yet; nothing is served."


def _refreshed(known: _File | None, kind: str, name: str, path: Path) -> _File:
    try:
        status = path.stat()
        signature = (status.st_mtime_ns, status.st_size, status.st_ino)
        if known and known.is_fresh(signature):
            return known
        read_unix_ns = time.time_ns()
        if not stat.S_ISREG(status.st_mode):  # a FIFO would never end
            raise OSError(errno.EINVAL, "it is not a regular file")
        entries, problems = _read(kind, name, path, status.st_size)
    except OSError as error:
        signature, read_unix_ns = (0, 0, 0), 0
        entries, problems = None, [Problem(name, 0, 0, f"cannot be read: {error.strerror}")]
    if entries is None:
        entries = known.entries if known else []
    if known and (known.entries, known.problems) == (entries, problems):
        known.signature, known.read_unix_ns = signature, read_unix_ns
        return known
    return _File(signature, read_unix_ns, entries, problems)


def _read(
    kind: str, name: str, path: Path, size: int
) -> tuple[list[tuple[dict[str, Any], int, int]] | None, list[Problem]]:
    """Give the entries of a file, or None and the reason."""
    if size > _FILE_BYTES_MAX:
        return None, [Problem(name, 0, 0, f"is {size} bytes; expected at most {_FILE_BYTES_MAX}")]
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return None, [Problem(name, 0, 0, f"is not UTF-8 (byte {error.start}); save it as UTF-8")]
    try:
        document = load_document(text, path.suffix == ".json")
        check = Check(document)
        entries = [
            (SHAPES[kind](check, entry, at, key, version), *_place(document, at))
            for entry, at, key, version in _spread(document, kind, path.stem)
        ]
    except FileError as error:
        return None, [Problem(name, error.line, error.column, str(error))]
    except ValueError as error:  # a key of more digits than Python writes
        return None, [Problem(name, 0, 0, str(error))]
    problems = []
    for message, at in check.warnings:
        line, column = _place(document, at)
        problems.append(Problem(name, line, column, message, is_error=False))
    return entries, problems


def _spread(
    document: Document, kind: str, stem: str
) -> Iterator[tuple[Any, tuple[str | int, ...], str, int]]:
    """Give (entry, path, default key, default version) of each entry of a document."""
    data = document.data
    path: tuple[str | int, ...] = ()
    if data is None:
        raise FileError(f"is empty; expected one of {kind.replace('_', ' ')}, or a list of them")
    if isinstance(data, dict) and kind in data:
        data, path = data[kind], (kind,)
    if isinstance(data, list):
        for i, entry in enumerate(data):
            yield entry, (*path, i), stem, 1
    elif isinstance(data, dict) and "versions" in data:
        versions = data["versions"]
        if not isinstance(versions, list) or not versions:
            raise document.error("versions: expected a list of at least one", (*path, "versions"))
        shared = {name: value for name, value in data.items() if name != "versions"}
        for i, entry in enumerate(versions):
            merged = {**shared, **entry} if isinstance(entry, dict) else entry
            yield merged, (*path, "versions", i), stem, i + 1
    else:
        yield data, path, stem, 1


def _place(document: Document, path: tuple[str | int, ...]) -> tuple[int, int]:
    error = document.error("", path)
    return error.line, error.column


def _assembled(files: dict[tuple[str, str], _File]) -> Catalogue:
    entries: dict[str, dict[str, dict[int, dict[str, Any]]]] = {kind: {} for kind in SHAPES}
    owners: dict[tuple[str, str, int], str] = {}
    problems: list[Problem] = []
    for (kind, name), file in files.items():
        problems += file.problems
        for entry, line, column in file.entries:
            key, version = entry["key"], entry["version"]
            owner = owners.setdefault((kind, key, version), f"{name}:{line}")
            if owner != f"{name}:{line}" or version in entries[kind].get(key, {}):
                message = (
                    f"version {version} of {key!r} is given by {owner} already; "
                    "that one is served: change the key or the version here"
                )
                problems.append(Problem(name, line, column, message))
                continue
            entries[kind].setdefault(key, {})[version] = entry
    for kind, keys in entries.items():
        entries[kind] = {key: dict(sorted(keys[key].items())) for key in sorted(keys)}
    problems += _dangling(entries, owners)
    return Catalogue(entries, tuple(problems))


def _dangling(
    entries: dict[str, dict[str, dict[int, dict[str, Any]]]],
    owners: dict[tuple[str, str, int], str],
) -> Iterator[Problem]:
    for key, versions in entries["prompt_ab_tests"].items():
        for version, test in versions.items():
            for variant in test["variants"]:
                wanted, number = variant["prompt_key"], variant["prompt_version"]
                known = entries["prompts"].get(wanted, {})
                if not known or (number is not None and number not in known):
                    shown = wanted if number is None else f"{wanted} version {number}"
                    file, _, line = owners["prompt_ab_tests", key, version].rpartition(":")
                    message = f"test {key!r} refers to prompt {shown!r}, which no file gives"
                    yield Problem(file, int(line), 1, message, is_error=False)
