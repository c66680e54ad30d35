"""The real spool against a plain list: whatever happens to it, in any order.

Writers record, rotate, are forked and killed; files are torn and bits flipped; the reader reads, accepts,
goes back, is opened anew and tidies up; the quota deletes. The model knows where each record lies, and
so which records a damage may cost. Every other one is given until it is accepted, and not once more.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fallom._host.files import File, open_directory, open_file
from fallom._spool import segment
from fallom._spool.frame import Kind, encode_frame, pack
from fallom._spool.quota import drop_oldest, usage_of
from fallom._spool.reader import Piece, SpoolReader
from fallom._spool.segment import (
    HEAD_BYTES,
    Destination,
    SegmentName,
    segment_names,
    target_hash,
)
from fallom._spool.survey import count_left, marks_of, writers_of
from tests.support.processes import in_child
from tests.support.spools import RecordWriter

TARGET = target_hash("http://target")
TARGETS = dict.fromkeys(Destination, TARGET)
SEGMENT_BYTES_MAX = 1200  # a head, a header and some ten records
WRITERS = 3


class Place(NamedTuple):
    """Where a record lies."""

    segment: bytes
    start: int
    end: int


class Spool(RuleBasedStateMachine):
    """The spool and its model."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="fallom-model-")
        # An example has to repeat itself: ids decide which segment is taken over next.
        self.ids = 0
        self.patched = mock.patch.object(segment.os, "urandom", self.id)
        self.patched.start()
        self.spool = open_directory(self.folder.name)
        self.now_ns = 1
        self.said: list[str] = []
        self.writers = [self.new_writer() for _ in range(WRITERS)]
        self.reader = self.new_reader()
        self.recorded: dict[int, Place] = {}  # acknowledged
        self.given: set[int] = set()  # since the reader last went back, not accepted
        self.accepted: set[int] = set()
        self.may_be_gone: set[int] = set()  # damaged, or deleted by the quota
        self.may_come_again: set[bytes] = set()  # segments whose head was damaged
        self.pending: list[list[Piece]] = []

    # What happens.

    @rule(writer=st.integers(0, WRITERS - 1), size=st.integers(0, 300), count=st.integers(1, 4))
    def record(self, writer: int, size: int, count: int) -> None:
        for _ in range(count):
            self.write_one(self.writers[writer], size)

    @rule(writer=st.integers(0, WRITERS - 1))
    def seal(self, writer: int) -> None:
        self.writers[writer].seal()

    @rule(writer=st.integers(0, WRITERS - 1))
    def kill(self, writer: int) -> None:
        """What a kill leaves is what closing without sealing leaves."""
        self.writers[writer].abandon()
        self.writers[writer] = self.new_writer()

    @rule(writer=st.integers(0, WRITERS - 1), count=st.integers(1, 5), size=st.integers(0, 300))
    def fork_and_kill(self, writer: int, count: int, size: int) -> None:
        """A child goes on with its parent's writer, and is gone without a word."""

        def child() -> tuple[dict[int, Place], int]:
            for _ in range(count):
                self.write_one(self.writers[writer], size)
            return self.recorded, self.ids

        self.recorded, self.ids = in_child(child)

    @rule(data=st.data(), cut=st.integers(1, 40))
    def kill_within_a_write(self, data: st.DataObject, cut: int) -> None:
        """Half a frame at the end of a segment whose writer is gone."""
        with self.ownerless(data) as (name, file):
            if name is not None:
                frame = encode_frame(Kind.SPAN, pack([-1, b"x" * 40]), name.seed)
                os.pwrite(file.fd, frame[:cut], file.size())

    @rule(data=st.data(), cut=st.integers(1, 500))
    def tear(self, data: st.DataObject, cut: int) -> None:
        """The end of a file is gone, as after a power cut, which the flusher does not survive either."""
        self.reopen()
        with self.ownerless(data) as (name, file):
            if name is not None:
                end = max(0, file.size() - cut)
                os.ftruncate(file.fd, end)
                self.may_be_gone |= self.lying_in(name.id, end, 1 << 62)
                if end < HEAD_BYTES:
                    self.may_come_again.add(name.id)

    @rule(data=st.data(), bit=st.integers(0, 7))
    def flip(self, data: st.DataObject, bit: int) -> None:
        name = self.any_segment(data)
        if name is not None and self.sizes()[name.id]:
            offset = data.draw(st.integers(0, 1 << 16))
            self.flip_at(name, offset % self.sizes()[name.id], bit)

    @rule(data=st.data(), offset=st.integers(0, 95), bit=st.integers(0, 7))
    def flip_in_head(self, data: st.DataObject, offset: int, bit: int) -> None:
        name = self.any_segment(data)
        if name is not None and self.sizes()[name.id] > offset:
            self.flip_at(name, offset, bit)

    @rule(items=st.integers(1, 8), size=st.integers(1, 2000))
    def read(self, items: int, size: int) -> None:
        self.age()
        self.reader.refresh(self.tick())
        pieces = self.reader.next_batch(items, size)
        numbers = [item.record[0] for piece in pieces for item in piece.items]
        for number in numbers:
            assert number in self.recorded, "invented"
            assert number not in self.given, "given twice"
            again = self.recorded[number].segment in self.may_come_again
            assert number not in self.accepted or again, "given after it was accepted"
            self.given.add(number)
        if pieces:
            self.pending.append(pieces)

    @precondition(lambda self: self.pending)
    @rule()
    def accept(self) -> None:
        pieces = self.pending.pop(0)
        try:
            self.reader.accept(pieces)
        except OSError:
            assert self.may_come_again, (
                "a file that is torn within its head has no room for offsets"
            )
        numbers = {item.record[0] for piece in pieces for item in piece.items}
        self.accepted |= numbers
        self.given -= numbers

    @rule()
    def rewind(self) -> None:
        self.reader.rewind()
        self.forget_given()

    @rule()
    def reopen(self) -> None:
        self.reader.close()
        self.reader = self.new_reader()
        self.forget_given()

    @rule(leaving=st.booleans())
    def tidy(self, leaving: bool) -> None:
        self.age()
        self.reader.refresh(self.tick())
        self.reader.tidy(self.now_ns, leaving)

    @rule()
    def wait(self) -> None:
        self.now_ns += 6_000_000_000

    @rule(share=st.floats(0.1, 1.0))
    def reach_the_quota(self, share: float) -> None:
        self.age()
        before = self.sizes()
        used = usage_of(self.spool).bytes
        in_flight = {piece.tail.name.id for pieces in self.pending for piece in pieces}
        _, lost = drop_oldest(self.spool, used, int(used * share), TARGETS, in_flight)
        deleted = before.keys() - self.sizes().keys()
        there = {number for number, at in self.recorded.items() if at.segment in deleted}
        undamaged = there - self.may_be_gone - self.accepted
        if not deleted & self.may_come_again:
            assert len(undamaged) <= lost <= len(undamaged | (there & self.may_be_gone))
        self.may_be_gone |= there

    # What always holds.

    @invariant()
    def what_is_left_is_known(self) -> None:
        marks = marks_of(self.spool, TARGETS)
        left = count_left(self.spool, marks, TARGETS)
        unaccepted = self.recorded.keys() - self.accepted
        assert left >= len(unaccepted - self.may_be_gone)
        if not self.may_come_again:
            assert left <= len(unaccepted)

    @invariant()
    def living_writers_are_known(self) -> None:
        living = sum(1 for writer in self.writers if Destination.TRACES in writer._open)
        assert writers_of(self.spool) == living

    def teardown(self) -> None:
        for writer in self.writers:
            writer.abandon()
        self.reopen()
        while True:
            before = len(self.pending)
            self.read(100, 1 << 20)
            if len(self.pending) == before:
                break
            self.accept()
        missing = self.recorded.keys() - self.accepted - self.may_be_gone
        assert missing == set(), f"lost; the reader said {self.said}"
        self.reader.tidy(self.tick(), leaving=True)
        assert os.listdir(self.folder.name) == [], "what is accepted is deleted"
        self.reader.close()
        self.spool.close()
        self.folder.cleanup()
        self.patched.stop()

    # How it is done.

    def id(self, length: int) -> bytes:
        self.ids += 1
        return hashlib.sha256(str(self.ids).encode()).digest()[:length]

    def new_writer(self) -> RecordWriter:
        return RecordWriter(lambda: self.spool, lambda: {"service": "s"}, SEGMENT_BYTES_MAX)

    def new_reader(self) -> SpoolReader:
        return SpoolReader(
            self.spool,
            Destination.TRACES,
            TARGET,
            on_damage=lambda *_: None,
            on_error=self.said.append,
        )

    def write_one(self, writer: RecordWriter, size: int) -> None:
        record = [len(self.recorded), b"x" * size]
        before = self.sizes()
        dropped = writer.write(Destination.TRACES, Kind.SPAN, record, self.tick())
        assert dropped is None
        ((grown, end),) = self.sizes().items() - before.items()
        start = end - len(encode_frame(Kind.SPAN, pack(record), 0))
        self.recorded[record[0]] = Place(grown, start, end)

    def flip_at(self, name: SegmentName, offset: int, bit: int) -> None:
        with self.opened(name) as file:
            byte = os.pread(file.fd, 1, offset)
            os.pwrite(file.fd, bytes([byte[0] ^ 1 << bit]), offset)
        if offset < HEAD_BYTES:
            self.may_come_again.add(name.id)
        self.may_be_gone |= self.lying_in(name.id, offset, offset + 1)

    def lying_in(self, where: bytes, start: int, end: int) -> set[int]:
        return {
            number
            for number, at in self.recorded.items()
            if at.segment == where and at.start < end and start < at.end
        }

    def forget_given(self) -> None:
        self.given.clear()
        self.pending.clear()

    def age(self) -> None:
        """Date the files by the model's clock: the order of age is part of an example."""
        for name in self.names():
            path = Path(self.folder.name, name.file_name())
            if path.stat().st_mtime_ns > self.now_ns:
                os.utime(path, ns=(self.now_ns, self.now_ns))

    def tick(self) -> int:
        self.now_ns += 1_000_000
        return self.now_ns

    def names(self) -> list[SegmentName]:
        return sorted(segment_names(self.spool))

    def sizes(self) -> dict[bytes, int]:
        folder = Path(self.folder.name)
        return {name.id: (folder / name.file_name()).stat().st_size for name in self.names()}

    def any_segment(self, data: st.DataObject) -> SegmentName | None:
        names = self.names()
        drawn = data.draw(st.integers(0, 1 << 16))
        return names[drawn % len(names)] if names else None

    @contextmanager
    def opened(self, name: SegmentName) -> Iterator[File]:
        file = open_file(self.spool, name.file_name(), os.O_RDWR)
        try:
            yield file
        finally:
            file.close()

    @contextmanager
    def ownerless(self, data: st.DataObject) -> Iterator[Any]:
        """Draw a segment that nobody writes to, and hold its lock meanwhile."""
        name = self.any_segment(data)
        if name is None:
            yield None, None
            return
        with self.opened(name) as file:
            yield (name, file) if file.lock() else (None, None)


