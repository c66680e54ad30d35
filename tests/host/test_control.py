"""The control page: one for all, readable by all, and no count is ever lost."""

from __future__ import annotations

import itertools
import os
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallom._host import control
from fallom._host.control import (
    BEAT_AHEAD_NS,
    BEAT_STALE_NS,
    PAGE_BYTES,
    ControlPage,
    remove_asides,
)
from fallom._host.counts import Drop, Tally
from fallom._host.files import File, UnsafeFileError, open_file
from fallom._host.versions import pack_version, unpack_version
from tests.support.descriptors import nothing_left_open
from tests.support.processes import at_once, in_child

U64_MAX = (1 << 64) - 1


@pytest.fixture
def page(directory: File) -> Iterator[ControlPage]:
    opened = ControlPage.open(directory)
    yield opened
    opened.close()


def test_a_new_page_is_whole_and_says_nothing(page: ControlPage, folder: Path) -> None:
    assert [file.name for file in folder.iterdir()] == ["control"]
    status = (folder / "control").stat()
    assert status.st_size == PAGE_BYTES
    assert status.st_blocks * 512 >= PAGE_BYTES, "a hole would be SIGBUS on a full disk"
    assert status.st_mode & 0o777 == 0o600
    assert page.generation() == page.heartbeat_ns() == page.successor() == 0
    assert not any(page.drops().values())
    assert not any(page.tallies().values())
    assert page.last_error() == ""
    assert page.is_leaving()


FIELDS: list[tuple[str, Callable[[ControlPage, int], object], Callable[[ControlPage], int]]] = [
    ("generation", ControlPage.set_generation, ControlPage.generation),
    ("heartbeat", ControlPage.beat, ControlPage.heartbeat_ns),
    ("started", lambda page, value: page.take_over(value, 1, 1), ControlPage.started_ns),
    ("pid", lambda page, value: page.take_over(1, value, 1), ControlPage.flusher_pid),
    ("version", lambda page, value: page.take_over(1, 1, value), ControlPage.flusher_version),
    ("successor", ControlPage.set_successor, ControlPage.successor),
    ("spool bytes", lambda page, value: page.set_spool(value, 0), ControlPage.spool_bytes),
    ("pressure", lambda page, value: page.set_spool(0, value), ControlPage.pressure),
    ("paused until", ControlPage.set_paused, ControlPage.paused_until_s),
]


def table() -> dict[str, tuple[int, int]]:
    """Give the table of the module's document: field, offset and bytes."""
    assert control.__doc__ is not None
    rows = re.findall(r"^\| (\d+) \| ([\dx ]+) \| ([a-z ]+) \|", control.__doc__, re.MULTILINE)
    sizes = {name: (int(at), size) for at, size, name in rows}
    return {
        name: (at, int(size) if size.isdigit() else int(size.split(" x ")[0]) * 8)
        for name, (at, size) in sizes.items()
    }


@pytest.mark.parametrize(("name", "write", "read"), FIELDS, ids=[field[0] for field in FIELDS])
@pytest.mark.parametrize("value", [1, 0x0102_0304_0506_0708, U64_MAX])
def test_each_field_is_where_the_document_says_and_nowhere_else(
    page: ControlPage,
    folder: Path,
    name: str,
    write: Callable[[ControlPage, int], object],
    read: Callable[[ControlPage], int],
    value: int,
) -> None:
    write(page, value)
    assert read(page) == value
    offset, size = table()[name]
    assert size == 8
    assert offset % 8 == 0
    assert struct.unpack_from("<Q", (folder / "control").read_bytes(), offset)[0] == value


def test_the_document_and_the_page_agree_on_everything_else(
    page: ControlPage, directory: File, folder: Path
) -> None:
    page.set_last_error("what went wrong")
    page.add_tallies({Tally.FLUSHER_STARTS: 3})
    page.add_drops(directory, {Drop.LOCK: 4})
    raw = (folder / "control").read_bytes()
    fields = table()
    assert raw[: fields["magic"][1]] == b"fallomCP"
    assert struct.unpack_from("<Q", raw, fields["layout"][0])[0] == 1
    at, size = fields["last error"]
    assert raw[at : at + size].rstrip(b"\0") == b"what went wrong"
    assert struct.unpack_from("<Q", raw, fields["tallies"][0] + 8 * Tally.FLUSHER_STARTS)[0] == 3
    assert struct.unpack_from("<Q", raw, fields["drops"][0] + 8 * Drop.LOCK)[0] == 4
    documented = sorted((at, at + size) for at, size in fields.values())
    assert all(end <= following for (_, end), (following, _) in itertools.pairwise(documented))
    assert documented[-1][1] <= PAGE_BYTES
    assert max(Drop) < 64
    assert max(Tally) < 64


