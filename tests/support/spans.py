"""The spans in a state directory, read as the flusher reads them, in the order of their writing."""

from __future__ import annotations

from pathlib import Path

from fallom._core.span import Span, span_of
from fallom._spool.frame import Frame, Kind, decode_record, scan
from fallom._spool.segment import HEAD_BYTES, Destination, parse_segment_name


def recorded_spans(state_dir: Path) -> list[Span]:
    """Give all spans of all processes."""
    found: list[Span] = []
    for path in sorted(state_dir.rglob("spool/*"), key=lambda path: path.stat().st_ctime_ns):
        name = parse_segment_name(path.name)
        if name is None or name.destination is not Destination.TRACES:
            continue
        for frame in scan(path.read_bytes()[HEAD_BYTES:], 0, name.seed):
            assert isinstance(frame, Frame)
            if frame.kind == Kind.SPAN:
                found.append(span_of(decode_record(frame.payload)))
    return found
