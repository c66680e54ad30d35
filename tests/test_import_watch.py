"""Being told of an import, and being no trouble to it."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

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
    when_imported("watched_nowhere", lambda: None)
    assert sys.meta_path[1:] == before  # one finder for all


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
    assert sys.meta_path[2:] == before


def test_an_import_of_another_thread_that_is_under_way_meanwhile_finds_what_it_would(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow:
        """Stands before the path's own finder, and is being asked while the watch has its module."""

        def find_spec(self, name: str, path: Any, target: Any = None) -> None:
            if name == "watched_other":
                is_asked.set()
                is_told.wait(10)

    def within() -> None:
        is_begun.set()
        is_asked.wait(10)

    def other() -> None:
        is_begun.wait(10)
        found.append(importlib.import_module("watched_other").value)

    is_begun, is_asked, is_told = (threading.Event() for _ in range(3))
    found: list[int] = []
    package(folder, "watched_other", "value = 1\n")
    package(folder, "watched_f", "import sys\nsys.watched_within()\n")
    monkeypatch.setattr(sys, "watched_within", within, raising=False)
    sys.meta_path.insert(sys.meta_path.index(PathFinder), Slow())
    when_imported("watched_f", is_told.set)
    thread = threading.Thread(target=other)
    thread.start()
    importlib.import_module("watched_f")
    thread.join()
    assert found == [1]


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
