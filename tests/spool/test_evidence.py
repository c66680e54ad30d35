"""Crash evidence: a call whose process died is told once, whatever happens to the flusher that tells it."""

from __future__ import annotations

import os
from typing import Any

import pytest

from fallom._host.files import File
from fallom._spool import evidence as evidence_module
from fallom._spool.frame import Kind
from fallom._spool.reader import Sharing
from fallom._spool.segment import extra_target_hash, segment_names
from tests.support.records import make_span
from tests.support.spools import Reading, Segment

GONE = {"process.pid": 0x7FFFFFFF}  # more than any system has
HERE = {"process.pid": os.getpid()}
LATER_NS = 10_000_000_000
END_AT = 6  # of a span's record


def died(records: list[Any]) -> list[int]:
    """Give the numbers of the calls among records whose process died."""
    attributes_at, id_at = 9, 1
    return [
        int.from_bytes(record[id_at], "big")
        for record in records
        if record[attributes_at].get("error.type") == "process_died"
    ]


def left_open(spool: File, *numbers: int) -> Segment:
    """Give the segment of a process that died with calls in flight."""
    return Segment(spool, GONE).add(*map(make_span, numbers), kind=Kind.START)


def taken_over(spool: File, *numbers: int) -> Segment:
    segment = left_open(spool, *numbers)
    return segment.add(HERE, kind=Kind.HEADER).add(make_span(100), make_span(101))


@pytest.mark.parametrize("is_sealed", [False, True])
def test_what_the_writer_before_owes_is_told_although_the_flusher_dies_once_it_is_accepted(
    spool: File, is_sealed: bool
) -> None:
    segment = taken_over(spool, 1, 2)
    if is_sealed:
        segment.seal()
    killed = Reading(spool)
    killed.take()
    killed.reader.close()
    assert died(Reading(spool).take_all()) == [1, 2]


def test_what_the_writer_before_owes_is_told_once_although_it_is_read_again(spool: File) -> None:
    taken_over(spool, 1)
    reading = Reading(spool)
    reading.reader.accept(reading.pieces(items_max=1))
    reading.pieces(items_max=1)
    reading.reader.rewind()
    found = reading.take_all()
    reading.tidy(LATER_NS)
    assert died(found + reading.take_all()) == [1]


def test_what_the_writer_before_owes_is_told_once_although_less_is_read_the_second_time(
    spool: File,
) -> None:
    left_open(spool, 1).add(make_span(2)).add(HERE, kind=Kind.HEADER).add(make_span(3))
    reading = Reading(spool)
    reading.pieces()
    reading.reader.rewind()
    found = reading.take(items_max=1)
    assert died(found + reading.take_all()) == [1]


def test_what_the_writer_before_owes_is_told_once_although_its_segment_makes_room_for_others(
    spool: File,
) -> None:
    left_open(spool, 1).add(make_span(2)).add(HERE, kind=Kind.HEADER).add(make_span(3)).seal()
    reading = Reading(spool, tails_max=1)
    first = reading.pieces(items_max=1)
    reading.pieces(items_max=1)
    reading.reader.accept(first)
    reading.reader.rewind()
    living = [Segment(spool, HERE).add(make_span(200 + number)) for number in range(3)]
    found = []
    for _ in range(20):
        found += reading.take()
    assert died(found) == [1]
    assert len(found) == len(living) + 2


def test_nothing_is_drained_while_a_segment_that_made_room_for_others_owes(spool: File) -> None:
    segments = [left_open(spool, 1)]
    segments += [Segment(spool, HERE).add(make_span(100 + number)) for number in range(3)]
    reading = Reading(spool, tails_max=1)
    for _ in range(8):  # each of them is open once, and those that are done are closed for others
        reading.take()
    segments[0].leave()
    assert not reading.reader.is_drained()
    for _ in range(20):  # until each had its turn
        reading.tidy(LATER_NS)
    found = [record for _ in range(20) for record in reading.take()]
    assert died(found) == [1]
    assert reading.reader.is_drained()


