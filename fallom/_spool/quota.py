"""The quota: how much the spool may take, who looks, and what goes first.

The flusher counts allocated blocks each tick and deletes the oldest segments that are sealed or have
no writer; what it deletes is counted, record by record. Where that is not enough it raises the
pressure in the control page, and workers refuse what is new. With no live flusher a worker counts
when it opens a segment. Only ever whole segments go: a live file is never cut.
"""

from __future__ import annotations

import os
from collections.abc import Container, Mapping
from typing import NamedTuple

from fallom._host.files import File, entries_of, open_file
from fallom._spool.reader import count_records
from fallom._spool.segment import Destination, SegmentName, parse_segment_name, read_accepted

__all__ = ["Pressure", "drop_oldest", "pressure_of", "spool_bytes"]

RELIEF = 0.95  # deleting goes on to this share of the limit, so that it is not done at every tick
NEAR = 0.90


class Pressure:
    """What workers are asked to do; a byte in the control page."""

    FINE = 0
    SHED = 1  # bodies of messages first
    REFUSE = 2


class _Candidate(NamedTuple):
    changed_ns: int
    name: SegmentName
    allocated: int


def spool_bytes(spool: File) -> int:
    """Give the bytes that the spool has allocated on its disk."""
    total = 0
    with entries_of(spool) as entries:
        for entry in entries:
            try:
                total += entry.stat(follow_symlinks=False).st_blocks * 512
            except FileNotFoundError:
                continue  # deleted since it was listed
    return total


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
) -> tuple[int, int]:
    """Delete the oldest segments that nobody writes to until the spool is below its limit.

    Args:
        spool: The spool directory.
        used: Allocated bytes now.
        limit: ``Settings.spool_bytes_max``.
        target_of: ``target_hash`` by destination: what was accepted is not lost.
        in_flight: Ids of segments of which something is being sent: those are passed over.

    Returns:
        Allocated bytes afterwards, and how many records were given up.
    """
    lost = 0
    for candidate in sorted(_candidates(spool)):
        if used <= limit * RELIEF:
            break
        if candidate.name.id in in_flight:
            continue
        gone = _drop(spool, candidate.name, target_of[candidate.name.destination])
        if gone is not None:
            lost += gone
            used -= candidate.allocated
    return used, lost


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


def _drop(spool: File, name: SegmentName, target: bytes) -> int | None:
    """Delete one segment under its lock; None if it has an owner or cannot be deleted."""
    try:
        file = open_file(spool, name.file_name(), os.O_RDWR)
    except OSError:
        return None
    try:
        if not file.lock():
            return None
        lost = count_records(file, name, read_accepted(file, name, target), file.size())
        os.unlink(name.file_name(), dir_fd=spool.fd)
    except OSError:
        return None
    else:
        return lost
    finally:
        file.close()
