"""The reader: everything whole is given once, damage costs itself, nothing is deleted too early."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fallom._host.files import File, open_directory, open_file
from fallom._spool import segment as segment_module
from fallom._spool import tail as tail_module
from fallom._spool.frame import Kind, encode_frame
from fallom._spool.reader import DELETE_AFTER_NS
from fallom._spool.segment import (
    HEAD_BYTES,
    Destination,
    segment_names,
    target_hash,
    write_accepted,
)
from fallom._spool.tail import READERS_MAX, count_records
from tests.support.processes import in_child
from tests.support.spools import TARGET, Reading, Segment, records_of


@pytest.fixture
def reading(spool: File) -> Iterator[Reading]:
    made = Reading(spool)
    yield made
    made.reader.close()


def test_a_live_segment_is_read_while_it_is_written_to(spool: File, reading: Reading) -> None:
    segment = Segment(spool, {"pid": 1}).add("a", "b")
    assert reading.take() == ["a", "b"]
    assert reading.take() == []
    segment.add("c")
    assert reading.take() == ["c"]


def test_each_record_comes_with_the_resource_of_its_writer(spool: File, reading: Reading) -> None:
    segment = Segment(spool, {"pid": 1}).add("a")
    segment.add({"pid": 2}, kind=Kind.HEADER).add("b")
    [piece] = reading.pieces()
    assert [(item.record, item.resource) for item in piece.items] == [
        ("a", {"pid": 1}),
        ("b", {"pid": 2}),
    ]


def test_a_batch_is_bounded_in_records_and_goes_on_where_it_ended(
    spool: File, reading: Reading
) -> None:
    for base in (0, 10, 20):
        Segment(spool, {}).add(*range(base, base + 10))
    found = []
    while some := reading.take(items_max=7):
        assert len(some) <= 7
        found += some
    assert sorted(found) == list(range(30))


def test_a_batch_is_bounded_in_bytes_but_for_one_record(spool: File, reading: Reading) -> None:
    Segment(spool, {}).add(*("x" * 1000 for _ in range(20)))
    while some := reading.take(bytes_max=3000):
        assert 1 <= len(some) <= 4


def test_a_record_of_a_mebibyte_is_read_whole(spool: File, reading: Reading) -> None:
    large = "x" * 900_000
    Segment(spool, {}).add(large, large)
    assert reading.take(bytes_max=1000) == [large]
    assert reading.take(bytes_max=1000) == [large]


def test_other_destinations_are_not_read(spool: File, reading: Reading) -> None:
    Segment(spool, {}, Destination.METRICS).add("metrics")
    assert reading.take() == []
    assert reading.reader.is_drained()


def test_the_newest_and_the_oldest_take_turns(spool: File, spool_path: Path) -> None:
    for age in range(4):
        segment = Segment(spool, {}).add(*[age] * 2)
        os.utime(spool_path / segment.name.file_name(), ns=(0, 10_000 - age))
    reading = Reading(spool)
    order = [reading.take(items_max=2)[0] for _ in range(4)]
    assert order in ([3, 0, 2, 1], [0, 3, 1, 2])


# Acceptance.


def test_what_was_not_accepted_is_given_again_after_a_rewind(spool: File, reading: Reading) -> None:
    Segment(spool, {"pid": 1}).add("a", "b", "c")
    assert reading.take(items_max=1) == ["a"]
    assert records_of(reading.pieces()) == ["b", "c"]
    reading.reader.rewind()
    [piece] = reading.pieces()
    assert [(item.record, item.resource) for item in piece.items] == [
        ("b", {"pid": 1}),
        ("c", {"pid": 1}),
    ]


def test_after_a_rewind_the_resource_is_that_of_the_position(spool: File, reading: Reading) -> None:
    segment = Segment(spool, {"pid": 1}).add("a", "b")
    segment.add({"pid": 2}, kind=Kind.HEADER).add("c")
    assert reading.take(items_max=1) == ["a"]
    reading.pieces()
    reading.reader.rewind()
    [piece] = reading.pieces()
    assert [item.resource for item in piece.items] == [{"pid": 1}, {"pid": 2}]


@pytest.mark.parametrize("accepted", range(6))
def test_a_new_reader_goes_on_where_the_last_one_ended_with_the_right_resource(
    spool: File, accepted: int
) -> None:
    segment = Segment(spool, {"pid": 1}).add("a", "b", "c")
    segment.add({"pid": 2}, kind=Kind.HEADER).add("d", "e")
    expected = [("a", 1), ("b", 1), ("c", 1), ("d", 2), ("e", 2)]
    first = Reading(spool)
    for _ in range(accepted):
        first.take(items_max=1)
    first.pieces()  # read, and not accepted
    first.reader.close()
    second = Reading(spool)
    found = [(i.record, i.resource["pid"]) for piece in second.pieces() for i in piece.items]
    assert found == expected[accepted:]


def test_the_resource_is_found_across_windows_and_behind_damage(
    spool: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail_module, "_WINDOW_BYTES", 300)
    segment = Segment(spool, {"pid": 1}).add("x" * 200).raw(b"\0" * 700)
    segment.add({"pid": 2}, kind=Kind.HEADER).add("y" * 200, "z" * 50)
    first = Reading(spool)
    first.take(items_max=2)
    first.reader.close()
    [piece] = Reading(spool).pieces()
    assert [(item.record, item.resource) for item in piece.items] == [("z" * 50, {"pid": 2})]


def test_an_offset_that_cannot_be_written_is_told_and_nothing_is_given_twice(
    spool: File, reading: Reading
) -> None:
    segment = Segment(spool, {}).add("a")
    file = open_file(spool, segment.name.file_name(), os.O_RDWR)
    for number in range(8):
        write_accepted(file, segment.name, target_hash(str(number)), HEAD_BYTES)
    pieces = reading.pieces()
    with pytest.raises(OSError, match="slots"):
        reading.reader.accept(pieces)
    assert reading.reader.is_drained()
    assert reading.take() == []


def test_all_pieces_are_accepted_although_one_offset_cannot_be_written(
    spool: File, reading: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    for text in "abc":
        Segment(spool, {}).add(text)
    pieces = reading.pieces()
    write = tail_module.write_accepted

    def fail_first(*arguments: Any) -> None:
        monkeypatch.setattr(tail_module, "write_accepted", write)
        raise OSError(errno.EIO, "once")

    monkeypatch.setattr(tail_module, "write_accepted", fail_first)
    with pytest.raises(OSError, match="once"):
        reading.reader.accept(pieces)
    assert len(Reading(spool).pieces()) == 1


def test_an_offset_beyond_the_end_of_a_file_that_was_cut_short_loses_nothing_new(
    spool: File, reading: Reading
) -> None:
    segment = Segment(spool, {}).add("a")
    file = open_file(spool, segment.name.file_name(), os.O_RDWR)
    write_accepted(file, segment.name, TARGET, segment.end + 1000)
    reading.pieces()
    segment.add("b")
    assert reading.take() == ["b"]


# Damage.


def test_damage_is_told_once_and_stepped_over(spool: File, reading: Reading) -> None:
    segment = Segment(spool, {}).add("a")
    start = segment.end
    segment.add("damaged").add("b")
    end = start + len(segment.frame("damaged"))
    segment.flip(start + 20)
    assert records_of(reading.pieces()) == ["a", "b"]
    reading.reader.rewind()
    assert reading.take() == ["a", "b"]
    [(name, offset, data)] = reading.damage
    assert (name, offset, len(data)) == (segment.name, start, end - start)


def test_a_record_that_cannot_be_decoded_is_damage_of_its_own(
    spool: File, reading: Reading
) -> None:
    segment = Segment(spool, {})
    broken = encode_frame(Kind.SPAN, b"\xc1 no msgpack", segment.name.seed)
    segment.add("a").raw(broken).add("b")
    assert reading.take() == ["a", "b"]
    assert [data for _, _, data in reading.damage] == [b"\xc1 no msgpack"]


@pytest.mark.parametrize("header", ["text", 3, None, [1, 2, 3]])
def test_a_header_that_is_no_mapping_is_damage_and_the_records_are_kept(
    spool: File, reading: Reading, header: Any
) -> None:
    Segment(spool, {"pid": 1}).add(header, kind=Kind.HEADER).add("a")
    assert reading.take() == ["a"]
    assert len(reading.damage) == 1


def test_the_unfinished_end_of_a_segment_with_an_owner_is_waited_for(
    spool: File, reading: Reading
) -> None:
    segment = Segment(spool, {}).add("a")
    frame = segment.frame("b")
    segment.raw(frame[:-3])
    assert reading.take() == ["a"]
    assert not reading.reader.is_drained()
    segment.raw(frame[-3:])
    assert reading.take() == ["b"]
    assert reading.damage == []


@pytest.mark.parametrize("is_sealed", [False, True])
def test_the_unfinished_end_of_a_segment_without_an_owner_is_damage(
    spool: File, reading: Reading, is_sealed: bool
) -> None:
    segment = Segment(spool, {}).add("a")
    torn = segment.frame("b")[:-3]
    segment.raw(torn)
    if is_sealed:
        segment.seal()
    else:
        segment.leave()
    assert reading.take() == ["a"]
    assert [data for _, _, data in reading.damage] == [torn]
    assert reading.reader.is_drained()


def test_an_end_that_was_finished_after_the_last_look_is_no_damage(
    spool: File, reading: Reading
) -> None:
    segment = Segment(spool, {}).add("a")
    frame = segment.frame("b")
    segment.raw(frame[:-3])
    reading.reader.refresh(1)
    segment.raw(frame[-3:]).leave()
    found = records_of(reading.reader.next_batch(100, 1 << 20))
    assert found + records_of(reading.pieces()) == ["a", "b"]
    assert reading.damage == []


def test_a_torn_end_is_damage_once_the_next_owner_wrote_behind_it(
    spool: File, reading: Reading
) -> None:
    segment = Segment(spool, {}).add("a")
    segment.raw(segment.frame("torn")[:-3]).add({"pid": 2}, kind=Kind.HEADER).add("b")
    assert reading.take() == ["a", "b"]
    assert len(reading.damage) == 1


def test_damage_longer_than_what_is_read_at_once_ends(spool: File, reading: Reading) -> None:
    Segment(spool, {}).add("a").raw(b"\0" * (3 << 20)).add("b").leave()
    assert reading.take_all() == ["a", "b"]
    assert sum(len(data) for _, _, data in reading.damage) == 3 << 20


def test_a_damaged_head_costs_no_record(spool: File, reading: Reading) -> None:
    segment = Segment(spool, {}).add("a", "b")
    assert reading.take(items_max=1) == ["a"]
    reading.reader.close()
    for offset in range(HEAD_BYTES):
        segment.flip(offset)
    assert Reading(spool).take() == ["a", "b"]


# What is no segment of ours.


def test_a_segment_of_a_later_version_is_left_alone_and_told_once(
    spool: File, spool_path: Path, reading: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(segment_module, "FORMAT", segment_module.FORMAT + 1)
        name = Segment(spool, {}).add("later").seal()
    Segment(spool, {}).add("ours")
    before = (spool_path / name.file_name()).read_bytes()
    assert reading.take_all() == ["ours"]
    reading.tidy(DELETE_AFTER_NS, leaving=True)
    assert (spool_path / name.file_name()).read_bytes() == before
    [error] = reading.errors
    assert "later version" in error


@pytest.mark.parametrize("thing", ["symlink", "fifo", "hard link", "directory"])
def test_what_stands_in_the_place_of_a_segment_is_left_alone_and_told_once(
    spool: File, spool_path: Path, tmp_path: Path, reading: Reading, thing: str
) -> None:
    target = tmp_path / "precious"
    target.write_bytes(b"not ours to touch")
    path = spool_path / f"traces-{'0' * 32}.done"
    if thing == "symlink":
        path.symlink_to(target)
    elif thing == "fifo":
        os.mkfifo(path)
    elif thing == "hard link":
        path.hardlink_to(target)
    else:
        path.mkdir()
    Segment(spool, {}).add("ours")
    assert reading.take_all() == ["ours"]
    reading.tidy(DELETE_AFTER_NS, leaving=True)
    assert os.path.lexists(path)
    assert target.read_bytes() == b"not ours to touch"
    [error] = reading.errors
    assert path.name in error


def test_one_segment_that_cannot_be_opened_costs_only_its_own_turn(
    spool: File, reading: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = Segment(spool, {}).add("bad").seal()
    Segment(spool, {}).add("good")
    read = tail_module.read_accepted

    def fail(file: File, name: Any, target: bytes) -> int:
        if name.id == bad.id:
            raise OSError(errno.EIO, "the disk is going")
        return read(file, name, target)

    with monkeypatch.context() as patched:
        patched.setattr(tail_module, "read_accepted", fail)
        assert reading.take_all() == ["good"]
    assert reading.errors
    assert reading.take_all() == ["bad"]


def test_one_segment_that_cannot_be_read_costs_only_its_own_turn(
    spool: File, reading: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = Segment(spool, {}).add("bad")
    Segment(spool, {}).add("good")
    reading.reader.refresh(1)
    identity = os.stat(bad.name.file_name(), dir_fd=spool.fd).st_ino
    pread = os.pread

    def fail(fd: int, count: int, offset: int) -> bytes:
        if os.fstat(fd).st_ino == identity:
            raise OSError(errno.EIO, "the disk is going")
        return pread(fd, count, offset)

    with monkeypatch.context() as patched:
        patched.setattr(tail_module.os, "pread", fail)
        assert reading.take() == ["good"]
    assert reading.take() == ["bad"]
    assert len(reading.errors) == 1


# Tidying.


def test_a_segment_with_an_owner_is_never_deleted(spool: File, reading: Reading) -> None:
    segment = Segment(spool, {}).add("a")
    reading.take()
    assert reading.tidy(DELETE_AFTER_NS, leaving=True) == 1
    assert segment_names(spool) == [segment.name]


def test_what_is_not_accepted_is_never_deleted(spool: File, reading: Reading) -> None:
    Segment(spool, {}).add("a").seal()
    Segment(spool, {}).add("b").leave()
    reading.pieces()
    assert reading.tidy(DELETE_AFTER_NS, leaving=True) == 0
    assert len(segment_names(spool)) == 2


def test_a_sealed_segment_goes_when_it_is_accepted(spool: File, reading: Reading) -> None:
    Segment(spool, {}).add("a").seal()
    reading.take()
    reading.tidy()
    assert segment_names(spool) == []


def test_an_ownerless_segment_waits_for_the_next_short_process_and_then_goes(
    spool: File, reading: Reading
) -> None:
    Segment(spool, {}).add("a").leave()
    reading.take()
    reading.tidy(DELETE_AFTER_NS - 1)
    assert len(segment_names(spool)) == 1
    reading.tidy(1)
    assert segment_names(spool) == []


def test_a_flusher_that_leaves_does_not_wait(spool: File, reading: Reading) -> None:
    Segment(spool, {}).add("a").leave()
    reading.take()
    reading.tidy(leaving=True)
    assert segment_names(spool) == []


def test_a_record_that_came_after_the_last_look_is_not_deleted(
    spool: File, reading: Reading
) -> None:
    for end in (Segment.seal, Segment.leave):
        segment = Segment(spool, {}).add("a")
        reading.take()
        segment.add("b")
        end(segment)
        reading.reader.tidy(DELETE_AFTER_NS * 2)
        assert reading.take() == ["b"]


def test_a_segment_that_was_sealed_since_the_last_look_goes_at_the_next(
    spool: File, reading: Reading
) -> None:
    segment = Segment(spool, {}).add("a")
    reading.take()
    segment.seal()
    reading.reader.tidy(reading.now_ns + DELETE_AFTER_NS)
    reading.tidy()
    assert segment_names(spool) == []


# More segments than may be open.


@pytest.mark.parametrize("are_sealed", [False, True])
def test_more_segments_than_may_be_open_are_all_read(spool: File, are_sealed: bool) -> None:
    for number in range(20):
        segment = Segment(spool, {}).add(number)
        if are_sealed:
            segment.seal()
    reading = Reading(spool, tails_max=4)
    found: list[int] = []
    for _ in range(20):
        found += reading.take()
        reading.tidy()
    assert sorted(found) == list(range(20))
    assert reading.reader.is_drained()
    if are_sealed:
        assert segment_names(spool) == []


def test_more_living_writers_than_may_be_open_are_all_followed(spool: File) -> None:
    segments = [Segment(spool, {}) for _ in range(20)]
    reading = Reading(spool, tails_max=4)
    for turn in range(3):
        for number, segment in enumerate(segments):
            segment.add((turn, number))
        found: set[Any] = set()
        for _ in range(12):
            found |= {tuple(record) for record in reading.take()}
        assert found == {(turn, number) for number in range(20)}


def test_all_readers_of_a_flusher_leave_descriptors_to_connect_with(spool: File) -> None:
    segments = [Segment(spool, {}).add(number).seal() for number in range(100)]

    def run() -> tuple[list[str], int]:
        resource.setrlimit(resource.RLIMIT_NOFILE, (400, 400))
        readings = [Reading(spool) for _ in range(READERS_MAX)]
        for reading in readings:
            reading.pieces()
        errors = [error for reading in readings for error in reading.errors]
        return errors, len([os.dup(spool.fd) for _ in range(100)])

    assert in_child(run) == ([], 100)
    assert len(segments) == 100


@pytest.mark.parametrize("looks_twice", [False, True])
def test_living_writers_of_more_than_may_be_open_do_not_hold_back_what_is_sealed(
    spool: File, looks_twice: bool
) -> None:
    reading = Reading(spool, tails_max=2)
    living = [Segment(spool, {}).add(number) for number in range(9)]
    found = []
    for _ in range(20):
        found += reading.take()
    living[0].add("last").seal()
    for _ in range(20):
        found += reading.take()
        if looks_twice:
            reading.reader.refresh(2)
    assert found.count("last") == 1
    assert len(found) == 10
    reading.reader.close()


def test_a_backlog_of_more_than_may_be_open_does_not_hold_back_a_living_writer(
    spool: File,
) -> None:
    for number in range(20):
        Segment(spool, {}).add(*[number] * 50).seal()
    reading = Reading(spool, tails_max=4)
    reading.pieces()
    reading.reader.rewind()
    Segment(spool, {}).add("new")
    found = [reading.take(items_max=1) for _ in range(4)]
    assert ["new"] in found


def test_a_reader_that_has_not_opened_everything_is_not_drained(spool: File) -> None:
    for number in range(5):
        Segment(spool, {}).add(number).seal()
    reading = Reading(spool, tails_max=4)
    reading.take()
    assert not reading.reader.is_drained()


def test_an_ownerless_segment_is_deleted_although_it_shares_its_turn_with_others(
    spool: File,
) -> None:
    for number in range(12):
        Segment(spool, {}).add(number).leave()
    reading = Reading(spool, tails_max=4)
    for _ in range(8):
        reading.take()
    for _ in range(8):
        reading.tidy(DELETE_AFTER_NS // 4)
    assert segment_names(spool) == []


def test_a_segment_that_shares_its_turn_with_others_is_read_once(
    spool: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = Reading(spool, tails_max=4)
    here = {"process.pid": os.getpid()}
    segments = [Segment(spool, {**here, "number": number}) for number in range(8)]
    for number, segment in enumerate(segments):
        segment.add(["", f"call {number}"], kind=Kind.START).add(["", number])
    found: list[Any] = []
    for _ in range(4):
        found += reading.take()
    assert sorted(record[1] for record in found) == list(range(8))

    def refuse(*_: Any) -> Any:
        raise AssertionError("it is read from its beginning again")

    monkeypatch.setattr(tail_module, "frames_of", refuse)
    for _ in range(4):
        assert reading.take() == []
        assert reading.reader.is_drained()
    segments[0].add(["", "more"])
    pieces: list[Any] = []
    for _ in range(4):
        pieces += reading.pieces()
    [item] = pieces[0].items
    assert (item.record, item.resource["number"]) == (["", "more"], 0)
    assert list(pieces[0].tail.starts) == ["call 0"]
    reading.reader.close()


# Counting.


def test_records_are_counted_without_headers_and_damage(
    spool: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail_module, "_WINDOW_BYTES", 200)
    segment = Segment(spool, {"pid": 1}).add(*("x" * 90 for _ in range(10))).raw(b"\0" * 500)
    segment.add({"pid": 2}, kind=Kind.HEADER).add("a", "b").raw(segment.frame("torn")[:-1])
    assert count_records(segment.file, segment.name, HEAD_BYTES, segment.end) == 12


# All of it, in any order.


class SpoolMachine(RuleBasedStateMachine):
    """The real spool against a list: what is written whole is given until it is accepted."""

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.path = tempfile.TemporaryDirectory()
        self.spool = open_directory(self.path.name)
        self.segments: list[Segment] = []
        self.waiting: list[int] = []  # written and not accepted
        self.reading = Reading(self.spool, tails_max=3)
        self.number = 0

    @rule()
    def begin(self) -> None:
        self.segments.append(Segment(self.spool, {"pid": len(self.segments)}))

    @precondition(lambda self: self.segments)
    @rule(pick=st.integers(0, 99), count=st.integers(1, 5))
    def write(self, pick: int, count: int) -> None:
        segment = self.segments[pick % len(self.segments)]
        for _ in range(count):
            self.number += 1
            segment.add(self.number)
            self.waiting.append(self.number)

    @precondition(lambda self: self.segments)
    @rule(pick=st.integers(0, 99), cut=st.integers(1, 20))
    def tear(self, pick: int, cut: int) -> None:
        segment = self.segments.pop(pick % len(self.segments))
        segment.raw(segment.frame("torn by a kill")[:-cut])
        segment.leave()

    @precondition(lambda self: self.segments)
    @rule(pick=st.integers(0, 99), is_sealed=st.booleans())
    def end(self, pick: int, is_sealed: bool) -> None:
        segment = self.segments.pop(pick % len(self.segments))
        if is_sealed:
            segment.seal()
        else:
            segment.leave()

    @rule(items_max=st.integers(1, 6), is_accepted=st.booleans())
    def ship(self, items_max: int, is_accepted: bool) -> None:
        pieces = self.reading.pieces(items_max)
        for record in records_of(pieces):
            assert record in self.waiting, "given again after it was accepted"
        if is_accepted:
            self.reading.reader.accept(pieces)
            for record in records_of(pieces):
                self.waiting.remove(record)
        else:
            self.reading.reader.rewind()

    @rule(after_ns=st.sampled_from([0, DELETE_AFTER_NS]), leaving=st.booleans())
    def tidy(self, after_ns: int, leaving: bool) -> None:
        self.reading.tidy(after_ns, leaving)

    @rule()
    def restart(self) -> None:
        self.reading.reader.close()
        self.reading = Reading(self.spool, tails_max=3)

    @invariant()
    def all_is_still_there(self) -> None:
        left = Reading(self.spool)
        found: list[int] = []
        while pieces := left.pieces():
            found += records_of(pieces)
        left.reader.close()
        assert sorted(found) == sorted(self.waiting)

    def teardown(self) -> None:
        for segment in self.segments:
            segment.leave()
        self.reading.reader.close()
        self.spool.close()
        self.path.cleanup()


SpoolMachine.TestCase.settings = settings(
    max_examples=40,
    stateful_step_count=30,
)
TestSpoolMachine = SpoolMachine.TestCase
