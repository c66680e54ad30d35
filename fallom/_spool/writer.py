"""The writer: one record, one frame, one ``write(2)``, and it is in the kernel.

Used by every thread of a worker. A process has at most one segment a destination; it takes over one
whose writer is gone before it makes a new one, so that short processes do not leave a file each.

Nothing here raises for what a disk may do: ``write`` answers with ``None`` or the reason of the drop.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from fallom._host.control import Drop
from fallom._host.files import File
from fallom._spool.frame import (
    FrameTooLargeError,
    Kind,
    RecordError,
    encode_frame,
    pack,
)
from fallom._spool.segment import (
    Destination,
    SegmentName,
    create_segment,
    seal,
    segment_names,
    try_take_over,
)

__all__ = ["SpoolWriter"]

RETRY_AFTER_NS = 1_000_000_000  # a disk that refused is asked again after a second
_TAKE_OVER_TRIES = 8  # of segments without an owner; more are the flusher's to empty


class _Open:
    """An open segment of this process."""

    __slots__ = ("checked_ns", "file", "lock", "name", "pid", "seed", "size")

    def __init__(self, name: SegmentName, file: File) -> None:
        self.name = name
        self.file = file
        self.seed = name.seed
        self.size = file.size()
        self.pid = os.getpid()
        self.checked_ns = 0


class SpoolWriter:
    """Writes the records of one process. A forked child makes itself a new one."""

    def __init__(
        self,
        spool: Callable[[], File | None],
        resource: Callable[[], Mapping[str, Any]],
        segment_bytes_max: int,
        fsync: str = "none",
        may_open: Callable[[], bool] = lambda: True,
    ) -> None:
        """Open nothing yet.

        Args:
            spool: Gives the spool directory, or None while there is none.
            resource: Gives the resource attributes for a header frame.
            segment_bytes_max: A segment that is longer is sealed.
            fsync: "none", or "always": every record is on the disk before the call returns.
            may_open: Asked before a segment is opened: is there room for it?
        """
        self._spool = spool
        self._resource = resource
        self._bytes_max = segment_bytes_max
        self._may_open = may_open
        self._syncs = fsync == "always"
        self._open: dict[Destination, _Open] = {}
        self._refused_ns: dict[Destination, int] = {}
        # Re-entrant: a signal handler may record while its thread is recording.
        self._lock = threading.RLock()
        self._pid = os.getpid()

    def write(self, destination: Destination, kind: Kind, record: Any, now_ns: int) -> Drop | None:
        """Put one record into the spool.

        Args:
            destination: Whose segment.
            kind: The frame's kind.
            record: What msgpack can say.
            now_ns: Monotonic time.

        Returns:
            None when the frame is in the kernel, else why it was given up.
        """
        try:
            payload = pack(record)
        except RecordError:
            return Drop.NOT_ENCODABLE
        return self.write_packed(destination, kind, payload, now_ns)

    def write_packed(
        self, destination: Destination, kind: Kind, payload: bytes, now_ns: int
    ) -> Drop | None:
        """Put one packed record into the spool; as ``write``."""
        with self._current_lock():
            refused_ns = self._refused_ns.get(destination)
            if refused_ns is not None and 0 <= now_ns - refused_ns < RETRY_AFTER_NS:
                return Drop.DISK
            try:
                segment = self._segment(destination, now_ns)
                if isinstance(segment, Drop):
                    return segment
                frame = encode_frame(kind, payload, segment.seed)
                return self._append(segment, frame, destination, now_ns)
            except FrameTooLargeError:
                return Drop.TOO_LARGE
            except OSError as error:
                self._refused_ns[destination] = now_ns
                return _reason(error)

    def hold(self, destination: Destination, now_ns: int) -> None:
        """Have a segment open, and so be a living writer, without recording anything."""
        with self._current_lock(), contextlib.suppress(OSError, RecordError):
            self._segment(destination, now_ns)

    def seal(self) -> None:
        """Seal and close the segments of this process, so that the flusher may delete them."""
        with self._current_lock():
            for destination in list(self._open):
                self._leave(destination, sealed=True)

    def forget(self) -> None:
        """Close inherited descriptors in a forked child; the locks stay the parent's."""
        self._lock = threading.RLock()  # another thread of the parent may have held it
        self._pid = os.getpid()
        self._refused_ns.clear()
        for segment in self._open.values():
            segment.file.close()
        self._open.clear()

    def abandon(self) -> None:
        """Close the segments without sealing them: their directory is not ours any more."""
        with self._current_lock():
            for destination in list(self._open):
                self._leave(destination, sealed=False)

    def _current_lock(self) -> AbstractContextManager[bool]:
        if os.getpid() != self._pid:  # a fork made in C ran no hook
            self.forget()
        return self._lock

    def _segment(self, destination: Destination, now_ns: int) -> _Open | Drop:
        """Give the open segment, making or renewing it as needed; or why there is none."""
        segment = self._open.get(destination)
        if segment is not None and not 0 <= now_ns - segment.checked_ns < RETRY_AFTER_NS:
            # Once a second: the host may have closed our number, or removed the directory.
            segment.checked_ns = now_ns
            if not segment.file.is_intact():
                self._leave(destination, sealed=False)
                segment = None
        if segment is not None and segment.size >= self._bytes_max:
            self._leave(destination, sealed=True)
            segment = None
        if segment is None:
            spool = self._spool()
            if spool is None:
                return Drop.NO_DIRECTORY
            if not self._may_open():
                return Drop.QUOTA
            segment = self._take_over(spool, destination) or _Open(
                *create_segment(spool, destination)
            )
            segment.checked_ns = now_ns
            self._open[destination] = segment
            header = encode_frame(Kind.HEADER, pack(dict(self._resource())), segment.seed)
            if self._append(segment, header, destination, now_ns) is not None:
                raise OSError(errno.ENOSPC, "no space left for the header of a segment")
        return segment

    def _take_over(self, spool: File, destination: Destination) -> _Open | None:
        live = [
            name
            for name in segment_names(spool)
            if name.destination == destination and not name.is_sealed
        ]
        random.shuffle(live)  # sixteen workers that start at once should not all try the same
        for name in live[:_TAKE_OVER_TRIES]:
            file = try_take_over(spool, name, self._bytes_max)
            if file is not None:
                return _Open(name, file)
        return None

    def _append(
        self, segment: _Open, frame: bytes, destination: Destination, now_ns: int
    ) -> Drop | None:
        written = os.write(segment.file.fd, frame)
        if written != len(frame):
            # Never truncated: a reader may have the bytes. What follows goes into another segment.
            self._leave(destination, sealed=True)
            self._refused_ns[destination] = now_ns
            return Drop.DISK
        if self._syncs:
            os.fdatasync(segment.file.fd)
        self._refused_ns.pop(destination, None)
        segment.size += written
        return None

    def _leave(self, destination: Destination, sealed: bool) -> None:
        segment = self._open.pop(destination, None)
        if segment is None:
            return
        spool = self._spool()
        if sealed and spool is not None:
            # Where that fails it stays live without an owner, which is as good: the lock goes below.
            with contextlib.suppress(OSError):
                seal(spool, segment.name)
        segment.file.close()


def _reason(error: OSError) -> Drop:
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return Drop.NO_DESCRIPTOR
    return Drop.DISK
