"""Looking into the spool, for people and monitors: what waits, since when, and whether it is whole.

Reads only, by descriptors of its own, beside whoever writes and ships. What changes meanwhile is seen
as it was, or as it is.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from fallom._host.files import File
from fallom._spool.frame import NOT_SENT, Damage, Frame, Kind, RecordError, decode_record
from fallom._spool.segment import (
    HEAD_BYTES,
    Destination,
    SegmentName,
    is_known_format,
    open_listed,
    segment_names,
)
from fallom._spool.survey import Mark, accepted_of
from fallom._spool.tail import frames_of

__all__ = [
    "SegmentState",
    "Waiting",
    "check_segment",
    "segments_of",
    "time_of",
    "waiting_of",
]

COUNTED_BYTES_MAX = 32 << 20  # 0.1 s; beyond it the number of records is estimated
LOOKED_AT_MAX = 1000  # segments whose first waiting record is looked at for its age
# Where in a record its time stands (``Span``, ``Metrics``, ``Exposure``).
_TIME_AT: Final[dict[int, int]] = {Kind.SPAN: 6, Kind.METRICS: 2, Kind.EXPOSURE: 4}


class Waiting(NamedTuple):
    """What the server has not accepted."""

    records: int  # counted, beyond 32 MiB estimated by the share that was
    bytes: int
    oldest_unix_ns: int  # when the oldest was recorded; 0 if nothing waits


class SegmentState(NamedTuple):
    """One segment, as ``fallom spool ls`` and ``verify`` show it."""

    name: SegmentName
    state: str  # "written" (it has a writer), "left" (its writer is gone), "sealed", "unreadable"
    bytes: int
    unaccepted_bytes: int
    records: int  # unaccepted ones; of ``check_segment``, all
    oldest_unix_ns: int
    damages: tuple[tuple[int, int], ...] = ()  # (offset, bytes) of what is no frame
    why: str = ""  # it is unreadable


def waiting_of(
    spool: File, marks: Iterable[Mark], target_of: Mapping[Destination, bytes] | None
) -> Waiting:
    """Count what stands between the marks, and find the oldest of it."""
    total = counted = records = looked = oldest = 0
    for mark in marks:
        size = mark.end - mark.start
        total += size
        may_count = counted < COUNTED_BYTES_MAX
        if not may_count and looked >= LOOKED_AT_MAX:
            continue
        looked += 1
        with contextlib.suppress(OSError), _opened(spool, mark.name) as file:
            counted += size if may_count else 0  # also what is accepted or gone by now
            if file is None:
                continue
            start = accepted_of(file, mark.name, target_of)
            times: list[int] = []
            for frame in frames_of(file, mark.name, start, mark.end):
                if isinstance(frame, Frame) and frame.kind not in NOT_SENT:
                    records += may_count
                    if not times:
                        times.append(time_of(frame))
                    if not may_count:
                        break
            found = [at for at in times if at]
            oldest = min([*found, oldest] if oldest else found, default=oldest)
    if counted and total > counted:
        records = round(records * total / counted)
    return Waiting(records, total, oldest)


def segments_of(
    spool: File, target_of: Mapping[Destination, bytes] | None
) -> Iterator[SegmentState]:
    """Give the segments and what of each waits; those of wishes, which go nowhere, are left out.

    Raises:
        OSError: The directory cannot be read.
    """
    for name in segment_names(spool):
        if name.destination is Destination.WISHES:
            continue
        try:
            with _opened(spool, name) as file:
                if file is not None:
                    yield _state(file, name, target_of)
        except OSError as error:
            yield _unreadable(name, str(error))


def check_segment(spool: File, name: SegmentName) -> SegmentState | None:
    """Read all of a segment, whatever was accepted; None if it is gone."""
    try:
        file = open_listed(spool, name, os.O_RDONLY)
    except OSError as error:
        return _unreadable(name, str(error))
    if file is None:
        return None
    try:
        if not is_known_format(file):
            return _unreadable(name, "it was written by a later version of fallom")
        size = file.size()
        records, damages = 0, []
        for found in frames_of(file, name, HEAD_BYTES, size):
            if isinstance(found, Damage):
                if not found.is_incomplete or name.is_sealed:
                    damages.append((found.offset, found.end - found.offset))
            else:
                records += found.kind not in NOT_SENT
        if size < HEAD_BYTES:
            damages.append((0, size))
        state = _state_word(file, name)
        return SegmentState(name, state, size, 0, records, 0, tuple(damages))
    except OSError as error:
        return _unreadable(name, str(error))
    finally:
        file.close()


def time_of(frame: Frame) -> int:
    """Give when a record was made (unix ns); 0 where it does not say."""
    try:
        found = decode_record(frame.payload)[_TIME_AT[frame.kind]]
    except (RecordError, LookupError, TypeError):
        return 0
    return found if isinstance(found, int) else 0


def _state(
    file: File, name: SegmentName, target_of: Mapping[Destination, bytes] | None
) -> SegmentState:
    size = max(file.size(), HEAD_BYTES)
    start = min(accepted_of(file, name, target_of), size)
    waiting = [
        frame
        for frame in frames_of(file, name, start, size)
        if isinstance(frame, Frame) and frame.kind not in NOT_SENT
    ]
    oldest = time_of(waiting[0]) if waiting else 0
    state = _state_word(file, name)
    return SegmentState(name, state, size, size - start, len(waiting), oldest)


def _state_word(file: File, name: SegmentName) -> str:
    if name.is_sealed:
        return "sealed"
    return "left" if file.lock() else "written"  # of its own descriptor: its close frees the lock


def _unreadable(name: SegmentName, why: str) -> SegmentState:
    return SegmentState(name, "unreadable", 0, 0, 0, 0, (), why)


@contextlib.contextmanager
def _opened(spool: File, name: SegmentName) -> Iterator[File | None]:
    """Open a segment; None when it is gone."""
    file = open_listed(spool, name)
    try:
        yield file
    finally:
        if file is not None:
            file.close()
