"""The writer: one record, one frame, one ``write(2)``, and it is in the kernel.

Used by every thread of a worker. A process has at most one segment a destination; it takes over one
whose writer is gone before it makes a new one, so that short processes do not leave a file each.

Nothing here raises for what a disk may do: a write answers with ``None`` or the reason of the drop.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from fallom._host.counts import Drop
from fallom._host.files import File
from fallom._host.forks import ProcessLock, new_mark
from fallom._spool.frame import (
    FrameTooLargeError,
    Kind,
    RecordError,
)
from fallom._spool.opening import OpenSegment, open_segment
from fallom._spool.segment import Destination, seal

__all__ = ["SpoolWriter"]

RETRY_AFTER_NS = 1_000_000_000  # a disk that refused is asked again after a second
STARTS_MAX = 256  # calls in flight that are repeated at rotation, in one write below 1 MiB
START_BYTES_MAX = 3 << 10  # a session with metadata of kilobytes has no word of its calls
_HERE = os.SEEK_CUR
# The host closed it, or has a socket by its number now, or limits its size: take another.
_ABOUT_THE_FILE = (errno.EBADF, errno.ESPIPE, errno.EFBIG)


class SpoolWriter:
    """Writes the records of one process. A forked child makes itself a new one."""

    def __init__(
        self,
        spool: Callable[[], File | None],
        resource: Callable[[], Mapping[str, Any]],
        segment_bytes_max: int,
        fsync: str = "none",
    ) -> None:
        """Open nothing yet.

        Args:
            spool: Gives the spool directory, or None while there is none.
            resource: Gives the resource attributes for a header frame.
            segment_bytes_max: A segment that is longer is sealed.
            fsync: "none", or "always": every record is on the disk before the call returns.
        """
        self._spool = spool
        self._resource = resource
        self._bytes_max = segment_bytes_max
        self._syncs = fsync == "always"
        self._plain_max = 0 if self._syncs else segment_bytes_max  # below it a write is all
        self._open: dict[Destination, OpenSegment] = {}
        self._refused: dict[Destination, tuple[int, Drop]] = {}  # when, and why
        # Re-entrant: a signal handler may record while its thread is recording.
        self._lock = threading.RLock()
        self._is_writing = False
        self._forked = ProcessLock(threading.RLock)
        self._mark = new_mark()
        self._starts: dict[bytes, bytes] = {}  # of calls in flight, by span id

    def write_packed(
        self, destination: Destination, kind: Kind, payload: bytes, now_ns: int
    ) -> Drop | None:
        """Put one record into the spool.

        Args:
            destination: Whose segment.
            kind: The frame's kind.
            payload: The record, as ``frame.pack`` gives it.
            now_ns: Monotonic time.

        Returns:
            None when the frame is in the kernel, else why it was given up.
        """
        if not self._mark[0]:  # a fork made in C ran no hook
            self.forget()
        segment = self._open.get(destination)
        if segment is None:
            return self._write_anywhere(destination, kind, payload, now_ns)
        try:
            frame = segment.encoder.frame(kind, payload)  # not under the lock
        except FrameTooLargeError:
            return Drop.TOO_LARGE
        with self._lock:
            # Nearly always: a segment that may grow, looked at within the last second, and nobody
            # interrupted. What is otherwise, or goes wrong, is for the long way; so is a segment that
            # was closed meanwhile, whose number then is none.
            size = segment.size
            if (
                segment.checked_ns <= now_ns < segment.checked_ns + RETRY_AFTER_NS
                and size < self._plain_max
                and not (self._is_writing or self._refused)
            ):
                self._is_writing = True
                fd = segment.file.fd
                try:
                    # ``File.is_at``, spelled out; see ``_is_good``.
                    written = os.write(fd, frame) if os.lseek(fd, 0, _HERE) == size else 0
                except OSError as error:
                    if error.errno not in _ABOUT_THE_FILE:
                        return self._refuse(destination, _reason(error), now_ns)
                    written = 0
                finally:
                    self._is_writing = False
                if written == len(frame):
                    segment.size += written  # a signal handler may have added to it
                    return None
                if written:
                    self._leave(destination, sealed=True)  # see ``_put``
                    return Drop.DISK
        return self._write_anywhere(destination, kind, payload, now_ns)

    def _refuse(self, destination: Destination, drop: Drop, now_ns: int) -> Drop:
        """Ask the disk no more for a second."""
        self._refused[destination] = now_ns, drop
        return drop

    def _write_anywhere(
        self, destination: Destination, kind: Kind, payload: bytes, now_ns: int
    ) -> Drop | None:
        """Put a record into the segment, opening or renewing it as needed."""
        with self._current_lock():
            refused = self._refused.get(destination)
            if refused is not None and 0 <= now_ns - refused[0] < RETRY_AFTER_NS:
                return refused[1]
            is_nested = self._is_writing
            try:
                self._is_writing = True
                drop = self._put(destination, kind, payload, now_ns, is_nested)
            except FrameTooLargeError:
                return Drop.TOO_LARGE
            except OSError as error:
                drop = _reason(error)
            finally:
                self._is_writing = is_nested
            if drop in (Drop.DISK, Drop.NO_DESCRIPTOR):
                self._refuse(destination, drop, now_ns)
            else:
                self._refused.pop(destination, None)
            return drop

    def start(self, span_id: bytes, payload: bytes, now_ns: int) -> None:
        """Leave word that a call began, in case that this process does not live to its end.

        It is repeated in each segment that is begun while the call is in flight. Where it cannot be
        written nothing is lost but the word.
        """
        if len(payload) > START_BYTES_MAX:
            return
        with self._current_lock():
            if len(self._starts) >= STARTS_MAX:
                return
            self.write_packed(Destination.TRACES, Kind.START, payload, now_ns)
            self._starts[span_id] = payload  # behind it: a segment that it begins has it once

    def end(self, span_id: bytes, is_recorded: bool) -> None:
        """Take it that the call ended; its span, where it was recorded, is the tombstone of its start.

        Where it was not, the segment is sealed, which takes no room on the disk: it was left by a
        living writer then, and of its calls nothing is said that the next segment does not repeat.
        """
        if self._starts.pop(span_id, None) is not None and not is_recorded:
            self.let_go(Destination.TRACES)

    def hold(self, destination: Destination, now_ns: int) -> None:
        """Have a segment open, and so be a living writer, without recording anything."""
        with self._current_lock(), contextlib.suppress(OSError, RecordError):
            self._segment(destination, now_ns, self._is_writing)

    def seal(self) -> None:
        """Seal and close the segments of this process, so that the flusher may delete them."""
        with self._current_lock():
            for destination in list(self._open):
                self._leave(destination, sealed=True)

    def let_go(self, destination: Destination) -> None:
        """Seal and close the segment of one destination, if there is one."""
        if destination in self._open:
            with self._current_lock():
                if not self._is_writing:  # else a signal handler interrupted a write
                    self._leave(destination, sealed=True)

    def forget(self) -> None:
        """Close inherited descriptors in a forked child; the locks stay the parent's.

        Of several threads of the child one does it and the others wait: it is done when the mark says so.
        """
        with self._forked.current():
            if self._mark[0]:
                return
            self._is_writing = False
            self._refused.clear()
            self._starts = {}  # those calls are the parent's
            for segment in self._open.values():
                segment.file.close()
            self._open.clear()
            self._lock = threading.RLock()  # another thread of the parent may have held it
            self._mark = new_mark()

    def abandon(self) -> None:
        """Close the segments without sealing them: their directory is not ours any more."""
        with self._current_lock():
            self._refused.clear()
            for destination in list(self._open):
                self._leave(destination, sealed=False)

    def _current_lock(self) -> AbstractContextManager[bool]:
        if not self._mark[0]:  # a fork made in C ran no hook
            self.forget()
        return self._lock

    def _put(
        self, destination: Destination, kind: Kind, payload: bytes, now_ns: int, is_nested: bool
    ) -> Drop | None:
        """Append to the open segment, and to another if it is the file that refuses.

        Args:
            destination: As ``write_packed``.
            kind: As ``write_packed``.
            payload: As ``write_packed``.
            now_ns: As ``write_packed``.
            is_nested: A signal handler records while its thread is recording: no segment may be closed
                under what it interrupted, not even a full one.
        """
        is_last = is_nested
        while True:
            segment = self._segment(destination, now_ns, is_nested)
            if isinstance(segment, Drop):
                return segment
            frame = segment.encoder.frame(kind, payload)
            try:
                written = os.write(segment.file.fd, frame)
            except OSError as error:
                if is_last or error.errno not in _ABOUT_THE_FILE:
                    raise
                self._leave(destination, sealed=error.errno == errno.EFBIG)
                is_last = True
            else:
                break
        if written != len(frame):
            # Never truncated: a reader may have the bytes. What follows goes into another segment.
            if not is_nested:
                self._leave(destination, sealed=True)
            return Drop.DISK
        if self._syncs:
            os.fdatasync(segment.file.fd)
        segment.size += written
        return None

    def _segment(
        self, destination: Destination, now_ns: int, is_nested: bool
    ) -> OpenSegment | Drop:
        """Give the open segment, making or renewing it as needed; or why there is none."""
        segment = self._open.get(destination)
        if segment is not None and is_nested:
            return segment
        if segment is not None and not self._is_good(segment, now_ns):
            self._leave(destination, sealed=False)
            segment = None
        if segment is not None and segment.size >= self._bytes_max:
            self._leave(destination, sealed=True)
            segment = None
        if segment is None:
            spool = self._spool()
            if spool is None:
                return Drop.NO_DIRECTORY
            starts = self._starts.values() if destination is Destination.TRACES else ()
            segment = open_segment(
                spool, destination, self._resource(), tuple(starts), self._bytes_max, self._syncs
            )
            segment.checked_ns = now_ns
            # A signal handler may have recorded, and so begun one, while this one was begun.
            known = self._open.setdefault(destination, segment)
            if known is not segment:
                segment.file.close()
            segment = known
        return segment

    def _is_good(self, segment: OpenSegment, now_ns: int) -> bool:
        """Tell whether a segment still is what its number leads to.

        A host that daemonises closes our number and may get it for a file of its own. The position
        (0.2 us) tells before each write: only we append to this file. Its identity, and whether the
        directory was removed, is looked at once a second.
        """
        if not segment.file.is_at(segment.size):
            return False
        if 0 <= now_ns - segment.checked_ns < RETRY_AFTER_NS:
            return True
        segment.checked_ns = now_ns
        return segment.file.is_intact()

    def _leave(self, destination: Destination, sealed: bool) -> None:
        segment = self._open.pop(destination, None)
        if segment is None:
            return
        spool = self._spool()
        # If the host closed our number, the lock is gone, and by now another may write there.
        if sealed and spool is not None and segment.file.is_intact():
            # Where that fails it stays live without an owner, which is as good: the lock goes below.
            with contextlib.suppress(OSError):
                seal(spool, segment.name)
        segment.file.close()


def _reason(error: OSError) -> Drop:
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return Drop.NO_DESCRIPTOR
    return Drop.DISK