TestSpool = Spool.TestCase
TestSpool.settings = settings(
    max_examples=settings.default.max_examples,  # the soak asks for more
    stateful_step_count=40,
    suppress_health_check=list(HealthCheck),
)


# What the machine once found, step by step.

FIRST: Any = SimpleNamespace(draw=lambda _: 0)


def test_what_is_written_after_a_cut_below_the_accepted_offset_is_given() -> None:
    spool: Any = Spool()
    spool.record(writer=0, size=100, count=3)
    spool.read(items=10, size=2000)
    spool.accept()
    spool.kill(writer=0)
    spool.tear(data=FIRST, cut=200)
    spool.record(writer=0, size=10, count=1)
    spool.what_is_left_is_known()
    spool.teardown()


def test_what_is_written_after_a_cut_within_the_head_is_given() -> None:
    spool: Any = Spool()
    spool.record(writer=0, size=0, count=1)
    spool.kill(writer=0)
    spool.tear(data=FIRST, cut=75)
    spool.record(writer=0, size=0, count=1)
    spool.what_is_left_is_known()
    spool.teardown()


def test_a_flipped_bit_in_the_format_s_number_costs_nothing() -> None:
    spool: Any = Spool()
    spool.record(writer=0, size=0, count=1)
    spool.flip_in_head(data=FIRST, offset=8, bit=1)
    spool.reopen()
    spool.teardown()
