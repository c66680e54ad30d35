from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fallom._snapshot import database
from fallom._snapshot import reader as reader_module
from fallom._snapshot.entries import Kind
from fallom._snapshot.publish import Publisher
from fallom._snapshot.reader import RETRY_S, SnapshotReader
from fallom._snapshot.schema import Listing
from tests.snapshot.builders import Page, ab_test, ab_tests, config, configs, prompt, prompts
from tests.support.descriptors import nothing_left_open


class Reads:
    """What was read of the database, in order: "manifest", or the hash of an entry."""

    def __init__(self) -> None:
        self.rows: list[str] = []
        self.opened = 0

    def clear(self) -> None:
        self.rows.clear()
        self.opened = 0


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    seen = Reads()
    entry, manifest, reading = database.Rows.entry, database.Rows.manifest, database.reading

    def spied_entry(self: database.Rows, entry_hash: str) -> bytes | None:
        seen.rows.append(entry_hash)
        return entry(self, entry_hash)

    def spied_manifest(self: database.Rows) -> bytes | None:
        seen.rows.append("manifest")
        return manifest(self)

    @contextlib.contextmanager
    def spied_reading(path: Path, timeout_s: float) -> Iterator[database.Rows]:
        seen.opened += 1
        with reading(path, timeout_s) as rows:
            yield rows

    monkeypatch.setattr(database.Rows, "entry", spied_entry)
    monkeypatch.setattr(database.Rows, "manifest", spied_manifest)
    monkeypatch.setattr(reader_module, "reading", spied_reading)
    return seen


def version_of(reader: SnapshotReader, key: str) -> int | None:
    found = reader.config(key)
    return None if found is None else found.version


def alter(directory: Path, statement: str) -> None:
    connection = sqlite3.connect(directory / "cache.db", isolation_level=None)
    connection.execute(statement)
    connection.close()


def test_what_is_published_is_read(publisher: Publisher, directory: Path, page: Page) -> None:
    page.publish(
        publisher,
        configs(config("a", 3)),
        prompts(prompt("p", 2)),
        ab_tests(ab_test("t", "p", "q")),
    )
    reader = page.reader(directory)
    assert version_of(reader, "a") == 3
    found = reader.prompt("p")
    assert found is not None
    assert found.render({"name": "you"})[1] == "hello you"
    test = reader.ab_test("t")
    assert test is not None
    assert [variant.prompt_key for variant in test.variants] == ["p", "q"]
    assert reader.config("p") is None
    assert reader.prompt("a") is None
    assert reader.ab_test("p") is None


def test_nothing_published_is_empty_and_unknown(directory: Path, page: Page) -> None:
    reader = page.reader(directory)
    assert reader.is_empty()
    assert reader.config("a") is None
    assert reader.info().generation == 0
    assert not directory.exists()


def test_without_a_state_directory_everything_is_unknown(page: Page) -> None:
    reader = page.reader(None)
    page.generation = 5
    assert reader.is_empty()
    assert reader.config("a") is None
    assert reader.info().last_error == "there is no state directory"


def test_an_empty_listing_is_not_an_empty_snapshot(
    publisher: Publisher, directory: Path, page: Page
) -> None:
    page.publish(publisher, configs())
    assert not page.reader(directory).is_empty()


def test_the_first_publish_is_seen_at_once(
    publisher: Publisher, directory: Path, page: Page
) -> None:
    reader = page.reader(directory)
    assert reader.is_empty()
    page.publish(publisher, configs(config("a")))
    assert not reader.is_empty()  # no second has passed
    assert version_of(reader, "a") == 1


def test_a_snapshot_of_an_earlier_run_serves_before_the_page_says_anything(
    publisher: Publisher, directory: Path, page: Page
) -> None:
    publisher.publish([configs(config("a"))])
    reader = page.reader(directory)
    assert page.generation == 0
    assert not reader.is_empty()
    assert version_of(reader, "a") == 1


