from __future__ import annotations

import logging
import os
import sqlite3
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from fallom._snapshot import publish as publish_module
from fallom._snapshot.entries import Kind
from fallom._snapshot.publish import Publisher, PublishError
from fallom._snapshot.schema import Listing, read_config
from tests.snapshot.builders import (
    Page,
    ab_test,
    ab_tests,
    config,
    configs,
    prompt,
    prompts,
    removed,
)


def rows(directory: Path, prefix: str) -> set[str]:
    connection = sqlite3.connect(directory / "cache.db")
    keys = {key for (key,) in connection.execute("SELECT key FROM Cache")}
    connection.close()
    return {key for key in keys if key.startswith(prefix)}


def test_nothing_published_is_generation_0_and_makes_no_file(
    publisher: Publisher, directory: Path
) -> None:
    assert publisher.manifest().generation == 0
    assert publisher.publish() == 0
    assert not directory.exists()


def test_the_generation_is_the_time_and_always_grows(directory: Path) -> None:
    now_ns = 1_000_000
    publisher = Publisher(directory, unix_ns=lambda: now_ns)
    assert publisher.publish([configs(config("a"))]) == 1_000_000
    now_ns = 2_000_000
    assert publisher.publish([configs(config("a", 2))]) == 2_000_000
    now_ns = 500  # the clock went back
    assert publisher.publish([configs(config("a", 3))]) == 2_000_001
    assert Publisher(directory, unix_ns=lambda: 5).publish([configs(config("a", 4))]) == 2_000_002


def test_publishing_the_same_again_keeps_the_generation_and_writes_nothing(
    publisher: Publisher, directory: Path
) -> None:
    listings = [configs(config("a")), prompts(prompt("p")), ab_tests(ab_test("t", "p"))]
    generation = publisher.publish(listings)
    before = (directory / "cache.db").read_bytes()
    assert publisher.publish(listings) == generation
    assert Publisher(directory).publish(listings) == generation
    assert publisher.publish() == generation
    assert (directory / "cache.db").read_bytes() == before


def test_a_kind_without_a_listing_stays_as_it_is(publisher: Publisher) -> None:
    publisher.publish([configs(config("a")), prompts(prompt("p"))])
    publisher.publish([configs(config("b"))])
    manifest = publisher.manifest()
    assert manifest.find(Kind.CONFIG, "a", None)
    assert manifest.find(Kind.PROMPT, "p", None)
    assert Kind.AB_TEST not in manifest.sections


def test_an_empty_listing_at_the_start_is_known_and_published(publisher: Publisher) -> None:
    assert publisher.publish([configs()]) > 0
    assert publisher.manifest().sections[Kind.CONFIG] == {}


def test_keys_that_are_not_listed_any_more_are_reported_and_stay(publisher: Publisher) -> None:
    publisher.publish([configs(config("a"), config("b"))])
    publisher.publish([configs(config("a"))])
    assert removed(publisher) == ["b"]
    assert publisher.manifest().find(Kind.CONFIG, "b", None)
    publisher.publish([configs()])
    assert removed(publisher) == ["b"]


def test_only_what_changed_is_written(publisher: Publisher, directory: Path) -> None:
    items = [prompt(f"p{number}") for number in range(50)]
    publisher.publish([prompts(*items)])
    before = rows(directory, "e:")
    items[7] = prompt("p7", 2, "new")
    publisher.publish([prompts(*items)])
    assert len(rows(directory, "e:") - before) == 1
    assert before < rows(directory, "e:")


def test_the_last_manifests_stay_and_what_none_of_them_names_goes(directory: Path) -> None:
    publisher = Publisher(directory, manifests_kept=3)
    for number in range(10):  # the content of one version is edited again and again
        publisher.publish([configs(config("a", 1, f"model-{number}"))])
    assert len(rows(directory, "m:")) == 3
    assert len(rows(directory, "e:")) == 3
    again = Publisher(directory, manifests_kept=3)
    again.publish([configs(config("a", 1, "model-10"))])
    assert len(rows(directory, "m:")) == 3
    assert len(rows(directory, "e:")) == 3


