"""The reader: the segments of one destination as the flusher sees them.

Live segments are tailed. A batch is made of pieces, one a segment, and ``accept`` writes down how far a
piece's segment went, in its own head.

Used by one thread. What a disk may do is not hidden here: an ``OSError`` of one segment costs that
segment's turn, and is told to ``on_error``.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from itertools import chain, zip_longest

from fallom._host.files import File, UnsafeFileError
from fallom._spool.evidence import is_running, write_evidence
from fallom._spool.segment import Destination, SegmentName, seal, segment_names
from fallom._spool.tail import Item, LaterFormatError, OnDamage, Piece, Start, Tail, tails_allowed

__all__ = ["Item", "Piece", "Sharing", "SpoolReader"]

DELETE_AFTER_NS = 5_000_000_000  # an ownerless segment waits that long for the next short process

_logger = logging.getLogger("fallom")


@dataclass(frozen=True, slots=True)
class Sharing:
    """How several readers of one flusher read the same segments, each for a target of its own.

    Of those, one keeps the segments: it writes the evidence that dead writers owe, and deletes what every
    target has. Two threads that took the same free slot of a head would lose one target's offset.
    """

    is_keeper: bool = True
    others: Collection[bytes] = ()  # hashes of the targets that a keeper waits for
    heads: threading.Lock = field(default_factory=threading.Lock)


class SpoolReader:
    """Reads the segments of one destination for one target."""

    def __init__(
        self,
        spool: File,
        destination: Destination,
        target: bytes,
        on_damage: OnDamage,
        on_error: Callable[[str], None],
        tails_max: int | None = None,
        sharing: Sharing | None = None,
    ) -> None:
        """Open nothing yet.

        Args:
            spool: The spool directory.
            destination: Whose segments.
            target: ``target_hash`` of where they go.
            on_damage: Told of bytes that are no frame: segment, offset, bytes.
            on_error: Told, in a sentence, of a segment that cannot be used now.
            tails_max: How many segments may be open at once; None for ``tails_allowed``.
            sharing: With which other readers; None for none.
        """
        self._spool = spool
        self._destination = destination
        self._target = target
        self._on_damage = on_damage
        self._on_error = on_error
        self._tails_max = tails_allowed() if tails_max is None else tails_max
        self._sharing = sharing or Sharing()
        self._tails: dict[bytes, Tail] = {}
        self._rested: dict[bytes, tuple[int, Tail]] = {}  # closed to make room, and in which turn
        self._left_alone: set[bytes] = set()
        self._turn = 0
        self._turn_over = 0
        self._has_unopened = False  # for which there never was room
        self._died = 0  # calls whose evidence was written, and not logged yet

    def refresh(self, monotonic_ns: int) -> None:
        """Look which segments there are and how long they have become."""
        named = {
            name.id: name
            for name in segment_names(self._spool)
            if name.destination == self._destination and name.id not in self._left_alone
        }
        for segment_id in [known for known in self._tails if known not in named]:
            self._tails.pop(segment_id).file.close()
        for segment_id in [known for known in self._rested if known not in named]:
            del self._rested[segment_id]
        for name in self._waiting(named.values()):
            self._open(name)
        for segment_id, tail in self._tails.items():
            tail.name = named[segment_id]
            tail.look(monotonic_ns)
            if not self._sharing.is_keeper and not tail.is_done:
                with contextlib.suppress(OSError):
                    tail.catch_up(self._target)

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
                piece = tail.read(items_max, bytes_max)
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
            tail.rewind()

    def accept(self, pieces: Iterable[Piece]) -> None:
        """Write down that the target has these.

        Raises:
            OSError: An offset could not be written; it is tried again at ``tidy``, and a flusher that comes
                before that sends those records again.
        """
        failed: OSError | None = None
        for piece in pieces:
            self._tell_of_the_dead(piece.tail)
            try:
                with self._sharing.heads:
                    piece.tail.accept(piece.end, self._target)
            except OSError as error:
                failed = error
        if failed is not None:
            raise failed

    def is_wanted(self, piece: Piece) -> bool:
        """Tell whether a piece that was read is still to be sent: not deleted, nor given up, meanwhile."""
        tail = piece.tail
        if not self._sharing.is_keeper:
            with contextlib.suppress(OSError):
                tail.catch_up(self._target)
                if tail.accepted >= piece.end:
                    return False
        return tail.file.is_intact()

    def tidy(self, monotonic_ns: int, leaving: bool = False) -> int:
        """Delete what every target accepted to its end and has no writer, and write what is owed.

        Args:
            monotonic_ns: Now.
            leaving: Also those that became idle only just now.

        Returns:
            How many writers live; 0 of a reader that does not keep the segments.
        """
        self._write_down()
        if not self._sharing.is_keeper:
            return 0
        writers = 0
        for tail in list(self._tails.values()):
            try:
                self._write_owed(tail)
                if tail.name.is_sealed:
                    self._finish_sealed(tail, monotonic_ns)
                elif not tail.file.lock():
                    writers += 1
                else:
                    try:
                        self._bury(tail)
                        self._finish_ownerless(tail, monotonic_ns, leaving)
                    finally:
                        if tail.file.fd >= 0:
                            tail.file.unlock()  # ours: taken a moment ago
            except OSError as error:
                self._on_error(f"segment {tail.name.file_name()} cannot be deleted now: {error}")
        self._log_died()
        return writers

    def is_drained(self) -> bool:
        """Tell whether all that was there at the last ``refresh`` is accepted."""
        closed = (tail for _, tail in self._rested.values())
        return not self._has_unopened and all(
            map(self._is_drained, chain(self._tails.values(), closed))
        )

    def _is_drained(self, tail: Tail) -> bool:
        return tail.is_done and not (self._sharing.is_keeper and self._owes_evidence(tail))

    @staticmethod
    def _owes_evidence(tail: Tail) -> bool:
        owed = list(tail.starts_of_the_dead.values())
        if not tail.name.is_sealed:
            if tail.file.fd >= 0:  # else it is as it was known when it was closed
                tail.learn()
            owed += tail.starts.values()
        return any(not is_running(start) for start in owed)

    def close(self) -> None:
        """Close all segments."""
        for tail in self._tails.values():
            tail.file.close()
        self._tails.clear()

    def _waiting(self, named: Iterable[SegmentName]) -> list[SegmentName]:
        """Give the segments to open now, as many as there is room for.

        Live ones first that nobody read yet: what is new matters most. Where there are more segments than
        may be open, those that are done make room for the others, and take turns with them.
        """
        waiting = [name for name in named if name.id not in self._tails]
        lacking = len(self._tails) + len(waiting) - self._tails_max
        if lacking > 0:
            self._turn_over += 1
            lacking -= self._rest([tail for tail in self._tails.values() if tail.is_done], lacking)
            live = sum(not name.is_sealed for name in waiting)
            backlog = [tail for tail in self._tails.values() if tail.name.is_sealed]
            # Not below a half: what is closed before it was read would be opened and closed for ever.
            self._rest(backlog, min(lacking, live, len(backlog) - self._tails_max // 2))
        room = max(0, self._tails_max - len(self._tails))
        if room < len(waiting):
            waiting = self._in_turn(waiting)
        self._has_unopened = any(name.id not in self._rested for name in waiting[room:])
        return waiting[:room]

    def _in_turn(self, waiting: list[SegmentName]) -> list[SegmentName]:
        """Order them so that neither those with a writer wait for the sealed ones, nor these for those."""
        waiting = sorted(waiting, key=lambda name: self._rested.get(name.id, (0,))[0])
        new = [name for name in waiting if not (name.is_sealed or name.id in self._rested)]
        live = [name for name in waiting if not name.is_sealed and name.id in self._rested]
        sealed = [name for name in waiting if name.is_sealed]
        turns = (live, sealed) if self._turn_over % 2 else (sealed, live)
        return new + [name for pair in zip_longest(*turns) for name in pair if name is not None]

    def _rest(self, tails: list[Tail], count: int) -> int:
        """Close some of these tails until it is their turn again; give how many."""
        # What could not be written down is known to the open tail alone; reopened, it is sent again.
        tails = [tail for tail in tails if tail.is_as_written and tail.position == tail.accepted]
        tails.sort(key=lambda tail: tail.idle_since_ns)
        for tail in tails[: max(0, count)]:
            self._rested[tail.name.id] = self._turn_over, tail
            self._tails.pop(tail.name.id).rest()
        return min(len(tails), max(0, count))

    def _open(self, name: SegmentName) -> None:
        try:
            tail = Tail(self._spool, name, self._target, self._on_damage)
        except FileNotFoundError:
            return  # sealed or deleted since it was listed
        except (UnsafeFileError, LaterFormatError) as error:
            self._left_alone.add(name.id)
            self._on_error(f"{error}; it is left alone")
            return
        except OSError as error:
            self._on_error(f"segment {name.file_name()} cannot be opened now: {error}")
            return
        self._tails[name.id] = tail
        if name.id in self._rested:
            tail.resume(self._rested.pop(name.id)[1])

    def _tell_of_the_dead(self, tail: Tail) -> None:
        """Write what is owed before it is accepted that there was another writer: nobody learns it then."""
        if self._sharing.is_keeper:
            try:
                self._write_owed(tail)
            except OSError as error:  # tried again at the next ``tidy``
                self._on_error(f"crash evidence cannot be written now: {error}")

    def _write_owed(self, tail: Tail) -> None:
        """Write the spans that writers before the last one owe; what the disk refuses they owe still."""
        if tail.starts_of_the_dead:
            self._write_evidence(tail, list(tail.starts_of_the_dead.values()))

    def _bury(self, tail: Tail) -> None:
        """Write the spans that the writer of an ownerless segment owes, once it is read to its end.

        Under its lock. It is sealed then, so that no other flusher, and nobody who opens it again, finds
        those calls in flight.
        """
        tail.learn()
        if tail.starts and tail.position >= tail.file.size():
            has_told = self._write_evidence(tail, list(tail.starts.values()))
            if has_told and tail.file.is_intact():
                seal(self._spool, tail.name)
                tail.name = tail.name._replace(is_sealed=True)

    def _write_evidence(self, tail: Tail, starts: list[Start]) -> bool:
        """Write the spans of those calls whose process is gone; tell whether there were any."""
        died = [
            start for start in starts if not (is_running(start) or tail.is_erased(start.offset))
        ]
        told = write_evidence(self._spool, died, tail.written_ns) if died else 0
        tail.settle(starts)
        self._died += told
        return told > 0

    def _log_died(self) -> None:
        """Log it, and no more: that is no error of delivery, and each of those calls is a span."""
        if self._died:
            one = "1 call was in flight when its process died"
            several = f"{self._died} calls were in flight when their process died"
            _logger.warning("%s", one if self._died == 1 else several)
            self._died = 0

    def _write_down(self) -> None:
        """Try again what could not be written: others wait for it, and a later flusher sends it again."""
        for tail in self._tails.values():
            if not tail.is_as_written:
                with contextlib.suppress(OSError), self._sharing.heads:
                    tail.write_down(self._target)

    def _is_done_by_all(self, tail: Tail) -> bool:
        return tail.is_done and all(tail.is_accepted_by(each) for each in self._sharing.others)

    def _finish_sealed(self, tail: Tail, monotonic_ns: int) -> None:
        tail.look(monotonic_ns)
        if self._is_done_by_all(tail):
            self._delete(tail)

    def _finish_ownerless(self, tail: Tail, monotonic_ns: int, leaving: bool) -> None:
        """Delete an ownerless segment that is done. Under its lock: the size is final."""
        tail.look(monotonic_ns)
        idle = leaving or monotonic_ns - tail.idle_since_ns >= DELETE_AFTER_NS
        if idle and self._is_done_by_all(tail) and tail.file.is_intact():
            self._delete(tail)

    def _delete(self, tail: Tail) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(tail.name.file_name(), dir_fd=self._spool.fd)
        self._tails.pop(tail.name.id, None)
        tail.file.close()