def test_an_unchanged_generation_costs_no_read(
    publisher: Publisher, directory: Path, page: Page, reads: Reads
) -> None:
    page.publish(publisher, configs(config("a")), prompts(prompt("p")))
    reader = page.reader(directory)
    for _ in range(3):
        assert version_of(reader, "a") == 1
        assert reader.config("unknown") is None
        assert reader.config("a", 99) is None
    assert reads.opened == 2  # the manifest, then the one entry that is used
    assert len(reads.rows) == 2


def test_after_a_change_of_one_of_a_thousand_one_connection_reads_two_rows(
    publisher: Publisher, directory: Path, page: Page, reads: Reads
) -> None:
    items = [prompt(f"p{number}") for number in range(1000)]
    page.publish(publisher, prompts(*items))
    reader = page.reader(directory)
    for number in range(0, 1000, 10):
        assert reader.prompt(f"p{number}") is not None
    items[500] = prompt("p500", 2, "new")
    items[501] = prompt("p501", 2, "new")  # not used by this process
    page.publish(publisher, prompts(*items))
    reads.clear()
    found = reader.prompt("p500")
    assert found is not None
    assert found.user.text == "new"
    for number in range(0, 1000, 10):
        assert reader.prompt(f"p{number}") is not None
    assert reads.opened == 1
    assert reads.rows == ["manifest", prompts(items[500]).entries[0].hash]


def test_a_pin_and_the_current_version_share_one_entry(
    publisher: Publisher, directory: Path, page: Page
) -> None:
    page.publish(publisher, configs(config("a", 1)))
    reader = page.reader(directory)
    current, pinned = reader.config("a"), reader.config("a", 1)
    assert current == pinned
    page.publish(publisher, configs(config("a", 2)))
    assert version_of(reader, "a") == 2
    assert reader.config("a", 1) is pinned


def test_a_rollback_to_an_earlier_version_is_followed(
    publisher: Publisher, directory: Path, page: Page
) -> None:
    reader = page.reader(directory)
    for version in (1, 2, 1):
        page.publish(publisher, configs(config("a", version)))
        assert version_of(reader, "a") == version


def test_what_the_reader_holds_of_a_kind_outlives_a_rebuilt_database(
    publisher: Publisher, directory: Path, page: Page
) -> None:
    page.publish(publisher, configs(config("a")), prompts(prompt("p"), prompt("never used")))
    reader = page.reader(directory)
    assert reader.prompt("p") is not None
    (directory / "cache.db").write_bytes(b"garbage")
    page.publish(publisher, configs(config("a", 2)))  # prompts could not be fetched again yet
    assert version_of(reader, "a") == 2
    assert reader.prompt("p") is not None
    assert reader.prompt("never used") is None


@pytest.mark.parametrize("damage", ["garbage", "gone", "fifo", "symlink", "wal", "locked"])
def test_whatever_happens_to_the_file_what_is_held_serves_and_is_retried_a_second_later(
    publisher: Publisher, directory: Path, page: Page, reads: Reads, damage: str
) -> None:
    page.publish(publisher, configs(config("a"), config("b")))
    reader = page.reader(directory, busy_timeout_s=0.01, busy_timeout_first_s=0.01)
    assert version_of(reader, "a") == 1
    path = directory / "cache.db"
    whole = path.read_bytes()
    holder = None
    if damage == "locked":
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN EXCLUSIVE")
    elif damage == "wal":
        Path(f"{path}-wal").write_bytes(b"x")
    else:
        path.unlink()
        if damage == "garbage":
            path.write_bytes(b"garbage" * 1000)
            path.chmod(0o600)
        elif damage == "fifo":
            os.mkfifo(path)
        elif damage == "symlink":
            path.symlink_to("/etc/hostname")
    page.generation += 1
    reads.clear()
    for _ in range(5):
        assert version_of(reader, "a") == 1
        assert reader.config("b") is None  # never used before, and cannot be read
    assert reads.opened == 2  # the manifest once, the entry once
    assert reader.info().last_error

    if holder is not None:
        holder.close()
    if damage == "wal":
        Path(f"{path}-wal").unlink()
    elif damage != "locked":
        path.unlink(missing_ok=True)
        path.write_bytes(whole)
        path.chmod(0o600)
    page.now_s += RETRY_S
    assert reader.config("b") is not None
    assert reader.info().last_error is None


