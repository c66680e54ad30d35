"""Erasing: exactly one person's records go, in place, whoever writes and wherever it is broken off."""

from __future__ import annotations

import errno
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fallom._core.span import Exposure, Span
from fallom._host.files import File, open_file
from fallom._spool import erasing, tail
from fallom._spool.erasing import Erasure, Person, erase_from_spool, person_of
from fallom._spool.frame import Kind, pack
from fallom._spool.segment import Destination, segment_names
from tests.support.records import make_metrics, make_span
from tests.support.spools import Reading, RecordWriter, Segment, records_of

ADA, BOB = "session-of-ada", "session-of-bob"
SECRET = "what nobody may read"


def span(number: int, session_id: str, customer_id: str = "", **more: Any) -> Span:
    attributes = {"fallom.session_id": session_id, "text": f"{SECRET} {session_id} {number}"}
    if customer_id:
        attributes["fallom.customer_id"] = customer_id
    return make_span(number, attributes={**attributes, **more})


def exposure(session_id: str) -> Exposure:
    return Exposure("app", 1, session_id, "model", 1)


def erase(spool: File, session_id: str = ADA, **more: Any) -> Erasure:
    return erase_from_spool(spool, Person(session_id), None, **more)


def numbers(spool: File, destination: Destination = Destination.TRACES) -> list[int]:
    reading = Reading(spool, destination)
    found = []
    while pieces := reading.pieces():
        found += [int.from_bytes(record[1], "big") for record in records_of(pieces)]
    assert reading.damage == []
    reading.reader.close()
    return sorted(found)


def on_disk(spool_path: Path, text: str) -> bool:
    return any(text.encode() in path.read_bytes() for path in spool_path.iterdir())


def test_only_the_records_of_that_session_go_and_their_bytes_with_them(
    spool: File, spool_path: Path
) -> None:
    Segment(spool, {}).add(span(1, ADA), span(2, BOB), span(3, ADA)).seal()
    Segment(spool, {}).add(span(4, f"{ADA}-2"), span(5, BOB, text=f"asks about {ADA}")).leave()
    erasure = erase(spool)
    assert erasure.unsent == Counter({"spans": 2})
    assert (erasure.delivered, erasure.unreadable, erasure.failed) == (0, 0, [])
    assert numbers(spool) == [2, 4, 5]
    assert not on_disk(spool_path, f"{SECRET} {ADA} ")
    assert erase(spool).count == 0


def test_metrics_and_exposures_and_calls_in_flight_go_too(spool: File, spool_path: Path) -> None:
    metrics = [
        make_metrics(number)._replace(session_id=who) for number, who in ((1, ADA), (2, BOB))
    ]
    Segment(spool, {}, Destination.METRICS).add(*metrics, kind=Kind.METRICS)
    Segment(spool, {}, Destination.EXPOSURES).add(exposure(ADA), exposure(BOB), kind=Kind.EXPOSURE)
    Segment(spool, {}).add(span(3, ADA), span(4, BOB), kind=Kind.START)
    expected = {"metrics": 1, "exposures": 1, "calls in flight": 1}
    assert erase(spool, is_dry=True).unsent == expected
    assert on_disk(spool_path, ADA), "nothing was done"
    assert erase(spool).unsent == expected
    assert not on_disk(spool_path, ADA)
    assert on_disk(spool_path, BOB)


def test_a_customer_s_exposures_are_known_by_sessions_that_are_theirs_alone(
    spool: File, spool_path: Path
) -> None:
    Segment(spool, {}).add(
        span(1, "own", "ada"), span(2, "shared", "ada"), span(3, "shared", "bob")
    )
    told = Segment(spool, {}, Destination.EXPOSURES)
    told.add(*map(exposure, ("own", "shared", "other")), kind=Kind.EXPOSURE)
    person = person_of(spool, "", "ada")
    assert person.sessions == {"own"}
    erasure = erase_from_spool(spool, person, None)
    assert erasure.unsent == {"spans": 2, "exposures": 1}
    assert numbers(spool) == [3]
    assert not on_disk(spool_path, "own")


def test_an_id_that_was_recorded_as_a_number_is_found_by_its_text() -> None:
    theirs = make_span(1, attributes={"fallom.session_id": 7, "fallom.customer_id": 4200})
    assert Person("7").owns(Kind.SPAN, pack(theirs))
    assert not Person("70").owns(Kind.SPAN, pack(theirs))
    owned = [
        Person(customer_id=known).owns(kind, payload)
        for known in ("4200", "42")
        for kind, payload in ((Kind.SPAN, pack(theirs)), (Kind.UNKNOWN, b"of a later version"))
    ]
    assert owned == [True, False, False, False]


