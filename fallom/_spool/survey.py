"""A survey of the spool: what is not accepted yet, and who still writes. Reads only; any process may.

For ``flush`` in a worker, for a flusher that wants to leave, and for people.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from fallom._host.files import File, UnsafeFileError
from fallom._spool.segment import (
    HEAD_BYTES,
    Destination,
    SegmentName,
    open_listed,
    read_accepted,
    read_furthest,
    segment_names,
)
from fallom._spool.tail import count_records

__all__ = ["Mark", "accepted_of", "count_left", "left_of", "marks_of", "writers_of"]


class Mark(NamedTuple):
    """What of a segment was not accepted when it was looked at."""

    name: SegmentName
    start: int
    end: int


def marks_of(spool: File, target_of: Mapping[Destination, bytes] | None) -> list[Mark]:
    """List the segments that hold something not accepted now, those of dead processes included.

    Wishes are left out: they go no further than the flusher; and so are destinations that ``target_of``
    has no target for. With None for the targets it counts as accepted what any but an extra target has:
    for whoever does not know the settings of the applications.

    Raises:
        OSError: The directory cannot be read.
    """
    marks = []
    for name in segment_names(spool):
        is_unknown = target_of is not None and name.destination not in target_of
        if name.destination is Destination.WISHES or is_unknown:
            continue
        size, accepted = _progress(spool, name, target_of)
        if accepted < size:
            marks.append(Mark(name, accepted, size))
    return marks


def left_of(
    spool: File, marks: Iterable[Mark], target_of: Mapping[Destination, bytes] | None
) -> list[Mark]:
    """Give the marks that are not reached yet; a segment that is gone was accepted or counted."""
    return [mark for mark in marks if _progress(spool, mark.name, target_of)[1] < mark.end]


def count_left(
    spool: File, marks: Iterable[Mark], target_of: Mapping[Destination, bytes] | None
) -> int:
    """Count the records before the marks that are not accepted; reads the segments."""
    total = 0
    for mark in marks:
        try:
            file = _open(spool, mark.name)
        except OSError:
            total += 1  # unreadable now, so not known to be delivered
            continue
        if file is not None:
            try:
                accepted = accepted_of(file, mark.name, target_of)
                total += count_records(file, mark.name, accepted, mark.end)
            except OSError:
                total += 1
            finally:
                file.close()
    return total


def writers_of(spool: File) -> int:
    """Count the live segments whose lock is held; by a writer, as far as anyone can tell."""
    writers = 0
    for name in segment_names(spool):
        try:
            file = None if name.is_sealed else _open(spool, name)
        except OSError:
            writers += 1  # not known to be gone
            continue
        if file is not None:
            try:
                writers += not file.lock()
            except OSError:
                writers += 1
            finally:
                file.close()  # of its own descriptor: frees the lock that it may have taken
    return writers


def accepted_of(
    file: File, name: SegmentName, target_of: Mapping[Destination, bytes] | None
) -> int:
    """Give up to where the target has a segment; with None for the targets, whichever has most."""
    if target_of is None:
        return read_furthest(file, name)
    return read_accepted(file, name, target_of[name.destination])


def _progress(
    spool: File, name: SegmentName, target_of: Mapping[Destination, bytes] | None
) -> tuple[int, int]:
    """Give (size, accepted offset); for a segment that is gone, an offset beyond any size."""
    try:
        file = _open(spool, name)
    except OSError:
        return 1, 0
    if file is None:
        return 0, 1 << 62
    try:
        size = max(file.size(), HEAD_BYTES)
        return size, accepted_of(file, name, target_of)
    except OSError:
        return 1, 0
    finally:
        file.close()


def _open(spool: File, name: SegmentName) -> File | None:
    """Open a segment; None when it is gone, or there is something in its place that is none.

    Raises:
        OSError: It may be there, and cannot be opened now.
    """
    with contextlib.suppress(UnsafeFileError):
        return open_listed(spool, name)
    return None
