"""The quota: how much the spool may take, who looks, and what goes first.

Three limits: bytes (allocated blocks), files, and the age of what has no writer any more. The flusher
looks each second, near the limit at each tick. With ``drop_oldest`` it deletes the oldest segments that
are sealed or have no writer; what it deletes is counted, record by record. Where that is not enough, and
with ``drop_newest`` at once, it raises the pressure in the control page, and workers refuse what is new.
Between its looks, and where no flusher lives, workers look themselves (``room``). Only ever whole
segments go: a live file is never cut.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Mapping
from typing import NamedTuple, TypeAlias

from fallom._host.files import File, entries_of, open_file
from fallom._spool.segment import Destination, SegmentName, parse_segment_name, read_accepted

__all__ = [
    "NEAR",
    "RELIEF",
    "AgeLimit",
    "Pressure",
    "Usage",
    "drop_aged",
    "drop_oldest",
    "pressure_of",
    "segment_bytes_max",
    "usage_of",
]

RELIEF = 0.95  # deleting goes on to this share of the limit, so that it is not done at every tick
NEAR = 0.90
SEGMENTS_IN_QUOTA = 16  # at least: what is written to cannot be deleted, so it must be a small part
SEGMENT_BYTES_MIN = 4096
AGE_GRACE_NS = 600_000_000_000  # a host that just booted may have a wrong clock for some minutes


OnDrop: TypeAlias = Callable[[File, SegmentName], None]  # may raise an OSError: then it stays


class Pressure:
    """What workers are asked to do; a byte in the control page."""

    FINE = 0
    SHED = 1  # bodies of messages first
    REFUSE = 2


class Usage(NamedTuple):
    """What the spool takes on its disk."""

    bytes: int
    segments: int


class AgeLimit:
    """From when on records are too old, by a clock that jumps.

    Now is at most the wall clock of the start plus what has passed since by the clock that does not
    jump. Of a clock that was wrong at the start nothing is believed for ten minutes.
    """

    def __init__(self, age_max_s: float, started_unix_ns: int, started_ns: int) -> None:
        """Take the two clocks at the start: the wall's, and one that never jumps."""
        self._age_max_ns = int(age_max_s * 1e9)
        self._started_unix_ns = started_unix_ns
        self._started_ns = started_ns

    def before_unix_ns(self, unix_ns: int, now_ns: int) -> int | None:
        """Give the time before which records are too old; None while that cannot be known."""
        passed_ns = now_ns - self._started_ns
        if passed_ns < AGE_GRACE_NS:
            return None
        return min(unix_ns, self._started_unix_ns + passed_ns) - self._age_max_ns


class _Candidate(NamedTuple):
    changed_ns: int
    name: SegmentName
    allocated: int


def usage_of(spool: File) -> Usage:
    """Count what the spool has allocated on its disk.

    Raises:
        OSError: The directory cannot be read.
    """
    total = segments = 0
    with entries_of(spool) as entries:
        for entry in entries:
            try:
                total += entry.stat(follow_symlinks=False).st_blocks * 512
            except FileNotFoundError:
                continue  # deleted since it was listed
            segments += 1
    return Usage(total, segments)


def segment_bytes_max(wanted: int, bytes_max: int) -> int:
    """Give the size at which a segment is closed, so that the quota holds a number of them."""
    return max(SEGMENT_BYTES_MIN, min(wanted, bytes_max // SEGMENTS_IN_QUOTA))


def pressure_of(used: int, limit: int) -> int:
    """Give the pressure for a usage."""
    if used >= limit:
        return Pressure.REFUSE
    return Pressure.SHED if used >= limit * NEAR else Pressure.FINE


def drop_oldest(
    spool: File,
    used: int,
    limit: int,
    target_of: Mapping[Destination, bytes],
    in_flight: Container[bytes] = (),
    surplus: int = 0,
    on_drop: OnDrop | None = None,
) -> tuple[int, int]:
    """Delete the oldest segments that nobody writes to until the spool is below its limit.

    Args:
        spool: The spool directory.
        used: Allocated bytes now.
        limit: ``Settings.spool_bytes_max``.
        target_of: ``target_hash`` by destination: what was accepted is not lost.
        in_flight: Ids of segments of which something is being sent: those are passed over.
        surplus: How many segments have to go in any case, because there are too many.
        on_drop: Told of each, open, before it goes; nobody writes to it any more.

    Returns:
        Allocated bytes afterwards, and how many records were given up.
    """
    lost = 0
    for candidate in sorted(_candidates(spool)):
        if used <= limit * RELIEF and surplus <= 0:
            break
        if candidate.name.id in in_flight:
            continue
        gone = _drop(spool, candidate.name, target_of[candidate.name.destination], on_drop)
        if gone is not None:
            lost += gone
            surplus -= 1
            used -= candidate.allocated
    return used, lost


def drop_aged(
    spool: File,
    before_unix_ns: int,
    target_of: Mapping[Destination, bytes],
    in_flight: Container[bytes] = (),
    on_drop: OnDrop | None = None,
) -> int:
    """Delete what nobody has written to since ``before_unix_ns``; give how many records that were.

    What has a writer stays, however old it looks: a clock that jumps must not cost what is live.
    """
    lost = 0
    for candidate in sorted(_candidates(spool)):
        if candidate.changed_ns >= before_unix_ns:
            break
        if candidate.name.id not in in_flight:
            target = target_of[candidate.name.destination]
            lost += _drop(spool, candidate.name, target, on_drop) or 0
    return lost


def _candidates(spool: File) -> list[_Candidate]:
    found = []
    with entries_of(spool) as entries:
        for entry in entries:
            name = parse_segment_name(entry.name)
            if name is not None:
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                found.append(_Candidate(status.st_mtime_ns, name, status.st_blocks * 512))
    return found


def _drop(spool: File, name: SegmentName, target: bytes, on_drop: OnDrop | None) -> int | None:
    """Delete a sealed segment, or one without an owner under its lock; None if that cannot be.

    The lock of a sealed one says nothing: a child that was forked from its writer may hold it for days.
    """
    try:
        file = open_file(spool, name.file_name(), os.O_RDWR)
    except OSError:
        return None
    try:
        if not name.is_sealed and not file.lock():
            return None
        from fallom._spool.tail import count_records  # of the flusher; workers count no records

        lost = count_records(file, name, read_accepted(file, name, target), file.size())
        if on_drop is not None:
            on_drop(file, name)
        os.unlink(name.file_name(), dir_fd=spool.fd)
    except OSError:
        return None
    else:
        return lost
    finally:
        file.close()
