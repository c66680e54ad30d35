"""Opening a segment to write to: one whose writer is gone is taken over before a new one is made.

Either way the writer's resource comes first, in a header frame, and with it the word of those calls that
are in flight, so that it is never missing where the evidence is looked for.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from typing import Any

from fallom._host.files import File
from fallom._spool.frame import FrameEncoder, Kind, pack
from fallom._spool.segment import (
    Destination,
    SegmentName,
    create_segment,
    segment_names,
    try_take_over,
)

__all__ = ["OpenSegment", "open_segment"]

_TAKE_OVER_TRIES = 8  # of segments without an owner; more are the flusher's to empty


class OpenSegment:
    """An open segment of this process."""

    __slots__ = ("checked_ns", "encoder", "file", "name", "size")

    def __init__(self, name: SegmentName, file: File) -> None:
        """Take an open, locked file over."""
        self.name = name
        self.file = file
        self.encoder = FrameEncoder(name.seed)
        self.size = file.size()
        self.checked_ns = 0


def open_segment(
    spool: File,
    destination: Destination,
    resource: Mapping[str, Any],
    starts: Sequence[bytes],
    bytes_max: int,
    syncs: bool,
) -> OpenSegment:
    """Take over or make a segment, with a header frame of ours before any record.

    Args:
        spool: The spool directory.
        destination: Whose segment.
        resource: For the header frame.
        starts: Packed start records to repeat.
        bytes_max: A segment that is longer is not taken over.
        syncs: Whether the name of a new file is to survive a power loss.

    Raises:
        OSError: The disk refuses; what was begun has no owner, and the next one takes it over.
    """
    packed = pack(dict(resource))
    segment = _take_over(spool, destination, bytes_max)
    if segment is None:
        segment = OpenSegment(*create_segment(spool, destination))
        if syncs:
            os.fsync(spool.fd)  # or the file's name may not survive what its content does
    frames = [segment.encoder.frame(Kind.HEADER, packed)]
    frames += [segment.encoder.frame(Kind.START, start) for start in starts]
    header = b"".join(frames)
    try:
        if os.write(segment.file.fd, header) != len(header):
            raise OSError(errno.ENOSPC, "no space left for the header of a segment")
    except OSError:
        segment.file.close()
        raise
    segment.size += len(header)
    return segment


def _take_over(spool: File, destination: Destination, bytes_max: int) -> OpenSegment | None:
    live = [
        name
        for name in segment_names(spool)
        if name.destination == destination and not name.is_sealed
    ]
    # At random: sixteen workers that start at once should not all try the same.
    live.sort(key=lambda _: os.urandom(4))
    for name in live[:_TAKE_OVER_TRIES]:
        file = try_take_over(spool, name, bytes_max)
        if file is not None:
            return OpenSegment(name, file)
    return None
