from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from fallom._core.errors import ConfigurationError
from fallom.dev.store import ExposureRow, FetchRow, MetricsRow, Store


def test_rows_of_several_kinds_are_stored_together_or_not_at_all(tmp_path: Path) -> None:
    store = Store(tmp_path / "x.db")
    good = ExposureRow("c", 1, "s", "m", 5, "r")
    bad = MetricsRow("c", "s", None, 5, "r")  # type: ignore[arg-type]
    with pytest.raises(sqlite3.IntegrityError):
        store.add([good, bad])
    assert store.stats()["exposures"]["received"] == 0
    store.add([good, MetricsRow("c", "s", "{}", 5, "r")])
    assert store.rows("exposures", 0, 9) == [{"id": 1, **good._asdict()}]
    assert store.stats()["metrics"]["received"] == 1
    store.close()


def test_two_stores_on_one_file_see_each_other(tmp_path: Path) -> None:
    first, second = Store(tmp_path / "x.db"), Store(tmp_path / "x.db")
    first.add([FetchRow("GET", "/configs", 200, 1, 2, "", "", 0, "r")])
    second.add([FetchRow("GET", "/configs", 304, 1, 2, "", "", 0, "r")])
    assert first.stats()["fetches"] == second.stats()["fetches"] == {"/configs": 2}
    first.close()
    second.close()


def test_file_of_another_program_is_refused_and_left_untouched(tmp_path: Path) -> None:
    path = tmp_path / "theirs.db"
    theirs = sqlite3.connect(path)
    theirs.execute("CREATE TABLE important (x)")
    theirs.commit()
    theirs.close()
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match="another program"):
        Store(path)
    assert path.read_bytes() == before


def test_file_that_is_no_database_is_refused_and_left_untouched(tmp_path: Path) -> None:
    path = tmp_path / "letter.txt"
    path.write_text("Dear reader, " * 400)
    with pytest.raises(ConfigurationError, match="Give another path"):
        Store(path)
    assert path.read_text() == "Dear reader, " * 400


def test_database_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    Store(path).close()
    newer = sqlite3.connect(path)
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(ConfigurationError, match="newer version"):
        Store(path)