def test_earlier_versions_stay_for_pins(publisher: Publisher, page: Page, directory: Path) -> None:
    for version in (1, 2, 3):
        page.publish(publisher, configs(config("a", version, f"model-{version}")))
    reader = page.reader(directory)
    found = [reader.config("a", version) for version in (1, 2, 3, None)]
    assert [each and each.models[0] for each in found] == [
        "model-1",
        "model-2",
        "model-3",
        "model-3",
    ]


def test_a_pinned_version_is_published_beside_the_current_one(publisher: Publisher) -> None:
    generation = publisher.publish([configs(config("a", 5))])
    entry = read_config(config("a", 2), "a", 2)
    assert publisher.publish(pinned=[entry]) > generation
    manifest = publisher.manifest()
    assert manifest.find(Kind.CONFIG, "a", 2) == entry.hash
    assert manifest.find(Kind.CONFIG, "a", None) == manifest.find(Kind.CONFIG, "a", 5)
    publisher.publish([configs(config("a", 6))])
    assert publisher.manifest().find(Kind.CONFIG, "a", 2) == entry.hash


def test_a_pin_of_a_kind_that_was_never_listed_waits_for_the_listing(publisher: Publisher) -> None:
    assert publisher.publish(pinned=[read_config(config("a", 2), "a", 2)]) == 0


def test_the_directory_is_private_and_so_are_its_files(
    publisher: Publisher, directory: Path
) -> None:
    before = os.umask(0)
    try:
        publisher.publish([configs(config("a"))])
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(directory).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(directory / "cache.db").st_mode) == 0o600
    assert os.listdir(directory) == ["cache.db"]


def test_the_side_file_of_a_commit_is_private_too(publisher: Publisher, directory: Path) -> None:
    publisher.publish([configs(config("a"))])
    connection = sqlite3.connect(directory / "cache.db", isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE Settings SET value = 1 WHERE key = 'hits'")
    mode = stat.S_IMODE(os.stat(directory / "cache.db-journal").st_mode)
    connection.execute("ROLLBACK")
    connection.close()
    assert mode == 0o600


def _truncated(path: Path) -> None:
    os.truncate(path, os.path.getsize(path) // 2 + 100)


def _garbage(path: Path) -> None:
    path.write_bytes(os.urandom(20_000))


def _flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for offset in range(100, len(data), 97):
        data[offset] ^= 0xFF
    path.write_bytes(bytes(data))


def _zero(path: Path) -> None:
    os.truncate(path, 0)


def _symlink(path: Path) -> None:
    victim = path.parent.parent / "victim"
    victim.write_bytes(path.read_bytes())
    os.chmod(victim, 0o600)
    path.unlink()
    path.symlink_to(victim)


def _dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.parent.parent / "nowhere")


def _hard_link(path: Path) -> None:
    os.link(path, path.parent.parent / "other-name")


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "inside").write_text("x")


def _world_writable(path: Path) -> None:
    path.chmod(0o666)


def _sql(statement: str) -> Callable[[Path], None]:
    def alter(path: Path) -> None:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute(statement)
        connection.close()

    return alter


def _side_symlink(suffix: str) -> Callable[[Path], None]:
    def plant(path: Path) -> None:
        victim = path.parent.parent / "victim"
        victim.write_text("precious")
        Path(f"{path}{suffix}").symlink_to(victim)

    return plant


def _side_fifo(path: Path) -> None:
    os.mkfifo(f"{path}-journal")


def _wal(path: Path) -> None:
    Path(f"{path}-wal").write_bytes(b"x" * 100)


BREAKAGES = [
    _truncated,
    _garbage,
    _flipped,
    _zero,
    _symlink,
    _dangling,
    _hard_link,
    _fifo,
    _directory,
    _world_writable,
    _side_symlink("-journal"),
    _side_symlink("-wal"),
    _side_symlink("-shm"),
    _side_fifo,
    _wal,
    _sql("DROP TABLE Cache"),
    _sql("CREATE TRIGGER t AFTER INSERT ON Cache BEGIN DELETE FROM Cache; END"),
    _sql("INSERT INTO Settings VALUES ('disk_x', 1)"),
    _sql("INSERT INTO Cache (key, raw, mode, value) VALUES ('p', 1, 4, x'00')"),
    _sql("DELETE FROM Cache WHERE key LIKE 'm:%'"),
    _sql("UPDATE Cache SET value = x'00' WHERE key LIKE 'm:%'"),
]
IDS = [f"{b.__name__}{n}" for n, b in enumerate(BREAKAGES)]


