"""Being told of an import, and being no trouble to it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fallom._import_watch import when_imported


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(tmp_path)
    before = list(sys.meta_path)
    yield tmp_path
    sys.meta_path[:] = before
    for name in [name for name in sys.modules if name.startswith("watched_")]:
        del sys.modules[name]


def package(folder: Path, name: str, code: str) -> None:
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(code)
    (folder / name / "part.py").write_text("value = 2\n")
    (folder / name / "data.txt").write_text("text")


def test_what_is_imported_is_told_of_at_once() -> None:
    told: list[str] = []
    when_imported("sys", lambda: told.append("sys"))
    assert told == ["sys"]


def test_what_is_imported_later_is_told_of_when_it_is_complete(folder: Path) -> None:
    package(folder, "watched_a", "from watched_a import part\nvalue = part.value\n")
    before = list(sys.meta_path)
    told: list[object] = []
    when_imported("watched_a", lambda: told.append(sys.modules["watched_a"].value))
    assert told == []
    module = importlib.import_module("watched_a")
    assert told == [2]
    importlib.reload(module)
    assert told == [2]
    assert sys.meta_path == before


def test_a_fallom_that_is_imported_anew_watches_beside_the_one_before(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(folder, "watched_again", "value = 1\n")
    before = list(sys.meta_path)
    told: list[str] = []
    when_imported("watched_again", lambda: told.append("before"))
    monkeypatch.delitem(sys.modules, "fallom._import_watch")
    anew = importlib.import_module("fallom._import_watch")
    anew.when_imported("watched_again", lambda: told.append("anew"))
    assert importlib.import_module("watched_again").value == 1
    assert sorted(told) == ["anew", "before"]
    assert sys.meta_path == before


def test_a_part_of_a_package_may_be_waited_for(folder: Path) -> None:
    package(folder, "watched_b", "")
    told: list[str] = []
    when_imported("watched_b.part", lambda: told.append("part"))
    importlib.import_module("watched_b")
    assert told == []
    importlib.import_module("watched_b.part")
    assert told == ["part"]


def test_the_module_is_as_it_would_have_been(folder: Path) -> None:
    from importlib.machinery import SourceFileLoader
    from importlib.resources import files

    package(folder, "watched_c", "")
    when_imported("watched_c", lambda: None)
    module = importlib.import_module("watched_c")
    assert type(module.__spec__.loader) is SourceFileLoader  # type: ignore[union-attr]
    assert module.__loader__ is module.__spec__.loader  # type: ignore[union-attr]
    assert files("watched_c").joinpath("data.txt").read_text() == "text"


def test_an_import_that_fails_fails_as_it_would_and_is_waited_for_still(folder: Path) -> None:
    package(folder, "watched_d", "import watched_nowhere\n")
    told: list[str] = []
    when_imported("watched_d", lambda: told.append("d"))
    with pytest.raises(ModuleNotFoundError, match="watched_nowhere"):
        importlib.import_module("watched_d")
    assert told == []
    (folder / "watched_d" / "__init__.py").write_text("value = 'mended now'\n")
    importlib.invalidate_caches()
    importlib.import_module("watched_d")
    assert told == ["d"]


def test_a_package_that_is_not_there_is_not_there(folder: Path) -> None:
    when_imported("watched_e", lambda: None)
    with pytest.raises(ModuleNotFoundError, match="watched_e"):
        importlib.import_module("watched_e")
