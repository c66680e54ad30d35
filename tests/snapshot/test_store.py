from __future__ import annotations

import hashlib
import os
import pickle
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fallom._snapshot import database
from fallom._snapshot.database import DatabaseBrokenError, DatabaseError, reading
from fallom._snapshot.store import RowDisk, opened


@pytest.fixture
def cache_directory(tmp_path: Path) -> Path:
    with opened(str(tmp_path)) as cache, cache.transact():
        cache.set("e:1", b"value")
    os.chmod(tmp_path / "cache.db", 0o600)
    return tmp_path


def test_the_tables_that_diskcache_makes_are_those_that_readers_expect(
    cache_directory: Path,
) -> None:
    with sqlite3.connect(cache_directory / "cache.db") as connection:
        columns = [row[1:3] for row in connection.execute("PRAGMA table_info(Cache)")]
    connection.close()
    assert columns == [
        ("rowid", "INTEGER"),
        ("key", "BLOB"),
        ("raw", "INTEGER"),
        ("store_time", "REAL"),
        ("expire_time", "REAL"),
        ("access_time", "REAL"),
        ("access_count", "INTEGER"),
        ("tag", "BLOB"),
        ("size", "INTEGER"),
        ("mode", "INTEGER"),
        ("filename", "TEXT"),
        ("value", "BLOB"),
    ]


def test_the_schema_that_diskcache_makes_is_the_one_that_is_accepted(cache_directory: Path) -> None:
    with reading(cache_directory / "cache.db", 1.0) as rows:
        rows.check()


def test_a_value_is_in_its_row_raw_and_in_no_file(cache_directory: Path) -> None:
    with sqlite3.connect(cache_directory / "cache.db") as connection:
        found = connection.execute("SELECT key, raw, mode, filename, value FROM Cache").fetchall()
    connection.close()
    assert found == [("e:1", 1, 1, None, b"value")]
    assert os.listdir(cache_directory) == ["cache.db"]


def test_large_values_are_in_their_rows_too(tmp_path: Path) -> None:
    value = os.urandom(3 << 20)
    with opened(str(tmp_path)) as cache:
        cache.set("k", value)
        assert cache.get("k") == value
    assert os.listdir(tmp_path) == ["cache.db"]


def test_the_journal_is_rolled_back_and_nothing_is_evicted(cache_directory: Path) -> None:
    with opened(str(cache_directory)) as cache:
        assert cache._sql("PRAGMA journal_mode").fetchall() == [("delete",)]
        assert cache.eviction_policy == "none"
        assert cache.cull_limit == 0
        assert cache.statistics == 0
        assert cache.size_limit >= 1 << 60
        assert cache.disk.min_file_size >= 1 << 30