@pytest.mark.parametrize(
    ("calls", "said"),
    [
        (1, "1 call was in flight when its process died"),
        (2, "2 calls were in flight when their process died"),
    ],
)
def test_that_processes_died_is_logged_once_and_is_no_error_of_delivery(
    spool: File, caplog: pytest.LogCaptureFixture, calls: int, said: str
) -> None:
    for number in range(calls):
        left_open(spool, number)
    reading = Reading(spool)
    assert died(reading.take_all()) == []
    reading.tidy(LATER_NS)
    reading.tidy(LATER_NS)
    assert len(died(reading.take_all())) == calls
    assert [record.getMessage() for record in caplog.records] == [said]
    assert reading.errors == []


def test_what_the_writer_before_owes_is_told_although_the_disk_was_full(
    spool: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken_over(spool, 1)
    reading = Reading(spool)
    with monkeypatch.context() as full:
        refuse_evidence(full)
        reading.reader.accept(reading.pieces(items_max=1))
        reading.pieces(items_max=1)
        reading.reader.rewind()
    assert "crash evidence cannot be written now" in reading.errors[0]
    reading.tidy()
    assert died(reading.take_all()) == [1]


def test_what_the_disk_refused_to_tell_of_is_kept_and_told_later(
    spool: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_open(spool, 1, 2).leave()
    reading = Reading(spool)
    reading.take_all()
    with monkeypatch.context() as full:
        refuse_evidence(full)
        reading.tidy(LATER_NS)
        reading.tidy(LATER_NS)
    assert len(segment_names(spool)) == 1, "no part of the evidence is left behind"
    reading.tidy(LATER_NS)
    assert died(reading.take_all()) == [1, 2]


def test_a_call_is_told_once_although_its_segment_is_kept_for_an_extra_target(spool: File) -> None:
    left_open(spool, 1).add(make_span(2)).leave()
    keeper = Sharing(is_keeper=True, others=[extra_target_hash("lab", "http://lab/v1/traces")])
    found = []
    for _ in range(3):  # flushers, one after the other
        reading = Reading(spool, sharing=keeper)
        found += reading.take_all()
        reading.tidy(LATER_NS)
        found += reading.take_all()
        reading.reader.close()
    assert died(found) == [1]
    assert len(segment_names(spool)) == 2, "the extra target lacks both"


def test_a_call_ends_with_the_last_that_was_written_and_not_when_it_was_delivered(
    spool: File,
) -> None:
    segment = left_open(spool, 1)
    written_ns = make_span(1).start_unix_ns + 5_000_000_000
    os.utime(segment.leave().file_name(), ns=(written_ns, written_ns), dir_fd=spool.fd)
    reading = Reading(spool)
    reading.take_all()
    reading.tidy(LATER_NS)
    [told] = reading.take_all()
    assert told[END_AT] == written_ns


def test_a_call_ends_with_the_last_that_was_written_although_that_was_first_seen_in_tidying_up(
    spool: File,
) -> None:
    began_ns = make_span(1).start_unix_ns
    segment = Segment(spool, GONE)
    os.utime(segment.name.file_name(), ns=(began_ns, began_ns), dir_fd=spool.fd)
    reading = Reading(spool)
    reading.take_all()
    written_ns = began_ns + 5_000_000_000
    segment.add(make_span(1), kind=Kind.START)
    os.utime(segment.leave().file_name(), ns=(written_ns, written_ns), dir_fd=spool.fd)
    reading.reader.tidy(LATER_NS)  # it was not looked at since
    reading.take_all()
    reading.tidy(LATER_NS)
    [told] = reading.take_all()
    assert told[END_AT] == written_ns


def refuse_evidence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the disk be full behind the first frame of a new segment."""
    written = []
    write = os.write

    def refuse(fd: int, data: bytes) -> int:
        written.append(data)
        if len(written) % 3 == 0:  # the head and a header fit
            raise OSError(28, "no space left on device")
        return write(fd, data)

    monkeypatch.setattr(evidence_module.os, "write", refuse)