def test_what_one_process_writes_another_reads(page: ControlPage, directory: File) -> None:
    def write() -> int:
        other = ControlPage.open(directory)
        other.set_generation(7)
        return other.generation()

    assert in_child(write) == 7
    assert page.generation() == 7


@pytest.mark.parametrize(
    ("age_ns", "is_alive"),
    [
        (0, True),
        (BEAT_STALE_NS, True),
        (BEAT_STALE_NS + 1, False),
        (-BEAT_AHEAD_NS, True),
        (-BEAT_AHEAD_NS - 1, False),
        (-(10**18), False),
    ],
)
def test_a_beat_is_good_for_a_second_and_a_half_and_not_from_the_future(
    page: ControlPage, age_ns: int, is_alive: bool
) -> None:
    page.beat(2 * 10**18)
    assert page.is_alive(2 * 10**18 + age_ns) is is_alive


def test_a_flusher_that_leaves_is_not_alive(page: ControlPage) -> None:
    page.take_over(10**12, 1, 1)
    assert not page.is_leaving()
    page.beat(0)
    assert page.is_leaving()
    assert not page.is_alive(10**12)


@pytest.mark.parametrize(
    "message", ["", "plain", "ä" * 200, "x" * 300, "half \ud800 pair", "\U0001f600" * 100]
)
def test_any_error_is_shown_as_far_as_it_fits(page: ControlPage, message: str) -> None:
    page.set_last_error("an earlier one, which was longer than what comes now")
    page.set_last_error(message)
    expected = message.encode("utf-8", "replace").decode()
    shown = page.last_error().rstrip("\ufffd")
    assert expected.startswith(shown)
    assert len(shown.encode()) >= min(len(expected.encode()), 253)


@given(st.tuples(*[st.integers(0, 999)] * 3), st.tuples(*[st.integers(0, 999)] * 3))
def test_packed_versions_order_as_versions_do(a: Any, b: Any) -> None:
    first, second = (".".join(map(str, version)) for version in (a, b))
    assert (pack_version(first) < pack_version(second)) == (a < b)
    assert unpack_version(pack_version(first)) == first


@pytest.mark.parametrize(
    ("version", "packed"),
    [
        ("1", "1.0.0"),
        ("1.2rc1", "1.2.0"),
        ("1.2.3.dev4+local", "1.2.3"),
        ("", "0.0.0"),
        ("x", "0.0.0"),
    ],
)
def test_odd_versions_are_read_as_far_as_they_go(version: str, packed: str) -> None:
    assert unpack_version(pack_version(version)) == packed


# Counters.


def test_drops_are_added_by_reason(page: ControlPage, directory: File) -> None:
    assert page.add_drops(directory, {Drop.DISK: 2, Drop.QUOTA: 1})
    assert page.add_drops(directory, {Drop.DISK: 40})
    found = {reason: count for reason, count in page.drops().items() if count}
    assert found == {"disk": 42, "quota": 1}


def test_no_increment_of_four_processes_is_lost(page: ControlPage, directory: File) -> None:
    def add(_: int) -> int:
        mine = ControlPage.open(directory)
        pending = added = 0
        for _ in range(10_000):
            pending += 1
            if mine.add_drops(directory, {Drop.DISK: pending}):
                added, pending = added + pending, 0
        while pending:
            if mine.add_drops(directory, {Drop.DISK: pending}):
                added, pending = added + pending, 0
        return added

    assert at_once(4, add) == [10_000] * 4
    assert page.drops()["disk"] == 40_000


def test_a_counter_goes_on_at_zero_after_the_largest_number(
    page: ControlPage, directory: File
) -> None:
    page.add_drops(directory, {Drop.DISK: U64_MAX})
    page.add_drops(directory, {Drop.DISK: 2})
    assert page.drops()["disk"] == 1


def test_counts_stay_with_the_caller_while_others_hold_the_lock(
    page: ControlPage, directory: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "LOCK_DEADLINE_S", 0.0)
    held = open_file(directory, "control", os.O_RDWR)
    held.lock()
    assert not page.add_drops(directory, {Drop.DISK: 1})
    assert page.drops()["disk"] == 0
    held.close()
    assert page.add_drops(directory, {Drop.DISK: 1})


