"""A tail: one segment as the flusher holds it, open, read up to here and accepted up to there.

Whoever holds its lock, a segment is read up to what is whole. No part of a frame is kept between two
reads, and what is damaged is told once, however often it is read again.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fallom._host.files import File, open_file
from fallom._spool.frame import (
    FRAME_BYTES_MAX,
    KIND_AT,
    NOT_SENT,
    Damage,
    Frame,
    Kind,
    RecordError,
    decode_record,
    scan,
)
from fallom._spool.segment import (
    HEAD_BYTES,
    SegmentName,
    is_known_format,
    read_accepted,
    write_accepted,
)

__all__ = [
    "Item",
    "LaterFormatError",
    "OnDamage",
    "Piece",
    "Start",
    "Tail",
    "count_records",
    "frames_of",
    "tails_allowed",
]

OnDamage = Callable[[SegmentName, int, bytes], None]  # segment, offset, bytes that are no frame
TAILS_MAX = 256  # open at once, of a destination
READERS_MAX = 6  # of a flusher: four destinations, and two of all extra targets together
OTHER_FILES = 150  # connections, directories, what is opened for a moment; a guess
_WINDOW_BYTES = 4 << 20


class LaterFormatError(Exception):
    """A segment that a later version wrote; it is that version's to read."""


@dataclass(slots=True)
class Item:
    """One record, decoded, and where it came from."""

    kind: int
    record: Any
    resource: dict[str, Any]
    payload: bytes
    tail: Tail | None = None
    offset: int = -1  # of its frame

    def is_erased(self) -> bool:
        """Tell whether it was erased from its segment since it was read."""
        return self.tail is not None and self.tail.is_erased(self.offset)


class Start(NamedTuple):
    """A call that began: the record of its span without an end, and its writer's resource."""

    record: Any
    resource: dict[str, Any]
    offset: int = -1  # of its frame


@dataclass(slots=True)
class Piece:
    """Consecutive records of one segment; ``end`` is what is accepted when all of them are."""

    tail: Tail
    end: int
    items: list[Item] = field(default_factory=list)