def test_a_new_generation_is_tried_at_once_also_after_a_failure(
    publisher: Publisher, directory: Path, page: Page
) -> None:
    page.publish(publisher, configs(config("a")))
    reader = page.reader(directory)
    assert version_of(reader, "a") == 1
    (directory / "cache.db").write_bytes(b"garbage")
    page.generation += 1
    assert version_of(reader, "a") == 1
    page.publish(publisher, configs(config("a", 2)))
    assert version_of(reader, "a") == 2


def test_a_damaged_entry_does_not_take_away_the_version_that_serves(
    publisher: Publisher, directory: Path, page: Page
) -> None:
    page.publish(publisher, configs(config("a"), config("b")))
    reader = page.reader(directory)
    assert (version_of(reader, "a"), version_of(reader, "b")) == (1, 1)
    publisher.publish([configs(config("a", 2), config("b", 2))])
    damaged = publisher.manifest().find(Kind.CONFIG, "a", None)
    alter(directory, f"UPDATE Cache SET value = x'00' WHERE key = 'e:{damaged}'")
    page.generation += 1
    assert (version_of(reader, "a"), version_of(reader, "b")) == (1, 2)
    assert "damaged" in str(reader.info().last_error)
    page.publish(publisher, configs(config("a", 3), config("b", 2)))
    assert (version_of(reader, "a"), version_of(reader, "b")) == (3, 2)


def test_a_damaged_entry_that_was_never_used_is_unknown_and_looked_at_once_a_second(
    publisher: Publisher, directory: Path, page: Page, reads: Reads
) -> None:
    page.publish(publisher, configs(config("a"), config("b")))
    damaged = publisher.manifest().find(Kind.CONFIG, "a", None)
    alter(directory, f"UPDATE Cache SET value = x'00' WHERE key = 'e:{damaged}'")
    reader = page.reader(directory)
    for _ in range(5):
        assert reader.config("a") is None
    assert version_of(reader, "b") == 1
    opened = reads.opened
    page.now_s += RETRY_S
    assert reader.config("a") is None
    assert reads.opened == opened + 1


@pytest.mark.parametrize("value", ["x'00'", "'text'", "NULL", "zeroblob(300000000)"])
def test_a_damaged_manifest_keeps_what_is_held(
    publisher: Publisher, directory: Path, page: Page, value: str
) -> None:
    page.publish(publisher, configs(config("a")))
    reader = page.reader(directory)
    assert version_of(reader, "a") == 1
    alter(directory, f"UPDATE Cache SET value = {value} WHERE key LIKE 'm:%'")
    page.generation += 1
    assert version_of(reader, "a") == 1
    assert reader.info().last_error


def test_a_reader_many_generations_behind_reads_the_manifest_again_once(
    directory: Path, page: Page, reads: Reads
) -> None:
    publisher = Publisher(directory, manifests_kept=2)
    page.publish(publisher, configs(config("a", 1), config("b", 1, "model-0")))
    reader = page.reader(directory)
    assert version_of(reader, "a") == 1
    for number in range(1, 5):  # not announced yet: the reader's manifest names what is gone
        publisher.publish([configs(config("a", 1), config("b", 1, f"model-{number}"))])
    reads.clear()
    found = reader.config("b")
    assert found is not None
    assert found.models == ("model-4",)
    assert reads.opened == 1
    assert reads.rows.count("manifest") == 1