def test_counts_stay_with_the_caller_when_the_page_is_gone_or_another(
    page: ControlPage, directory: File, folder: Path
) -> None:
    (folder / "control").unlink()
    assert not page.add_drops(directory, {Drop.DISK: 1})
    other = ControlPage.open(directory)
    assert not page.add_drops(directory, {Drop.DISK: 1})
    assert other.drops()["disk"] == 0
    other.close()


# Birth, and damage.


def test_sixteen_processes_make_one_page(directory: File, folder: Path) -> None:
    def make(_: int) -> tuple[int, int]:
        return ControlPage.open(directory)._file.identity

    assert len(set(at_once(16, make))) == 1
    assert [file.name for file in folder.iterdir()] == ["control"]


@pytest.mark.parametrize(
    "content",
    [b"", b"x" * PAGE_BYTES, b"fallomCP" + bytes(PAGE_BYTES - 8), b"fallomCP\1" + bytes(100)],
    ids=["empty", "foreign", "another layout", "cut short"],
)
def test_a_damaged_page_is_set_aside_and_made_anew(
    directory: File, folder: Path, content: bytes
) -> None:
    (folder / "control").write_bytes(content)
    page = ControlPage.open(directory)
    assert page.generation() == 0
    page.close()
    [aside] = [file for file in folder.iterdir() if "damaged" in file.name]
    assert aside.read_bytes() == content


def test_sixteen_processes_that_find_a_damaged_page_set_that_one_aside(
    directory: File, folder: Path
) -> None:
    def find(_: int) -> tuple[int, int]:
        return ControlPage.open(directory)._file.identity

    for _ in range(5):
        for file in folder.iterdir():
            file.unlink()
        (folder / "control").write_bytes(b"damaged")
        assert len(set(at_once(16, find))) == 1, "a good page was set aside"
        [aside] = [file for file in folder.iterdir() if file.name != "control"]
        assert aside.read_bytes() == b"damaged"


def test_a_page_that_another_put_in_place_meanwhile_is_not_set_aside(
    directory: File, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "control").write_bytes(b"damaged")
    lock, winners = File.lock, []

    def win_first(self: File, deadline_s: float = 0.0) -> bool:
        monkeypatch.setattr(File, "lock", lock)
        winners.append(ControlPage.open(directory))
        return lock(self, deadline_s)

    monkeypatch.setattr(File, "lock", win_first)
    page = ControlPage.open(directory)
    assert winners[0].is_current(directory)
    assert page.is_current(directory)
    for each in (page, *winners):
        each.close()


def test_a_planted_link_is_not_followed(directory: File, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    (folder / "control").symlink_to(tmp_path / "precious")
    with pytest.raises(UnsafeFileError):
        ControlPage.open(directory)
    assert (tmp_path / "precious").read_bytes() == b"precious"


def test_a_page_that_the_disk_has_no_room_for_leaves_nothing_behind(
    directory: File, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control.os, "write", lambda _fd, data: len(data) // 2)
    with pytest.raises(OSError, match="no space"):
        ControlPage.open(directory)
    assert list(folder.iterdir()) == []


def test_a_page_that_was_removed_or_replaced_is_not_current(
    page: ControlPage, directory: File, folder: Path
) -> None:
    assert page.is_current(directory)
    (folder / "control").rename(folder / "aside")
    assert not page.is_current(directory)
    other = ControlPage.open(directory)
    assert not page.is_current(directory)
    assert other.is_current(directory)
    other.close()


def test_a_page_whose_number_was_reused_is_not_current(page: ControlPage, directory: File) -> None:
    number = page._file.fd
    keep = os.dup(number)
    os.close(number)
    reused = os.open("/dev/null", os.O_RDONLY)
    assert reused == number
    assert not page.is_current(directory)
    assert page.generation() == 0, "the map outlives its number"
    os.dup2(keep, number)
    os.close(keep)


def test_a_page_that_is_closed_holds_nothing_open(directory: File) -> None:
    ControlPage.open(directory).close()
    with nothing_left_open():
        for _ in range(5):
            ControlPage.open(directory).close()


def test_what_a_killed_maker_of_a_page_left_behind_is_removed_after_a_minute(
    directory: File, page: ControlPage
) -> None:
    for name in ("control.123.abcd", "control.damaged.123", "other"):
        open_file(directory, name, os.O_WRONLY | os.O_CREAT).close()
    made_s = os.stat("control.123.abcd", dir_fd=directory.fd).st_mtime
    remove_asides(directory, made_s + 59)
    assert "control.123.abcd" in os.listdir(directory.fd)
    remove_asides(directory, made_s + 61)
    assert sorted(os.listdir(directory.fd)) == ["control", "control.damaged.123", "other"]