class _Trap:
    """A pickle that leaves a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("mode", [0, 1, 2, 3, 4, 5, None, "4"])
@pytest.mark.parametrize("raw", [0, 1])
@pytest.mark.parametrize("filename", [None, "trap.val", "/etc/hostname"])
def test_a_planted_row_runs_nothing_and_reads_no_file(
    cache_directory: Path, mode: Any, raw: int, filename: str | None
) -> None:
    sprung = cache_directory / "sprung"
    trap = pickle.dumps(_Trap(sprung))
    (cache_directory / "trap.val").write_bytes(trap)
    planted = trap if raw == 0 else "k"
    connection = sqlite3.connect(cache_directory / "cache.db")
    with connection:
        connection.execute(
            "INSERT INTO Cache (key, raw, mode, filename, value) VALUES (?, ?, ?, ?, ?)",
            (planted, raw, mode, filename, trap),
        )
    connection.close()
    with opened(str(cache_directory)) as cache:
        for attempt in (
            lambda: cache.get("k"),
            lambda: cache.get("k", read=True),
            lambda: list(cache),
            cache.peekitem,
            lambda: cache.pop("k"),
            lambda: cache.delete("k"),
            lambda: cache.set("k", b"x"),
        ):
            try:
                found = attempt()
            except (DatabaseError, KeyError):
                continue
            assert not isinstance(found, str) or "/" not in found
    assert not sprung.exists()
    assert (cache_directory / "trap.val").exists()


@pytest.mark.parametrize("value", ["text", 5, 1.5, None, ["x"], object(), bytearray(b"x")])
def test_nothing_but_bytes_is_stored(tmp_path: Path, value: Any) -> None:
    with pytest.raises(DatabaseBrokenError, match="refused"), opened(str(tmp_path)) as cache:
        cache.set("k", value)


@pytest.mark.parametrize("key", [b"k", 5, 1.5, None, ("k",)])
def test_nothing_but_text_is_a_key(tmp_path: Path, key: Any) -> None:
    with pytest.raises(DatabaseBrokenError, match="refused"), opened(str(tmp_path)) as cache:
        cache.set(key, b"x")


def test_the_disk_calls_nothing_of_its_base_class() -> None:
    import diskcache

    base = {name for name in vars(diskcache.Disk) if not name.startswith("__")}
    # ``hash`` hashes what ``put`` gives and ``_write`` is called by ``store`` alone.
    assert base - vars(RowDisk).keys() == {"hash", "_write"}


def test_no_pickle_is_loaded_anywhere_in_the_room() -> None:
    room = Path(database.__file__).parent
    for source in room.glob("*.py"):
        assert "import pickle" not in source.read_text()
        assert "super()" not in source.read_text()


@pytest.mark.parametrize("name", ["a b", "q?x=1#f%20", "$HOME", "${HOME}x", "日本", "~", "a'b\"c"])
def test_odd_directories_are_found_by_both_sides(tmp_path: Path, name: str) -> None:
    directory = tmp_path / name
    directory.mkdir()
    with opened(str(directory)) as cache:
        cache.set("m:1", b"x")
    os.chmod(directory / "cache.db", 0o600)
    with reading(directory / "cache.db", 1.0) as rows:
        assert rows.manifest() == b"x"
    assert os.listdir(directory) == ["cache.db"]


def test_reading_needs_the_standard_library_only() -> None:
    code = (
        "import sys; import fallom._snapshot.reader, fallom._snapshot.publish\n"
        "assert not {'diskcache', 'sqlite3', 'pickle', 'requests'} & set(sys.modules), "
        "sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_a_full_disk_is_said_to_be_one(tmp_path: Path) -> None:
    def fill() -> None:
        with opened(str(tmp_path)) as cache:
            cache._sql("PRAGMA max_page_count = 12").fetchall()
            cache.set("k", os.urandom(1 << 20))

    with pytest.raises(DatabaseError, match="full") as caught:
        fill()
    assert not isinstance(caught.value, DatabaseBrokenError)


def _altered(directory: Path, statement: str) -> None:
    connection = sqlite3.connect(directory / "cache.db", isolation_level=None)
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute(statement)
    connection.close()


_BOMB = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT"


@pytest.mark.parametrize(
    "statements",
    [
        ["CREATE TRIGGER t AFTER INSERT ON Cache BEGIN DELETE FROM Settings; END"],
        ["CREATE VIEW v AS SELECT * FROM Cache"],
        ["CREATE TABLE other (x)"],
        ["CREATE INDEX other ON Cache (tag)"],
        ["ALTER TABLE Cache ADD COLUMN more"],
        ["DROP TRIGGER Settings_size_insert"],
        ["INSERT INTO Settings VALUES ('_sql', 'x')"],
        ["INSERT INTO Settings VALUES ('sqlite_writable_schema', 1)"],
        ["INSERT INTO Settings VALUES ('disk_extra', 1)"],
        ["PRAGMA journal_mode = wal"],
        ["INSERT INTO Cache (key, raw, mode, value) VALUES ('k', 1, 4, x'00')"],
        ["INSERT INTO Cache (key, raw, mode, value) VALUES (x'00', 0, 1, x'00')"],
        ["INSERT INTO Cache (key, raw, mode, value) VALUES (x'00', 1, 1, x'00')"],
        ["INSERT INTO Cache (key, raw, mode, value) VALUES ('k', 1, 1, 'text')"],
        ["INSERT INTO Cache (key, raw, mode, filename) VALUES ('k', 1, 1, '/etc/passwd')"],
    ],
    ids=lambda statements: statements[0][:40],
)
def test_a_schema_setting_or_row_of_somebody_elses_is_broken(
    cache_directory: Path, statements: list[str]
) -> None:
    for statement in statements:
        _altered(cache_directory, statement)
    with (
        pytest.raises(DatabaseBrokenError),
        reading(cache_directory / "cache.db", 1.0) as rows,
    ):
        rows.check()


@pytest.mark.parametrize(
    "statements",
    [
        ["DROP TABLE Cache"],
        ["DROP TABLE Cache", f"CREATE VIEW Cache AS {_BOMB} x AS value, 'e:1' AS key FROM n"],
        ["DROP TABLE Cache", "CREATE TABLE Cache (key, raw, mode, value)"],
        ["ALTER TABLE Cache ADD COLUMN more AS (zeroblob(1000000000))"],
    ],
    ids=["none", "view", "other", "generated"],
)
def test_readers_select_from_nothing_but_the_table_itself(
    cache_directory: Path, statements: list[str]
) -> None:
    for statement in statements:
        _altered(cache_directory, statement)
    with (
        pytest.raises(DatabaseBrokenError, match="table"),
        reading(cache_directory / "cache.db", 1),
    ):
        pytest.fail("it was opened")


@pytest.mark.parametrize("value", ["'text'", "5", "NULL", "zeroblob(100000000)"])
def test_readers_take_nothing_but_blobs_of_a_bearable_length(
    cache_directory: Path, value: str
) -> None:
    _altered(cache_directory, f"UPDATE Cache SET value = {value}")
    with reading(cache_directory / "cache.db", 1.0) as rows:
        assert rows.entry("1") is None


def test_the_accepted_schema_is_pinned_by_its_hash(cache_directory: Path) -> None:
    connection = sqlite3.connect(cache_directory / "cache.db")
    connection.text_factory = bytes
    found = connection.execute(
        "SELECT type, sql FROM sqlite_master WHERE name = 'Cache'"
    ).fetchall()
    connection.close()
    assert hashlib.sha256(repr(found).encode()).hexdigest() == database._TABLE_SHA256


def test_only_its_owner_can_read_what_is_written(cache_directory: Path) -> None:
    mode = stat.S_IMODE(os.stat(cache_directory / "cache.db").st_mode)
    assert mode == 0o600


def test_all_reads_of_one_opening_see_one_state(cache_directory: Path) -> None:
    writer = sqlite3.connect(cache_directory / "cache.db", timeout=0, isolation_level=None)
    with reading(cache_directory / "cache.db", 1.0) as rows:
        assert rows.entry("1") == b"value"
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("UPDATE Cache SET value = x'00'")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            writer.execute("COMMIT")
        assert rows.entry("1") == b"value"
    writer.execute("COMMIT")
    writer.close()
    with reading(cache_directory / "cache.db", 1.0) as rows:
        assert rows.entry("1") == b"\0"


def test_a_journal_that_is_unlinked_at_this_very_moment_is_no_damage(
    cache_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = f"{cache_directory}/cache.db-journal"
    Path(journal).touch(mode=0o600)
    lstat = os.lstat

    def between(path: str) -> os.stat_result:
        found = lstat(path)
        if path == journal:  # its last name went after it was found by it
            fields = list(found)
            fields[stat.ST_NLINK] = 0
            found = os.stat_result(fields)
        return found

    monkeypatch.setattr(os, "lstat", between)
    database.look_at(cache_directory / "cache.db")