def test_a_writer_goes_on_in_the_segment_that_something_was_erased_from(
    spool: File, spool_path: Path
) -> None:
    writer = RecordWriter(lambda: spool, dict, 1 << 20)
    assert writer.write(Destination.TRACES, Kind.SPAN, span(1, ADA), 1) is None
    assert writer.write(Destination.TRACES, Kind.SPAN, span(2, BOB), 1) is None
    assert erase(spool).unsent == {"spans": 1}
    assert writer.write(Destination.TRACES, Kind.SPAN, span(3, BOB), 1) is None
    assert numbers(spool) == [2, 3]
    assert len(list(spool_path.iterdir())) == 1
    writer.seal()


def test_what_was_delivered_goes_from_the_disk_and_is_no_loss(
    spool: File, spool_path: Path
) -> None:
    segment = Segment(spool, {}).add(span(1, ADA))
    reading = Reading(spool)
    reading.reader.accept(reading.pieces())
    segment.add(span(2, ADA))
    erasure = erase(spool)
    assert (erasure.unsent, erasure.delivered) == ({"spans": 1}, 1)
    assert not on_disk(spool_path, ADA)
    reading.reader.close()


def test_the_start_of_an_erased_call_goes_with_it_or_it_would_count_as_died(spool: File) -> None:
    segment = Segment(spool, {"process.pid": 0x7FFFFFFF})
    segment.add(make_span(1), kind=Kind.START).add(span(1, ADA), span(2, BOB))
    erase(spool)
    segment.leave()
    reading = Reading(spool)
    reading.pieces()
    reading.reader.tidy(1)
    assert numbers(spool) == [2]
    reading.reader.close()


def test_a_call_in_flight_is_counted_though_the_flusher_read_on_and_one_that_ended_is_not(
    spool: File,
) -> None:
    sealed = Segment(spool, {}).add(span(1, ADA), kind=Kind.START)  # repeated in the next
    sealed.seal()
    segment = Segment(spool, {}).add(*(span(n, ADA) for n in (1, 1, 2)), kind=Kind.START)
    segment.add(span(2, ADA))
    reading = Reading(spool)
    reading.take_all()
    assert erase(spool, is_dry=True).unsent == {"calls in flight": 1}
    assert erase(spool).unsent == {"calls in flight": 1}
    assert erase(spool).count == 0
    reading.reader.close()


def test_a_call_that_a_flusher_knows_and_that_was_erased_is_not_told_as_died(spool: File) -> None:
    segment = Segment(spool, {"process.pid": 0x7FFFFFFF})
    segment.add(span(1, ADA), span(2, BOB), kind=Kind.START)
    reading = Reading(spool)
    reading.pieces()
    erase(spool)
    segment.leave()
    reading.reader.tidy(1)
    reading.reader.close()
    assert numbers(spool) == [2]


def test_damage_in_which_the_id_occurs_is_overwritten(spool: File, spool_path: Path) -> None:
    segment = Segment(spool, {}).add(span(1, ADA), span(2, BOB), span(3, BOB))
    segment.flip(300)  # of the first
    segment.seal()
    erasure = erase(spool)
    assert (erasure.unsent.total(), erasure.unreadable) == (0, 1)
    assert not on_disk(spool_path, ADA)
    assert on_disk(spool_path, BOB)


