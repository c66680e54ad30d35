"""Segments: names, heads, offsets, and who may write to, take over and delete one."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import struct
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallom._host.files import File, open_file
from fallom._spool import segment
from fallom._spool.segment import (
    FORMAT,
    HEAD_BYTES,
    MAX_TARGETS,
    Destination,
    SegmentName,
    create_segment,
    is_known_format,
    parse_segment_name,
    read_accepted,
    seal,
    segment_names,
    target_hash,
    try_take_over,
    write_accepted,
)
from tests.support.processes import Child, at_once

MIB = 1 << 20
TARGET = target_hash("http://127.0.0.1/v1/traces")

names = st.builds(
    SegmentName,
    st.sampled_from(list(Destination)),
    st.binary(min_size=16, max_size=16),
    st.booleans(),
)


def reopened(spool: File, name: SegmentName) -> File:
    """Open as the flusher does: for reading and for offsets, without O_APPEND."""
    return open_file(spool, name.file_name(), os.O_RDWR)


def made(spool: File, destination: Destination = Destination.TRACES) -> tuple[SegmentName, File]:
    """Make a segment that nobody holds, and open it as the flusher does."""
    name, file = create_segment(spool, destination)
    file.close()
    return name, reopened(spool, name)


# Names.


@given(names)
def test_a_name_survives_being_written_and_read(name: SegmentName) -> None:
    assert parse_segment_name(name.file_name()) == name


@pytest.mark.parametrize(
    "file_name",
    [
        "control",
        "traces",
        "traces.live",
        f"traces-{'0' * 31}.live",
        f"traces-{'0' * 33}.live",
        f"traces-{'0' * 34}.live",
        f"traces-{'G' * 32}.live",
        f"traces-{'A' * 32}.live",  # we write small letters: two spellings would be two files
        f"traces-{'0 ' * 16}.live",
        f"logs-{'0' * 32}.live",
        f"traces-{'0' * 32}.live.tmp",
        f"traces-{'0' * 32}.dead",
        f".traces-{'0' * 32}.live",
    ],
)
def test_a_foreign_name_is_no_segment(file_name: str) -> None:
    assert parse_segment_name(file_name) is None


def test_foreign_files_in_the_spool_are_passed_over(spool: File, spool_path: Path) -> None:
    name, file = made(spool)
    file.close()
    (spool_path / "notes.txt").write_text("hello")
    (spool_path / "traces-x.live").mkdir()
    assert segment_names(spool) == [name]


def test_threads_that_list_one_directory_at_once_all_see_everything(
    spool: File, spool_path: Path
) -> None:
    for number in range(300):
        (spool_path / f"traces-{number:032x}.done").touch()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    seen: set[int] = set()
    try:
        threads = [
            threading.Thread(
                target=lambda: seen.update(len(segment_names(spool)) for _ in range(100))
            )
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert seen == {300}


def test_processes_that_list_one_inherited_directory_at_once_all_see_everything(
    spool: File, spool_path: Path
) -> None:
    for number in range(300):
        (spool_path / f"traces-{number:032x}.done").touch()
    seen = at_once(4, lambda _: {len(segment_names(spool)) for _ in range(100)})
    assert seen == [{300}] * 4


@pytest.mark.parametrize("was_seen", [False, True])
@pytest.mark.parametrize("is_by_the_second", [False, True])
def test_a_segment_that_is_sealed_while_a_long_listing_is_under_way_is_in_it_once(
    spool: File,
    spool_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    was_seen: bool,
    is_by_the_second: bool,
) -> None:
    second_ns = time.time_ns() // 1_000_000_000 * 1_000_000_000

    def keep_time_by_the_second(now_ns: int) -> None:
        if is_by_the_second:
            os.utime(spool_path, ns=(second_ns, second_ns))
            monkeypatch.setattr(time, "time_ns", lambda: now_ns)

    others = {made(spool)[0] for _ in range(100)}
    name, file = create_segment(spool, Destination.TRACES)
    keep_time_by_the_second(second_ns + 999_999_999)
    entries_of = segment.entries_of

    @contextlib.contextmanager
    def listed_beside_a_writer(directory: File) -> Iterator[list[os.DirEntry[str]]]:
        monkeypatch.setattr(segment, "entries_of", entries_of)
        with entries_of(directory) as entries:
            found = [each for each in entries if was_seen or each.name != name.file_name()]
        seal(spool, name)
        keep_time_by_the_second(second_ns + 5_000_000_000)  # a listing that takes long
        yield found

    monkeypatch.setattr(segment, "entries_of", listed_beside_a_writer)
    found = segment_names(spool)
    assert len(found) == 101
    assert set(found) == {*others, name._replace(is_sealed=True)}
    file.close()


def test_a_directory_that_nobody_changes_is_listed_once(
    spool: File, spool_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = {made(spool)[0] for _ in range(100)}
    listings: list[File] = []
    entries_of = segment.entries_of

    def counted(directory: File) -> AbstractContextManager[Iterator[os.DirEntry[str]]]:
        listings.append(directory)
        return entries_of(directory)

    monkeypatch.setattr(segment, "entries_of", counted)
    os.utime(spool_path, ns=(1, 1))
    assert set(segment_names(spool)) == others
    assert len(listings) == 1
    os.utime(spool_path)
    assert set(segment_names(spool)) == others
    assert len(listings) == 3, "it changed a moment ago"


# The head.


def test_the_table_of_the_document_is_what_is_written(spool: File) -> None:
    assert segment.__doc__ is not None
    rows = re.findall(r"^\| (\d+) \| ([\dx ]+) \| (\w+) \|", segment.__doc__, re.MULTILINE)
    table = {name: (int(offset), size) for offset, size, name in rows}
    name, file = made(spool, Destination.METRICS)
    write_accepted(file, name, TARGET, 4711)
    head = os.pread(file.fd, HEAD_BYTES, 0)

    def field(word: str) -> bytes:
        offset, size = table[word]
        return head[offset : offset + int(size)]

    assert field("magic") == b"fallomSG"
    assert int.from_bytes(field("format"), "little") == FORMAT == 1
    assert int.from_bytes(field("destination"), "little") == Destination.METRICS
    assert field("id") == name.id
    slots_at, slots = table["slots"]
    assert slots == f"{MAX_TARGETS} x 24"
    assert struct.unpack_from("<8sQ", head, slots_at) == (TARGET, 4711)
    assert slots_at + MAX_TARGETS * 24 == HEAD_BYTES
    assert len(head) == HEAD_BYTES


def test_a_later_format_is_told_from_a_damaged_head(spool: File) -> None:
    _, file = made(spool)
    assert is_known_format(file)
    head = bytearray(os.pread(file.fd, 32, 0))
    struct.pack_into("<I", head, 8, FORMAT + 1)
    os.pwrite(file.fd, bytes(head) + struct.pack("<I", zlib.crc32(head)), 0)
    assert not is_known_format(file)
    os.pwrite(file.fd, b"X", 0)
    assert is_known_format(file)


def test_no_flipped_bit_makes_a_later_format(spool: File) -> None:
    _, file = made(spool)
    head = os.pread(file.fd, 36, 0)
    for bit in range(len(head) * 8):
        flipped = bytearray(head)
        flipped[bit // 8] ^= 1 << bit % 8
        os.pwrite(file.fd, flipped, 0)
        assert is_known_format(file), f"bit {bit}"


# Offsets.


@given(st.lists(st.tuples(st.integers(0, MAX_TARGETS - 1), st.integers(HEAD_BYTES, 1 << 62))))
def test_each_target_reads_the_offset_that_it_wrote_last(
    tmp_path_factory: pytest.TempPathFactory, writes: list[tuple[int, int]]
) -> None:
    from fallom._host.files import open_directory

    spool = open_directory(str(tmp_path_factory.mktemp("spool", numbered=True)))
    name, file = made(spool)
    expected = dict.fromkeys(range(MAX_TARGETS), HEAD_BYTES)
    for target, offset in writes:
        write_accepted(file, name, target_hash(str(target)), offset)
        expected[target] = offset
    for target, offset in expected.items():
        assert read_accepted(file, name, target_hash(str(target))) == offset
    spool.close()


def test_nothing_is_accepted_of_a_new_segment(spool: File) -> None:
    name, file = made(spool)
    assert read_accepted(file, name, TARGET) == HEAD_BYTES


@pytest.mark.parametrize("bit", [0, 63, 64, 100, 127, 128, 159])
def test_a_damaged_offset_reads_as_nothing_accepted(spool: File, bit: int) -> None:
    name, file = made(spool)
    write_accepted(file, name, TARGET, 4711)
    at = 64 + bit // 8
    [byte] = os.pread(file.fd, 1, at)
    os.pwrite(file.fd, bytes([byte ^ 1 << bit % 8]), at)
    assert read_accepted(file, name, TARGET) == HEAD_BYTES
    write_accepted(file, name, TARGET, 5000)
    assert read_accepted(file, name, TARGET) == 5000


def test_the_offset_of_another_file_is_not_believed(spool: File) -> None:
    name, file = made(spool)
    write_accepted(file, name, TARGET, 4711)
    other_name, other = made(spool)
    os.pwrite(other.fd, os.pread(file.fd, HEAD_BYTES, 0), 0)
    assert read_accepted(other, other_name, TARGET) == HEAD_BYTES


def test_a_ninth_target_is_refused_and_the_eight_keep_their_offsets(spool: File) -> None:
    name, file = made(spool)
    for number in range(MAX_TARGETS):
        write_accepted(file, name, target_hash(str(number)), 1000 + number)
    with pytest.raises(OSError, match="slots") as caught:
        write_accepted(file, name, target_hash("ninth"), 2000)
    assert caught.value.errno == errno.ENOSPC
    for number in range(MAX_TARGETS):
        assert read_accepted(file, name, target_hash(str(number))) == 1000 + number
    write_accepted(file, name, target_hash("3"), 3000)
    assert read_accepted(file, name, target_hash("3")) == 3000


def test_an_offset_before_the_first_frame_is_the_first_frame(spool: File) -> None:
    name, file = made(spool)
    write_accepted(file, name, TARGET, 3)
    assert read_accepted(file, name, TARGET) == HEAD_BYTES


# Birth and take-over.


def test_a_new_segment_is_locked_private_and_has_its_head(spool: File, spool_path: Path) -> None:
    name, file = create_segment(spool, Destination.TRACES)
    assert not reopened(spool, name).lock()
    assert (spool_path / name.file_name()).stat().st_mode & 0o777 == 0o600
    assert file.size() == HEAD_BYTES
    assert fcntl.fcntl(file.fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC


def test_a_segment_with_an_owner_is_not_taken_over(spool: File) -> None:
    name, _file = create_segment(spool, Destination.TRACES)
    assert try_take_over(spool, name, MIB) is None


def test_a_segment_without_an_owner_is_taken_over_once(spool: File) -> None:
    name, file = create_segment(spool, Destination.TRACES)
    file.close()
    first = try_take_over(spool, name, MIB)
    assert first is not None
    assert try_take_over(spool, name, MIB) is None
    assert os.write(first.fd, b"x") == 1
    assert first.size() == HEAD_BYTES + 1, "it appends"


def test_a_segment_whose_writer_was_killed_is_taken_over(spool: File) -> None:
    def write_and_wait() -> None:
        held = create_segment(spool, Destination.TRACES)
        os.write(write_end, b".")
        assert held
        threading.Event().wait()

    read_end, write_end = os.pipe()
    child = Child(write_and_wait)
    os.read(read_end, 1)
    [name] = segment_names(spool)
    assert try_take_over(spool, name, MIB) is None
    child.kill()
    assert try_take_over(spool, name, MIB) is not None
    os.close(read_end)
    os.close(write_end)


def test_a_lock_that_a_forked_child_inherited_outlives_the_writer(spool: File) -> None:
    read_end, write_end = os.pipe()
    name, file = create_segment(spool, Destination.TRACES)
    child = Child(lambda: os.read(read_end, 1))
    file.close()
    assert try_take_over(spool, name, MIB) is None
    os.write(write_end, b".")
    child.result()
    assert try_take_over(spool, name, MIB) is not None
    os.close(read_end)
    os.close(write_end)


def test_a_child_that_closes_what_it_inherited_leaves_the_lock_to_its_parent(spool: File) -> None:
    name, file = create_segment(spool, Destination.TRACES)
    Child(file.close).result()
    assert try_take_over(spool, name, MIB) is None


@pytest.mark.parametrize("is_sealed_by_name", [False, True])
def test_a_sealed_segment_is_not_taken_over(spool: File, is_sealed_by_name: bool) -> None:
    name, file = create_segment(spool, Destination.TRACES)
    seal(spool, name)
    file.close()
    asked = name._replace(is_sealed=is_sealed_by_name)
    if not is_sealed_by_name:
        assert try_take_over(spool, asked, MIB) is None
    assert segment_names(spool) == [name._replace(is_sealed=True)]


def test_a_segment_that_is_sealed_between_the_opening_and_the_lock_is_left_alone(
    spool: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, file = create_segment(spool, Destination.TRACES)
    file.close()
    lock = File.lock

    def seal_first(self: File, deadline_s: float = 0.0) -> bool:
        seal(spool, name)
        return lock(self, deadline_s)

    monkeypatch.setattr(File, "lock", seal_first)
    assert try_take_over(spool, name, MIB) is None


def test_a_segment_that_is_deleted_between_the_opening_and_the_lock_is_left_alone(
    spool: File, spool_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, file = create_segment(spool, Destination.TRACES)
    file.close()
    lock = File.lock

    def delete_first(self: File, deadline_s: float = 0.0) -> bool:
        (spool_path / name.file_name()).unlink(missing_ok=True)
        return lock(self, deadline_s)

    monkeypatch.setattr(File, "lock", delete_first)
    assert try_take_over(spool, name, MIB) is None


def test_a_name_that_leads_to_another_file_by_now_is_left_alone(
    spool: File, spool_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, file = create_segment(spool, Destination.TRACES)
    content = os.pread(file.fd, 4096, 0)
    file.close()
    lock = File.lock

    def replace_first(self: File, deadline_s: float = 0.0) -> bool:
        (spool_path / "aside").write_bytes(content)
        (spool_path / "aside").rename(spool_path / name.file_name())
        return lock(self, deadline_s)

    monkeypatch.setattr(File, "lock", replace_first)
    assert try_take_over(spool, name, MIB) is None


def test_a_full_segment_is_not_taken_over(spool: File) -> None:
    name, file = create_segment(spool, Destination.TRACES)
    os.write(file.fd, bytes(1000))
    file.close()
    assert try_take_over(spool, name, HEAD_BYTES + 1000) is None
    assert try_take_over(spool, name, HEAD_BYTES + 1001) is not None


def test_a_segment_that_was_cut_short_is_not_taken_over(spool: File) -> None:
    name, file = made(spool)
    os.write(file.fd, bytes(1000))
    os.ftruncate(file.fd, HEAD_BYTES - 1)
    file.close()
    assert try_take_over(spool, name, MIB) is None, "frames would begin within the head"
    name, file = made(spool)
    os.write(file.fd, bytes(1000))
    offsets = open_file(spool, name.file_name(), os.O_RDWR)
    write_accepted(offsets, name, TARGET, HEAD_BYTES + 1000)
    os.ftruncate(file.fd, HEAD_BYTES + 999)
    file.close()
    assert try_take_over(spool, name, MIB) is None, "what comes next would count as accepted"


@pytest.mark.parametrize("at", [0, 8, 12, 16, 32])
def test_a_segment_with_a_damaged_head_is_not_taken_over(spool: File, at: int) -> None:
    name, file = made(spool)
    os.pwrite(file.fd, b"\xff", at)
    file.close()
    assert try_take_over(spool, name, MIB) is None


def test_what_is_no_file_of_ours_is_not_taken_over(spool: File, spool_path: Path) -> None:
    names = [SegmentName(Destination.TRACES, bytes([number]) * 16, False) for number in range(4)]
    real, file = made(spool)
    file.close()
    os.mkfifo(spool_path / names[0].file_name())
    (spool_path / names[1].file_name()).symlink_to(real.file_name())
    (spool_path / names[2].file_name()).hardlink_to(spool_path / real.file_name())
    (spool_path / names[3].file_name()).mkdir()
    assert [try_take_over(spool, name, MIB) for name in names] == [None] * 4


def test_a_creation_that_the_disk_refuses_leaves_nothing_behind(
    spool: File, spool_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segment.os, "write", lambda _fd, data: len(data) // 2)
    with pytest.raises(OSError, match="no space"):
        create_segment(spool, Destination.TRACES)
    assert list(spool_path.iterdir()) == []


def test_sealing_what_is_gone_is_harmless(spool: File, spool_path: Path) -> None:
    name, file = create_segment(spool, Destination.TRACES)
    (spool_path / name.file_name()).unlink()
    seal(spool, name)
    file.close()


def test_no_new_segment_is_lost_to_a_flusher_that_deletes_ownerless_ones(
    spool: File, spool_path: Path
) -> None:
    """Writers make and leave segments while others lock and delete all that have no owner."""
    rounds, writers = 150, 6

    def write(number: int) -> list[bytes]:
        mine = []
        for _ in range(rounds):
            name, file = create_segment(spool, Destination.TRACES)
            # Between the birth and the end of the writer nobody may take it away.
            if not (file.is_intact() and (spool_path / name.file_name()).exists()):
                mine.append(name.id)
            file.close()
        return mine

    def delete() -> list[bytes]:
        # First the end, then the look: what is born between the two is seen the next time.
        while not (spool_path / "end").exists() or segment_names(spool):
            for name in segment_names(spool):
                try:
                    file = open_file(spool, name.file_name(), os.O_RDWR)
                except FileNotFoundError:
                    continue
                try:
                    if file.lock() and file.is_intact():
                        os.unlink(name.file_name(), dir_fd=spool.fd)
                finally:
                    file.close()
        return []

    deleters = [Child(delete) for _ in range(2)]
    lost = at_once(writers, write)
    (spool_path / "end").touch()
    for deleter in deleters:
        deleter.result()
    assert lost == [[]] * writers
    assert segment_names(spool) == []