@pytest.mark.parametrize("breakage", BREAKAGES, ids=IDS)
def test_a_broken_database_is_set_aside_and_built_anew(
    directory: Path, breakage: Callable[[Path], None], caplog: pytest.LogCaptureFixture, page: Page
) -> None:
    before = page.publish(Publisher(directory), configs(config("a")), prompts(prompt("p")))
    victim = directory.parent / "victim"
    breakage(directory / "cache.db")
    content = victim.read_bytes() if victim.exists() else None

    publisher = Publisher(directory)  # as after a restart
    with caplog.at_level(logging.WARNING, "fallom"):
        assert publisher.manifest().generation == 0
    assert "was broken" in caplog.text
    assert page.publish(publisher, configs(config("a", 2))) > before
    found = page.reader(directory).config("a")
    assert found is not None
    assert found.version == 2
    assert len(os.listdir(directory / "aside")) == 1
    assert set(os.listdir(directory)) == {"cache.db", "aside"}
    assert not (directory / "cache.db").is_symlink()
    assert (victim.read_bytes() if victim.exists() else None) == content


@pytest.mark.parametrize("breakage", [_truncated, _garbage, _fifo], ids=lambda b: b.__name__)
def test_a_database_that_breaks_under_a_running_publisher_is_noticed_and_told(
    publisher: Publisher, directory: Path, breakage: Callable[[Path], None]
) -> None:
    generation = publisher.publish([configs(config("a")), prompts(prompt("p"))])
    breakage(directory / "cache.db")
    assert publisher.manifest().generation == 0
    assert publisher.rebuilds == 1
    assert publisher.publish([configs(config("a"))]) > generation
    assert Kind.PROMPT not in publisher.manifest().sections


def test_a_directory_that_is_removed_is_made_anew(publisher: Publisher, directory: Path) -> None:
    generation = publisher.publish([configs(config("a"))])
    (directory / "cache.db").unlink()
    directory.rmdir()
    assert publisher.publish([configs(config("a"))]) > generation
    assert publisher.rebuilds == 1


def test_a_damaged_entry_is_written_again_and_the_others_stay(
    directory: Path, page: Page, caplog: pytest.LogCaptureFixture
) -> None:
    listing = configs(config("a"), config("b"))
    page.publish(Publisher(directory), listing)
    damaged = listing.entries[0].hash
    _sql(f"UPDATE Cache SET value = x'00' WHERE key = 'e:{damaged}'")(directory / "cache.db")
    publisher = Publisher(directory)
    manifest = publisher.manifest()
    assert manifest.find(Kind.CONFIG, "a", None) is None
    assert manifest.find(Kind.CONFIG, "b", None) is not None
    assert publisher.rebuilds == 1
    page.publish(publisher, listing)
    found = page.reader(directory).config("a")
    assert found is not None
    assert "1 of 2 entries" in caplog.text


def test_a_lost_entry_is_noticed_within_a_bounded_number_of_looks(
    publisher: Publisher, directory: Path
) -> None:
    listing = configs(config("a"))
    publisher.publish([listing])
    _sql("DELETE FROM Cache WHERE key LIKE 'e:%'")(directory / "cache.db")
    for _ in range(publish_module.CHECK_EVERY + 1):
        publisher.publish([listing])
    assert rows(directory, "e:") == {f"e:{listing.entries[0].hash}"}


def test_a_lost_row_is_not_named_by_the_next_manifest(
    publisher: Publisher, directory: Path, page: Page
) -> None:
    publisher.publish([configs(config("a"), config("b"))])
    lost = publisher.manifest().find(Kind.CONFIG, "a", None)
    _sql(f"DELETE FROM Cache WHERE key = 'e:{lost}'")(directory / "cache.db")
    page.publish(publisher, prompts(prompt("p")))
    assert publisher.manifest().find(Kind.CONFIG, "a", None) is None
    assert publisher.rebuilds == 1  # so that it is asked for, although the server has nothing new
    assert page.reader(directory).config("b") is not None


