"""Following the spool as it grows: every record once, whoever writes it, beside the flusher.

Reads only. A segment that grows is kept open, so that what it held is read although the flusher deletes it
meanwhile; of those that nobody writes to, nothing is kept.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from fallom._host.files import File, open_file
from fallom._spool.frame import Damage, Frame, Kind, RecordError, decode_record
from fallom._spool.inspection import time_of
from fallom._spool.segment import HEAD_BYTES, Destination, SegmentName, segment_names
from fallom._spool.tail import frames_of

__all__ = ["Followed", "Follower"]

OPEN_MAX = 200  # a soft limit of 1,024 descriptors is common


class Followed(NamedTuple):
    """One record as it was found."""

    unix_ns: int
    kind: int
    record: Any
    resource: dict[str, Any]


class Follower:
    """Follows the segments of one spool; for one thread."""

    def __init__(self, spool: File) -> None:
        """Read nothing yet."""
        self._spool = spool
        self._positions: dict[bytes, int] = {}
        self._resources: dict[bytes, dict[str, Any]] = {}
        self._open: dict[bytes, File] = {}

    def last(self, count: int) -> list[Followed]:
        """Give the newest records that there are, and go on from the end of all of them.

        Raises:
            OSError: The directory cannot be read.
        """
        found: list[Followed] = []
        for changed_ns, name in sorted(self._changed(), reverse=True):
            full = len(found) >= count and found[0].unix_ns > changed_ns
            if count <= 0 or full:
                file = self._opened(name)
                if file is not None:  # nothing of it is among the newest
                    self._positions[name.id] = file.size()
                continue
            found = sorted([*found, *self._read(name)], key=lambda each: each.unix_ns)[-count:]
        return found

    def new(self) -> list[Followed]:
        """Give the records since the last look, in the order of their time.

        Raises:
            OSError: The directory cannot be read.
        """
        names = [n for n in segment_names(self._spool) if n.destination is not Destination.WISHES]
        found = [each for name in names for each in self._read(name)]
        gone = {*self._positions, *self._open} - {name.id for name in names}
        for segment_id in gone:  # deleted: all of it was accepted, but not all need be read
            file = self._open.get(segment_id)
            if file is not None:
                name = SegmentName(Destination.TRACES, segment_id, False)
                found += self._frames(name, file)
            self._forget(segment_id)
        return sorted(found, key=lambda each: each.unix_ns)

    def close(self) -> None:
        """Close what is open."""
        for segment_id in list(self._open):
            self._forget(segment_id)

    def _changed(self) -> Iterator[tuple[int, SegmentName]]:
        for name in segment_names(self._spool):
            if name.destination is not Destination.WISHES:
                file = self._opened(name)
                if file is not None:
                    yield os.fstat(file.fd).st_mtime_ns, name

    def _opened(self, name: SegmentName) -> File | None:
        file = self._open.get(name.id)
        if file is None:
            try:
                file = open_file(self._spool, name.file_name(), os.O_RDONLY)
            except OSError:
                return None  # sealed or deleted since it was listed
            if len(self._open) >= OPEN_MAX:
                self._forget(next(iter(self._open)), position=True)
            self._open[name.id] = file
        return file

    def _read(self, name: SegmentName) -> list[Followed]:
        file = self._opened(name)
        return [] if file is None else self._frames(name, file)

    def _frames(self, name: SegmentName, file: File) -> list[Followed]:
        position = self._positions.get(name.id, HEAD_BYTES)
        if name.id not in self._resources:
            position, after = HEAD_BYTES, position  # for the resource of whoever writes
        else:
            after = position
        found: list[Followed] = []
        for each in frames_of(file, name, position, file.size()):
            if isinstance(each, Damage):
                if each.is_incomplete:
                    break
            elif each.offset >= after or each.kind == Kind.HEADER:
                self._take(name, each, found)
            position = each.end
        self._positions[name.id] = max(position, after)
        return found

    def _take(self, name: SegmentName, frame: Frame, found: list[Followed]) -> None:
        try:
            record = decode_record(frame.payload)
        except RecordError:
            return
        if frame.kind == Kind.HEADER:
            self._resources[name.id] = record if isinstance(record, dict) else {}
        elif frame.kind in (Kind.SPAN, Kind.METRICS, Kind.EXPOSURE):
            resource = self._resources.get(name.id, {})
            found.append(Followed(time_of(frame), frame.kind, record, resource))

    def _forget(self, segment_id: bytes, position: bool = False) -> None:
        file = self._open.pop(segment_id, None)
        if file is not None:
            file.close()
        if not position:
            self._positions.pop(segment_id, None)
            self._resources.pop(segment_id, None)
