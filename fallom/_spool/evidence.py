"""Crash evidence: the spans of calls whose process died in the middle of them, written in its stead.

A call in flight leaves a start record in its writer's segment; the call's span is its tombstone. When
the writer is gone (its lock is free, or another has taken its segment over), what it left open becomes
spans with ``error.type=process_died``: in a segment of their own, begun and sealed at once, so that they
are delivered like any others. Then the segment is sealed that they were owed from, or what tells of a
take-over in it is accepted, so that nobody does it again. The ids are those of the start: should it be done
twice, by the death of a flusher between the two, the spans are recognisable.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from itertools import groupby

from fallom._core.span import Span, SpanStatus, span_of
from fallom._host.files import File
from fallom._spool.frame import Kind, encode_frame, pack
from fallom._spool.segment import Destination, create_segment, seal
from fallom._spool.tail import Start

__all__ = ["PROCESS_DIED", "is_running", "write_evidence"]

PROCESS_DIED = "process_died"


def is_running(start: Start) -> bool:
    """Tell whether the process of a start may still run, although its lock is free.

    A host that closes our descriptors frees the lock while it lives. Of a process in another container
    this cannot be known; if one here has its number it counts as running, and nothing is told of it:
    a call must not be said to have died that did not.
    """
    pid = start.resource.get("process.pid")
    if not isinstance(pid, int) or pid <= 0:
        return True
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            state = stat.read().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    except (OSError, IndexError):
        return True
    return state not in ("Z", "X")  # dead, and not yet collected by its parent


def write_evidence(spool: File, starts: Iterable[Start], died_unix_ns: int) -> int:
    """Write the spans of calls that have no end.

    Args:
        spool: The spool directory.
        starts: Of processes that are gone.
        died_unix_ns: Wall clock of the last that was seen of them.

    Returns:
        How many spans were written; starts that are no records are left out.

    Raises:
        OSError: The disk refuses; nothing is left behind.
    """
    records: list[tuple[Kind, bytes]] = []
    for resource, group in groupby(starts, key=lambda start: start.resource):
        found = [_span(start, died_unix_ns) for start in group]
        spans = [(Kind.SPAN, pack(span)) for span in found if span is not None]
        if spans:
            records += [(Kind.HEADER, pack(resource)), *spans]
    if not records:
        return 0
    name, file = create_segment(spool, Destination.TRACES)
    try:
        for kind, payload in records:
            frame = encode_frame(kind, payload, name.seed)
            if os.write(file.fd, frame) != len(frame):
                raise OSError(28, "no space left for crash evidence")
        seal(spool, name)
    except OSError:  # or each time that it is tried again would leave a part of it to be delivered
        with contextlib.suppress(OSError):
            os.unlink(name.file_name(), dir_fd=spool.fd)
        raise
    finally:
        file.close()
    return sum(kind == Kind.SPAN for kind, _ in records)


def _span(start: Start, died_unix_ns: int) -> Span | None:
    try:
        span = span_of(start.record)
    except (ValueError, TypeError):
        return None
    return span._replace(
        end_unix_ns=max(span.start_unix_ns, died_unix_ns),
        status=SpanStatus.ERROR,
        attributes={**span.attributes, "error.type": PROCESS_DIED},
    )