@pytest.mark.parametrize("share", [0, 0.5, 1])
def test_broken_off_at_any_write_it_loses_nobody_else_s_and_is_finished_by_the_next(
    spool: File, spool_path: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    """Each write is cut: before, within, after it. What an 11-byte header may become is shown apart."""
    written = [span(number, (ADA, BOB)[number % 2], big="x" * 200_000) for number in range(6)]
    real, calls = os.pwrite, 0

    class Killed(BaseException):
        pass

    def cut(fd: int, data: bytes, offset: int) -> int:
        nonlocal calls
        calls -= 1
        if calls == 0:
            is_header = len(data) < 16
            real(fd, data[: len(data) if is_header and share else int(len(data) * share)], offset)
            raise Killed
        return real(fd, data, offset)

    Segment(spool, {}).add(*written).seal()
    [path] = spool_path.iterdir()
    before, at, is_finished = path.read_bytes(), 0, False
    while not is_finished:
        path.write_bytes(before)
        at += 1
        calls = at
        monkeypatch.setattr(erasing.os, "pwrite", cut)
        try:
            erase(spool)
            is_finished = True
        except Killed:
            pass
        monkeypatch.setattr(erasing.os, "pwrite", real)
        left = numbers(spool)
        assert {1, 3, 5} <= set(left)
        erase(spool)
        assert numbers(spool) == [1, 3, 5]
        assert not on_disk(spool_path, ADA)
        assert path.stat().st_size == len(before)
    assert at > 3 * 4


def test_broken_off_it_leaves_the_records_that_say_whose_an_exposure_is(
    spool: File, spool_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Segment(spool, {}).add(span(1, ADA, "ada")).leave()
    Segment(spool, {}, Destination.EXPOSURES).add(exposure(ADA), kind=Kind.EXPOSURE).leave()

    def broken_off(*_: object) -> None:
        raise KeyboardInterrupt

    listed = sorted(segment_names(spool))
    assert listed[-1].destination is Destination.EXPOSURES, "as a directory may list them"
    monkeypatch.setattr(erasing, "segment_names", lambda _: listed)
    monkeypatch.setattr(erasing.os, "fdatasync", broken_off)
    with pytest.raises(KeyboardInterrupt):
        erase_from_spool(spool, person_of(spool, "", "ada"), None)
    monkeypatch.undo()
    erase_from_spool(spool, person_of(spool, "", "ada"), None)
    assert not on_disk(spool_path, ADA)


def test_a_header_that_is_torn_costs_the_erased_record_alone_and_is_finished(
    spool: File, spool_path: Path
) -> None:
    Segment(spool, {}).add(span(1, BOB), span(2, ADA), span(3, BOB)).seal()
    [path] = spool_path.iterdir()
    data = bytearray(path.read_bytes())
    at = data.index(b"\xf1\x0c\x4d\x7e", data.index(f"{SECRET} {BOB} 1".encode()))
    data[at + 5] = Kind.ERASED  # and its checksum not
    path.write_bytes(data)
    assert erase(spool).unreadable == 1
    assert not on_disk(spool_path, ADA)
    assert on_disk(spool_path, f"{SECRET} {BOB} 3")


def test_a_frame_that_is_erased_while_it_is_read_is_no_damage(
    spool: File, spool_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system gives the old header and the new payload: a read and a write may mix by pages."""
    Segment(spool, {}).add(span(1, ADA, big="x" * 20_000), span(2, BOB)).leave()
    [path] = spool_path.iterdir()
    data = path.read_bytes()
    half = data.index(b"xxxx") + 9_000
    real = os.pread

    def mixed(fd: int, length: int, offset: int) -> bytes:
        monkeypatch.setattr(tail.os, "pread", real)
        erase(spool)
        return (data[:half] + path.read_bytes()[half:])[offset : offset + length]

    reading = Reading(spool)
    reading.reader.refresh(1)
    tails = list(reading.reader._tails.values())
    tails[0].learn()
    monkeypatch.setattr(tail.os, "pread", mixed)
    found = records_of(reading.pieces()) + records_of(reading.pieces())
    assert [int.from_bytes(record[1], "big") for record in found] == [2]
    assert reading.damage == []
    reading.reader.close()


def test_what_cannot_be_opened_is_said(spool: File, spool_path: Path) -> None:
    name = Segment(spool, {}).add(span(1, ADA)).seal()
    path = spool_path / name.file_name()
    path.rename(spool_path / "kept")
    path.symlink_to("kept")
    [sentence] = erase(spool).failed
    assert name.file_name() in sentence


@pytest.mark.parametrize("function", ["is_known_format", "frames_of"])
def test_a_segment_that_cannot_be_read_is_said_and_costs_only_its_own(
    spool: File, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    bad = Segment(spool, {}).add(span(1, ADA, "ada")).seal()
    Segment(spool, {}).add(span(2, ADA, "ada"), span(3, BOB)).seal()
    works = getattr(erasing, function)
    inode = (spool_file := open_file(spool, bad.file_name(), os.O_RDONLY)).identity
    spool_file.close()

    def refuse(file: File, *arguments: Any) -> Any:
        if file.identity == inode:
            raise OSError(errno.EIO, "the disk cannot read it")
        return works(file, *arguments)

    monkeypatch.setattr(erasing, function, refuse)
    erasure = erase_from_spool(spool, person_of(spool, "", "ada"), None)
    assert erasure.unsent == {"spans": 1}
    [told] = erasure.failed
    assert bad.file_name() in told
    assert "the disk cannot read it" in told
