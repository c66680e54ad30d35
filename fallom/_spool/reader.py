"""The reader: the segments of one destination as the flusher sees them.

Live segments are tailed: a segment is read up to what is whole, whoever holds it. A batch is made of
pieces, one a segment, and ``accept`` writes down how far a piece's segment went, in its own head. No
part of a frame is kept between two reads.

Used by one thread. What a disk may do is not hidden here: an ``OSError`` of one segment costs that
segment's turn, and is told to ``on_error``.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from fallom._host.files import File, UnsafeFileError, open_file
from fallom._spool.frame import (
    FRAME_BYTES_MAX,
    Damage,
    Frame,
    Kind,
    RecordError,
    decode_record,
    scan,
)
from fallom._spool.segment import (
    HEAD_BYTES,
    Destination,
    SegmentName,
    is_known_format,
    read_accepted,
    segment_names,
    write_accepted,
)

__all__ = ["Item", "Piece", "SpoolReader", "count_records"]

TAILS_MAX = 256  # open at once; a soft limit of 1,024 descriptors is common
DELETE_AFTER_NS = 5_000_000_000  # an ownerless segment waits that long for the next short process


@dataclass(slots=True)
class Item:
    """One record, decoded, and where it came from."""

    kind: int
    record: Any
    resource: dict[str, Any]
    payload: bytes


@dataclass(slots=True)
class Piece:
    """Consecutive records of one segment; ``end`` is what is accepted when all of them are."""

    tail: _Tail
    end: int
    items: list[Item] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Tail:
    """One segment, open, read up to ``position`` and accepted up to ``accepted``."""

    name: SegmentName
    file: File
    accepted: int
    position: int
    size: int
    born_ns: int  # wall clock of the file's last change when it was opened: the order of age
    idle_since_ns: int = 0
    resource: dict[str, Any] = field(default_factory=dict)

    @property
    def is_done(self) -> bool:
        return self.accepted >= self.size


class SpoolReader:
    """Reads the segments of one destination for one target."""

    def __init__(
        self,
        spool: File,
        destination: Destination,
        target: bytes,
        on_damage: Callable[[SegmentName, int, bytes], None],
        on_error: Callable[[str], None],
    ) -> None:
        """Open nothing yet.

        Args:
            spool: The spool directory.
            destination: Whose segments.
            target: ``target_hash`` of where they go.
            on_damage: Told of bytes that are no frame: segment, offset, bytes.
            on_error: Told, in a sentence, of a segment that cannot be used now.
        """
        self._spool = spool
        self._destination = destination
        self._target = target
        self._on_damage = on_damage
        self._on_error = on_error
        self._tails: dict[bytes, _Tail] = {}
        self._left_alone: set[bytes] = set()
        self._turn = 0

    def refresh(self, monotonic_ns: int) -> None:
        """Look which segments there are and how long they have become."""
        named = {
            name.id: name
            for name in segment_names(self._spool)
            if name.destination == self._destination and name.id not in self._left_alone
        }
        for segment_id in [known for known in self._tails if known not in named]:
            self._tails.pop(segment_id).file.close()
        # Live ones first: what is new matters most, and they are as many as there are writers.
        for name in sorted(named.values(), key=lambda found: found.is_sealed):
            tail = self._tails.get(name.id)
            if tail is None and len(self._tails) < TAILS_MAX:
                tail = self._open(name)
            if tail is not None:
                tail.name = name
                size = tail.file.size()
                if size != tail.size or tail.idle_since_ns == 0:
                    tail.size, tail.idle_since_ns = size, monotonic_ns

    def next_batch(self, items_max: int, bytes_max: int) -> list[Piece]:
        """Give the next records that were not given before, as far as they are whole.

        The newest records and the oldest backlog take turns, so that neither waits for the other.
        """
        self._turn += 1
        ready = [tail for tail in self._tails.values() if tail.position < tail.size]
        newest_first = self._turn % 2 == 0
        ready.sort(key=lambda tail: tail.born_ns, reverse=newest_first)
        pieces: list[Piece] = []
        for tail in ready:
            if items_max <= 0 or bytes_max <= 0:
                break
            try:
                piece = self._read(tail, items_max, bytes_max)
            except OSError as error:
                self._on_error(f"segment {tail.name.file_name()} cannot be read now: {error}")
                continue
            if piece is not None:
                pieces.append(piece)
                items_max -= len(piece.items)
                bytes_max -= sum(len(item.payload) for item in piece.items)
        return pieces

    def rewind(self) -> None:
        """Give again what was given and not accepted."""
        for tail in self._tails.values():
            if tail.position != tail.accepted:
                tail.position = tail.accepted
                tail.resource = {}

    def accept(self, pieces: Iterable[Piece]) -> None:
        """Write down that the target has these.

        Raises:
            OSError: An offset could not be written; a later flusher will send those records again.
        """
        failed: OSError | None = None
        for piece in pieces:
            tail = piece.tail
            if piece.end > tail.accepted:
                tail.accepted = piece.end  # it is delivered, whatever the disk says to that
                try:
                    write_accepted(tail.file, tail.name, self._target, piece.end)
                except OSError as error:
                    failed = error
        if failed is not None:
            raise failed

    def tidy(self, monotonic_ns: int, leaving: bool = False) -> int:
        """Delete what is accepted to its end and has no writer.

        Args:
            monotonic_ns: Now.
            leaving: Also those that became idle only just now.

        Returns:
            How many writers live.
        """
        writers = 0
        for tail in list(self._tails.values()):
            try:
                if tail.name.is_sealed:
                    self._finish_sealed(tail)
                elif not tail.file.lock():
                    writers += 1
                else:
                    try:
                        self._finish_ownerless(tail, monotonic_ns, leaving)
                    finally:
                        if tail.file.fd >= 0:
                            tail.file.unlock()  # ours: taken a moment ago
            except OSError as error:
                self._on_error(f"segment {tail.name.file_name()} cannot be deleted now: {error}")
        return writers

    def is_drained(self) -> bool:
        """Tell whether all that was there at the last ``refresh`` is accepted."""
        return all(tail.is_done for tail in self._tails.values())

    def close(self) -> None:
        """Close all segments."""
        for tail in self._tails.values():
            tail.file.close()
        self._tails.clear()

    def _open(self, name: SegmentName) -> _Tail | None:
        try:
            file = open_file(self._spool, name.file_name(), os.O_RDWR)
        except FileNotFoundError:
            return None  # sealed or deleted since it was listed
        except UnsafeFileError as error:
            self._left_alone.add(name.id)
            self._on_error(str(error))
            return None
        except OSError as error:
            self._on_error(f"segment {name.file_name()} cannot be opened now: {error}")
            return None
        if not is_known_format(file):
            self._left_alone.add(name.id)
            self._on_error(f"segment {name.file_name()} is of a later version; it is left alone")
            file.close()
            return None
        size = file.size()
        # An offset beyond the end is damage that kept its checksum by chance, or a file cut short.
        accepted = min(read_accepted(file, name, self._target), max(size, HEAD_BYTES))
        born_ns = os.fstat(file.fd).st_mtime_ns
        tail = _Tail(name, file, accepted, accepted, size, born_ns)
        self._tails[name.id] = tail
        return tail

    def _read(self, tail: _Tail, items_max: int, bytes_max: int) -> Piece | None:
        """Read from where the last read ended; None when there is nothing whole."""
        if not tail.resource and tail.position > HEAD_BYTES:
            tail.resource = self._resource_before(tail)
        window = min(tail.size - tail.position, bytes_max + FRAME_BYTES_MAX)
        data = os.pread(tail.file.fd, window, tail.position)
        piece = Piece(tail, tail.position)
        for found in scan(data, 0, tail.name.seed, at=tail.position):
            if isinstance(found, Damage):
                if found.is_incomplete and not self._is_final(tail, found, len(data)):
                    break
                self._damaged(tail, found, data)
            else:
                self._take(tail, piece, found)
            piece.end = found.end
            bytes_max -= found.end - found.offset
            if len(piece.items) >= items_max or bytes_max <= 0:
                break
        if piece.end == tail.position:
            return None
        tail.position = piece.end
        return piece

    def _take(self, tail: _Tail, piece: Piece, frame: Frame) -> None:
        try:
            record = decode_record(frame.payload)
            if frame.kind == Kind.HEADER:
                tail.resource = dict(record)
                return
        except (RecordError, TypeError, ValueError):
            # Its checksum is right, so this is no flipped bit but a fault of its writer.
            self._on_damage(tail.name, frame.offset, frame.payload)
            return
        piece.items.append(Item(frame.kind, record, tail.resource, frame.payload))

    def _is_final(self, tail: _Tail, damage: Damage, read_bytes: int) -> bool:
        """Tell whether an incomplete frame will never be completed: nobody can be writing it."""
        if tail.position + read_bytes < tail.size:
            return False  # the window ended, not the file
        if tail.name.is_sealed:
            return True
        if not tail.file.lock():
            return False
        try:
            return tail.file.size() == damage.end
        finally:
            tail.file.unlock()

    def _damaged(self, tail: _Tail, damage: Damage, data: bytes) -> None:
        start = damage.offset - tail.position
        self._on_damage(tail.name, damage.offset, data[start : start + damage.end - damage.offset])

    def _resource_before(self, tail: _Tail) -> dict[str, Any]:
        """Find the header frame that governs a position, after a restart of the flusher."""
        resource: dict[str, Any] = {}
        position = HEAD_BYTES
        while position < tail.position:
            data = os.pread(tail.file.fd, min(4 << 20, tail.position - position), position)
            if not data:
                break
            end = position
            for found in scan(data, 0, tail.name.seed, at=position):
                end = found.end
                if isinstance(found, Damage):
                    end = found.offset if found.is_incomplete else found.end
                elif found.kind == Kind.HEADER:
                    with contextlib.suppress(RecordError, TypeError, ValueError):
                        resource = dict(decode_record(found.payload))
            if end == position:
                break  # no whole frame in a window of several: damage up to the position
            position = end
        return resource

    def _finish_sealed(self, tail: _Tail) -> None:
        tail.size = tail.file.size()
        if tail.is_done:
            self._delete(tail)

    def _finish_ownerless(self, tail: _Tail, monotonic_ns: int, leaving: bool) -> None:
        """Delete an ownerless segment that is done. Under its lock: the size is final."""
        idle = leaving or monotonic_ns - tail.idle_since_ns >= DELETE_AFTER_NS
        tail.size = tail.file.size()
        if tail.is_done and idle and tail.file.is_intact():
            self._delete(tail)

    def _delete(self, tail: _Tail) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(tail.name.file_name(), dir_fd=self._spool.fd)
        self._tails.pop(tail.name.id, None)
        tail.file.close()


def count_records(file: File, name: SegmentName, start: int, end: int) -> int:
    """Count the records between two offsets of a segment; header frames are not counted.

    Raises:
        OSError: The file cannot be read.
    """
    count, position = 0, start
    while position < end:
        data = os.pread(file.fd, min(4 << 20, end - position), position)
        whole = position
        for found in scan(data, 0, name.seed, at=position):
            if isinstance(found, Frame):
                count += found.kind != Kind.HEADER
                whole = found.end
            elif not found.is_incomplete:
                whole = found.end
        if whole == position:
            break
        position = whole
    return count
