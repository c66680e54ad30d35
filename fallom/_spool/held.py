"""What is held for an extra target alone: segments that the main target has, and that one still lacks.

A target has a budget for it, in bytes and in time. What is beyond is given up for that target: counted, and
written down in the head as if it were accepted, so that whoever keeps the segments deletes them once all
the others have them as well. Of what the main target lacks, nothing is ever given up here.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Collection, Container, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from fallom._host.files import File, entries_of, open_file
from fallom._spool.segment import (
    HEAD_BYTES,
    Destination,
    SegmentName,
    parse_segment_name,
    read_accepted,
    write_accepted,
)
from fallom._spool.tail import count_records

__all__ = ["Held", "count_lacking"]


class _Segment(NamedTuple):
    changed_ns: int
    name: SegmentName
    allocated: int


@dataclass(frozen=True, slots=True)
class Held:
    """What is held for one extra target.

    Attributes:
        spool: The spool directory.
        main_of: ``target_hash`` of the main target, by destination.
        extra_of: The same of this target, for the destinations that it gets.
        extras: The hashes of all extra targets.
        heads: See ``Sharing``.
    """

    spool: File
    main_of: Mapping[Destination, bytes]
    extra_of: Mapping[Destination, bytes]
    extras: Collection[bytes]
    heads: threading.Lock

    def give_up_beyond(self, bytes_max: int, in_flight: Container[bytes]) -> int:
        """Give up the oldest, until what is held takes no more than that on the disk.

        Returns:
            How many records were given up.
        """
        held = self._segments()
        surplus = sum(each.allocated for each in held) - bytes_max
        lost = 0
        for each in held:
            if surplus <= 0:
                break
            found = None if each.name.id in in_flight else self._give_up(each.name)
            if found is not None:
                lost += found
                surplus -= each.allocated
        return lost

    def give_up_before(self, unix_ns: int, in_flight: Container[bytes]) -> int:
        """Give up what nobody has written to since then; give how many records that were."""
        return sum(
            self._give_up(each.name) or 0
            for each in self._segments()
            if each.changed_ns < unix_ns and each.name.id not in in_flight
        )

    def _segments(self) -> list[_Segment]:
        """Give what is held, the oldest first."""
        found = []
        with entries_of(self.spool) as entries:
            for entry in entries:
                name = parse_segment_name(entry.name)
                if name is None or name.destination not in self.extra_of:
                    continue
                with contextlib.suppress(OSError):  # deleted, or sealed, since it was listed
                    status = entry.stat(follow_symlinks=False)
                    if self._is_held(name):
                        found.append(_Segment(status.st_mtime_ns, name, status.st_blocks * 512))
        return sorted(found)

    def _is_held(self, name: SegmentName) -> bool:
        file = open_file(self.spool, name.file_name(), os.O_RDONLY)
        try:
            size = max(file.size(), HEAD_BYTES)
            main = read_accepted(file, name, self.main_of[name.destination])
            extra = read_accepted(file, name, self.extra_of[name.destination])
            return main >= size > extra
        finally:
            file.close()

    def _give_up(self, name: SegmentName) -> int | None:
        """Give up all of a segment; None if it has a writer, for whom it stays in any case."""
        try:
            file = open_file(self.spool, name.file_name(), os.O_RDWR)
        except OSError:
            return None
        try:
            if not name.is_sealed and not file.lock():
                return None
            size = file.size()
            # Under the lock, or sealed, it grows no more: what the main target had, it still has.
            if read_accepted(file, name, self.main_of[name.destination]) < size:
                return None
            extra = self.extra_of[name.destination]
            lost = count_records(file, name, read_accepted(file, name, extra), size)
            with self.heads:
                write_accepted(file, name, extra, size)
            # The lane that keeps the segments may be waiting for its own target just now.
            if name.is_sealed and all(
                read_accepted(file, name, each) >= size for each in self.extras
            ):
                os.unlink(name.file_name(), dir_fd=self.spool.fd)
        except OSError:
            return None
        else:
            return lost
        finally:
            file.close()


def count_lacking(file: File, name: SegmentName, extra_of: Mapping[Destination, bytes]) -> int:
    """Count the records of a segment that an extra target still lacks.

    Raises:
        OSError: It cannot be read.
    """
    if name.destination not in extra_of:
        return 0
    return count_records(
        file, name, read_accepted(file, name, extra_of[name.destination]), file.size()
    )