def test_a_damaged_entry_is_written_when_it_comes_although_others_came_before(
    directory: Path, page: Page
) -> None:
    listing = configs(config("a"), config("b"))
    page.publish(Publisher(directory), listing)
    damaged = listing.entries[0].hash
    _sql(f"UPDATE Cache SET value = x'00' WHERE key = 'e:{damaged}'")(directory / "cache.db")
    publisher = Publisher(directory)
    page.publish(publisher, prompts(prompt("p")))
    page.publish(publisher, listing)
    assert page.reader(directory).config("a") is not None


def test_what_is_aside_is_bounded(directory: Path) -> None:
    for number in range(6):
        Publisher(directory).publish([configs(config("a", number))])
        _garbage(directory / "cache.db")
    Publisher(directory).manifest()
    assert len(os.listdir(directory / "aside")) == 3


def test_a_link_in_the_place_of_the_aside_folder_is_not_followed(
    directory: Path, tmp_path: Path
) -> None:
    Publisher(directory).publish([configs(config("a"))])
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (directory / "aside").symlink_to(elsewhere)
    _garbage(directory / "cache.db")
    Publisher(directory).manifest()
    assert os.listdir(elsewhere) == []
    assert len(os.listdir(directory / "aside")) == 1


def test_a_journal_without_its_database_is_not_rolled_into_the_next_one(directory: Path) -> None:
    directory.mkdir(mode=0o700)
    (directory / "cache.db-journal").write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + bytes(600))
    assert Publisher(directory).publish([configs(config("a"))]) > 0
    assert not (directory / "cache.db-journal").exists()


def test_what_a_killed_publisher_was_building_is_thrown_away(directory: Path) -> None:
    (directory / "building").mkdir(parents=True)
    (directory / "building" / "cache.db").write_bytes(b"half")
    assert Publisher(directory).publish([configs(config("a"))]) > 0
    assert os.listdir(directory) == ["cache.db"]


def test_a_file_in_the_place_of_the_directory_is_an_error_that_says_so(directory: Path) -> None:
    directory.write_text("x")
    with pytest.raises(PublishError, match="could not be published"):
        Publisher(directory).publish([configs(config("a"))])


def test_a_directory_that_is_a_link_is_not_followed(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    directory.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PublishError, match="not a directory of this user"):
        Publisher(directory).publish([configs(config("a"))])
    assert os.listdir(tmp_path / "elsewhere") == []


def test_a_publish_that_fails_leaves_what_was_there_and_can_be_repeated(
    publisher: Publisher, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generation = publisher.publish([configs(config("a"))])
    holder = sqlite3.connect(directory / "cache.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    monkeypatch.setattr(publish_module, "_READ_TIMEOUT_S", 0.01)
    with pytest.raises(PublishError, match="locked"):
        publisher.publish([configs(config("a", 2))])
    holder.execute("ROLLBACK")
    holder.close()
    assert publisher.manifest().generation == generation
    assert publisher.publish([configs(config("a", 2))]) > generation


def test_a_fault_within_the_transaction_publishes_nothing_of_it(
    publisher: Publisher, directory: Path, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    generation = page.publish(publisher, configs(config("a"), config("b")))

    def fail(manifest: object) -> bytes:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(publish_module, "encode_root", fail)
        with pytest.raises(PublishError, match="No space left"):
            publisher.publish([configs(config("a", 2), config("b", 2))])
    import diskcache

    stored = diskcache.Cache.set

    def fail_at_the_manifest(self: object, key: str, *rest: object) -> object:
        if key.startswith("m:"):
            raise sqlite3.OperationalError("database or disk is full")
        return stored(self, key, *rest)

    before = rows(directory, "")
    with monkeypatch.context() as patch:
        patch.setattr(diskcache.Cache, "set", fail_at_the_manifest)
        with pytest.raises(PublishError, match="disk is full"):
            publisher.publish([configs(config("a", 2), config("b", 2))])
    assert rows(directory, "") == before
    assert publisher.manifest().generation == generation
    found = page.reader(directory).config("a")
    assert found is not None
    assert found.version == 1


def test_a_publisher_may_be_used_from_another_thread(publisher: Publisher) -> None:
    publisher.publish([configs(config("a"))])
    generations: list[int] = []
    listings: list[Listing] = [configs(config("a", 2))]
    thread = threading.Thread(target=lambda: generations.append(publisher.publish(listings)))
    thread.start()
    thread.join()
    assert publisher.manifest().generation == generations[0]