class Tail:
    """One open segment."""

    __slots__ = (
        "_on_damage",
        "_resource",
        "_told_to",
        "accepted",
        "born_ns",
        "file",
        "idle_since_ns",
        "is_as_written",
        "name",
        "position",
        "size",
        "starts",
        "starts_of_the_dead",
        "starts_told",
        "written_ns",
    )

    def __init__(self, spool: File, name: SegmentName, target: bytes, on_damage: OnDamage) -> None:
        """Open a segment where ``target`` has accepted it up to.

        Raises:
            LaterFormatError: It is not ours to read.
            OSError: It cannot be opened or read.
        """
        self.name = name
        self.file = open_file(spool, name.file_name(), os.O_RDWR)
        try:
            if not is_known_format(self.file):
                raise LaterFormatError(f"segment {name.file_name()} is of a later version")
            self.size = self.file.size()
            # An offset beyond the end is damage that kept its checksum by chance, or a cut file.
            accepted = read_accepted(self.file, name, target)
            self.accepted = min(accepted, max(self.size, HEAD_BYTES))
            self.born_ns = os.fstat(self.file.fd).st_mtime_ns  # by the wall clock: the order of age
            self.written_ns = self.born_ns  # the same, of the last that was written behind the head
        except BaseException:
            self.file.close()
            raise
        self.position = self._told_to = self.accepted
        self.is_as_written = True  # the head says what is accepted
        self.idle_since_ns = 0
        self._resource: dict[str, Any] | None = None  # not known yet
        self.starts: dict[bytes, Start] = {}  # calls of the writer that have no span yet
        self.starts_of_the_dead: dict[bytes, Start] = {}  # of writers before it, who will give none
        self.starts_told: set[bytes] = set()  # what became evidence, however often it is read again
        self._on_damage = on_damage

    def rest(self) -> None:
        """Close the file until ``resume``, which of a sealed one needs nothing of its writer."""
        self.file.close()
        if self.name.is_sealed:
            self._resource, self.starts = None, {}

    def resume(self, rested: Tail) -> None:
        """Know again what was known when it was closed, or all of it would have to be read for that."""
        if self.accepted == rested.position:
            self._resource, self.starts = rested._resource, rested.starts
        if self.size == rested.size:
            self.idle_since_ns, self.written_ns = rested.idle_since_ns, rested.written_ns
        self.starts_of_the_dead = rested.starts_of_the_dead
        self.starts_told, self._told_to = rested.starts_told, rested._told_to

    @property
    def is_done(self) -> bool:
        """Whether all that there was at the last look is accepted."""
        return self.accepted >= self.size

    def look(self, monotonic_ns: int) -> None:
        """Look how long it has become."""
        found = os.fstat(self.file.fd)
        if found.st_size != self.size:
            self.written_ns = found.st_mtime_ns
        if found.st_size != self.size or self.idle_since_ns == 0:
            self.size, self.idle_since_ns = found.st_size, monotonic_ns

    def rewind(self) -> None:
        """Read again what was read and not accepted."""
        if self.position != self.accepted:
            self.position = self.accepted
            self._resource = None

    def accept(self, end: int, target: bytes) -> None:
        """Write down that ``target`` has it up to ``end``.

        Raises:
            OSError: That could not be written; it counts as accepted all the same.
        """
        if end > self.accepted:
            self.accepted, self.is_as_written = end, False
            self.write_down(target)

    def write_down(self, target: bytes) -> None:
        """Write what is accepted into the head.

        Raises:
            OSError: That could not be written.
        """
        write_accepted(self.file, self.name, target, self.accepted)
        self.is_as_written = True

    def catch_up(self, target: bytes) -> None:
        """Pass over what another thread gave up for ``target``.

        Raises:
            OSError: The head cannot be read.
        """
        given_up = min(read_accepted(self.file, self.name, target), self.size)
        if given_up > self.accepted:
            self.accepted = given_up
            if self.position < given_up:
                self.position, self._resource = given_up, None

    def is_accepted_by(self, target: bytes) -> bool:
        """Tell whether another target has all that there was at the last look.

        Raises:
            OSError: The head cannot be read.
        """
        return read_accepted(self.file, self.name, target) >= self.size

    def learn(self) -> None:
        """Know the writer and its calls in flight as of the position, after a restart or a rewind."""
        if self._resource is None:
            self._resource, self.starts = {}, {}
            owed, self.starts_of_the_dead = self.starts_of_the_dead, {}
            for found in frames_of(self.file, self.name, HEAD_BYTES, self.position):
                if isinstance(found, Frame) and found.kind != Kind.ERASED:
                    self._follow(found)
            # What was accepted was told before that, but for what could not be written yet.
            self.starts_of_the_dead = owed

    def settle(self, starts: Iterable[Start]) -> None:
        """Owe nothing of these calls any more, however often they are read again."""
        for span_id in [start.record[1] for start in starts]:
            self.starts_told.add(span_id)
            self.starts.pop(span_id, None)  # known from before what told of their writer's end
            self.starts_of_the_dead.pop(span_id, None)

    def read(self, items_max: int, bytes_max: int) -> Piece | None:
        """Read from where the last read ended; None when there is nothing whole."""
        self.learn()
        window = min(self.size - self.position, bytes_max + FRAME_BYTES_MAX)
        data = os.pread(self.file.fd, window, self.position)
        piece = Piece(self, self.position)
        for found in scan(data, 0, self.name.seed, at=self.position):
            if isinstance(found, Damage):
                if found.is_incomplete and not self._is_final(found, len(data)):
                    break
                bad = data[found.offset - self.position : found.end - self.position]
                if os.pread(self.file.fd, len(bad), found.offset) != bad:
                    break  # it is being erased at this moment, and is whole when it is read again
                self._tell(found.offset, found.end, bad)
            else:
                self._take(piece, found)
            piece.end = found.end
            bytes_max -= found.end - found.offset
            if len(piece.items) >= items_max or bytes_max <= 0:
                break
        if piece.end == self.position:
            return None
        self.position = piece.end
        return piece

    def is_erased(self, offset: int) -> bool:
        """Tell whether the frame at an offset, which was read as a record, is an erased one by now."""
        try:
            return os.pread(self.file.fd, 1, offset + KIND_AT) == bytes((Kind.ERASED,))
        except OSError:
            return False

    def _take(self, piece: Piece, frame: Frame) -> None:
        if frame.kind == Kind.ERASED:
            return
        record = self._follow(frame)
        if record is None:
            # Its checksum is right, so this is no flipped bit but a fault of its writer.
            self._tell(frame.offset, frame.end, frame.payload)
        elif frame.kind not in NOT_SENT:
            resource = self._resource or {}
            item = Item(frame.kind, record, resource, frame.payload, self, frame.offset)
            piece.items.append(item)

    def _follow(self, frame: Frame) -> Any:
        """Take in what a frame says of its writer and of calls in flight; give its record, if it is one."""
        try:
            record = decode_record(frame.payload)
            if frame.kind == Kind.HEADER:
                # Only ever one a writer: whoever was before is gone, and so are its calls.
                self.starts_of_the_dead.update(self.starts)
                self.starts = {}
                self._resource = dict(record)
            elif frame.kind == Kind.START:
                if record[1] not in self.starts_told:
                    self.starts[record[1]] = Start(record, self._resource or {}, frame.offset)
            elif frame.kind == Kind.SPAN and self.starts:
                self.starts.pop(record[1], None)
        except (RecordError, TypeError, ValueError, LookupError):
            return None
        return record

    def _tell(self, offset: int, end: int, data: bytes) -> None:
        if end > self._told_to:
            self._told_to = end
            self._on_damage(self.name, offset, data[: end - offset])

    def _is_final(self, damage: Damage, read_bytes: int) -> bool:
        """Tell whether an incomplete frame will never be completed: nobody can be writing it."""
        if self.position + read_bytes < self.size:
            return False  # the window ended, not the file
        if self.name.is_sealed:
            return True
        if not self.file.lock():
            return False
        try:
            return self.file.size() == damage.end
        finally:
            self.file.unlock()


def tails_allowed() -> int:
    """Give how many a reader may have open, so that all leave this process files to connect with."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - OTHER_FILES
    return max(2, min(TAILS_MAX, files // READERS_MAX))


def count_records(file: File, name: SegmentName, start: int, end: int) -> int:
    """Count the records between two offsets of a segment that are to be sent.

    Raises:
        OSError: The file cannot be read.
    """
    return sum(
        isinstance(found, Frame) and found.kind not in NOT_SENT
        for found in frames_of(file, name, start, end)
    )


def frames_of(file: File, name: SegmentName, start: int, end: int) -> Iterator[Frame | Damage]:
    """Give the frames between two offsets, and what is none; a last one that is not whole as well.

    Raises:
        OSError: The file cannot be read.
    """
    position = start
    while position < end:
        data = os.pread(file.fd, min(_WINDOW_BYTES, end - position), position)
        is_last = position + len(data) >= end or not data
        after = position
        for found in scan(data, 0, name.seed, at=position):
            if isinstance(found, Damage) and found.is_incomplete and not is_last:
                break  # the window ended, not the file
            after = found.end
            yield found
        if after == position:
            return
        position = after