def test_a_change_between_the_look_at_the_page_and_the_read_is_not_missed(
    publisher: Publisher, directory: Path, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    page.publish(publisher, configs(config("a", 1)))
    reader = page.reader(directory)
    reading = database.reading

    @contextlib.contextmanager
    def then_publishing(path: Path, timeout_s: float) -> Iterator[database.Rows]:
        with reading(path, timeout_s) as rows:
            yield rows
        monkeypatch.undo()
        page.publish(publisher, configs(config("a", 2)))

    monkeypatch.setattr(reader_module, "reading", then_publishing)
    assert not reader.is_empty()
    assert version_of(reader, "a") == 2


def test_threads_of_one_process_read_a_new_generation_once(
    publisher: Publisher, directory: Path, page: Page, reads: Reads
) -> None:
    page.publish(publisher, configs(config("a")))
    reader = page.reader(directory)
    together = threading.Barrier(16)
    found: list[int | None] = []

    def look() -> None:
        together.wait()
        found.append(version_of(reader, "a"))

    threads = [threading.Thread(target=look) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [1] * 16
    assert reads.opened == 2


def test_while_one_thread_reads_the_others_are_served_what_is_held(
    publisher: Publisher, directory: Path, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    page.publish(publisher, configs(config("a")))
    reader = page.reader(directory)
    assert version_of(reader, "a") == 1
    page.publish(publisher, configs(config("a", 2)))
    inside, go_on = threading.Event(), threading.Event()
    reading = database.reading

    @contextlib.contextmanager
    def slow(path: Path, timeout_s: float) -> Iterator[database.Rows]:
        inside.set()
        assert go_on.wait(30)
        with reading(path, timeout_s) as rows:
            yield rows

    monkeypatch.setattr(reader_module, "reading", slow)
    thread = threading.Thread(target=lambda: version_of(reader, "a"))
    thread.start()
    assert inside.wait(30)
    assert version_of(reader, "a") == 1
    go_on.set()
    thread.join()
    assert version_of(reader, "a") == 2


def test_a_lock_held_at_a_fork_does_not_stop_the_child(
    publisher: Publisher, directory: Path, page: Page
) -> None:
    page.publish(publisher, configs(config("a")))
    reader = page.reader(directory)
    assert version_of(reader, "a") == 1
    page.publish(publisher, configs(config("a", 2)))
    reader._lock.current().acquire()  # as a thread that reads, at a fork made in C
    pid = os.fork()
    if pid == 0:
        os._exit(0 if version_of(reader, "a") == 2 else 1)
    _, status = os.waitpid(pid, 0)
    reader._lock.current().release()
    assert os.waitstatus_to_exitcode(status) == 0


def test_nothing_is_open_between_two_reads_and_forks_are_held_off_within(
    publisher: Publisher, directory: Path, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    page.publish(publisher, configs(config("a")))
    depth = 0
    connected: list[int] = []
    connect = sqlite3.connect

    @contextlib.contextmanager
    def held() -> Iterator[None]:
        nonlocal depth
        depth += 1
        yield
        depth -= 1

    def spied(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connected.append(depth)
        return connect(*arguments, **options)

    monkeypatch.setattr(sqlite3, "connect", spied)
    reader = SnapshotReader(lambda: directory, lambda: page.generation, held)
    with nothing_left_open():
        assert version_of(reader, "a") == 1
    assert connected == [1, 1]
    assert depth == 0


def test_info_tells_what_is_held(publisher: Publisher, directory: Path, page: Page) -> None:
    page.publish(publisher, configs(config("a"), config("b")), prompts(prompt("p")))
    page.publish(publisher, configs(config("a")))
    info = page.reader(directory).info()
    assert info.generation == page.generation
    assert info.published_unix_ns > 0
    assert info.counts == {"config": 2, "prompt": 1, "ab_test": 0}
    assert info.removed == ("config 'b'",)
    assert info.last_error is None


def test_a_removed_key_still_serves(publisher: Publisher, directory: Path, page: Page) -> None:
    page.publish(publisher, configs(config("a"), config("b")))
    page.publish(publisher, configs(config("a")))
    assert version_of(page.reader(directory), "b") == 1


def test_a_python_without_sqlite_has_no_snapshot_and_no_exception(
    publisher: Publisher, directory: Path, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    page.publish(publisher, configs(config("a")))
    monkeypatch.setitem(__import__("sys").modules, "sqlite3", None)
    reader = page.reader(directory)
    assert reader.config("a") is None
    assert "no sqlite3" in str(reader.info().last_error)


def test_entries_of_a_newer_format_are_unknown_not_guessed_at(
    publisher: Publisher, directory: Path, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fallom._snapshot import entries

    with monkeypatch.context() as patch:
        patch.setattr(entries, "_FORMAT", 2)
        listing: Listing = configs(config("a"))
    page.publish(publisher, listing)
    assert page.reader(directory).config("a") is None
