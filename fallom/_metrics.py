"""The record of one ``trace.span`` call, packed; the part that the context's session gives, only once.

A session has five attributes and more, and what it gives to each of its records is the same: making and
packing it takes 1.5 us of a call, to find it packed 0.3.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

from fallom._assignments import Assignments, Made
from fallom._core.recent import RecentValues
from fallom._core.span import AttributeValue, Metrics, SessionContext
from fallom._packing import Packing
from fallom._session_attributes import session_attributes
from fallom._spool.frame import RECORD_BYTES_MAX

__all__ = ["MetricsPacking"]

SESSIONS_MAX = 256  # of which the packed part is kept; a process serves few at a time
FIELDS_BYTES_MAX = 4 << 10  # of that part: metadata of megabytes is not kept 256 times

# A msgpack array of seven, and of it the two ids and the time.
_IDS_AND_TIME = struct.Struct(">3s16s2s8ssQ")
_NONE: Mapping[str, AttributeValue] = {}
_HEAD, _BIN8, _UINT64 = b"\x97\xc4\x10", b"\xc4\x08", b"\xcf"


class _Kept(NamedTuple):
    """What a session gives to its records, and of what that was made."""

    session: SessionContext  # this very object; as long as it is kept, no other has its id
    made: Made | None
    metadata: bytes  # packed: the mapping is the application's, which may change it
    fields: bytes  # key, id and attributes


class MetricsPacking:
    """Packs the metrics of one process; for any thread."""

    __slots__ = ("_assignments", "_kept", "_packing")

    def __init__(self, packing: Packing, assignments: Assignments) -> None:
        """Start with no session."""
        self._packing = packing
        self._assignments = assignments
        self._kept: RecentValues[int, _Kept] = RecentValues(SESSIONS_MAX)

    def packed(
        self,
        trace_id: bytes,
        span_id: bytes,
        unix_ns: int,
        config_key: str,
        session_id: str,
        session: SessionContext | None,
        data: Mapping[str, Any],
    ) -> bytes:
        """Pack a metrics record, in at most ``RECORD_BYTES_MAX``.

        Args:
            trace_id: 16 bytes.
            span_id: 8 bytes.
            unix_ns: When it was.
            config_key: Of the session.
            session_id: The session's.
            session: The context's, if it is that one; its attributes are in the record.
            data: The numbers.

        Raises:
            RecordError: It cannot be packed.
        """
        if session is None:
            made = self._assignments.find((config_key, session_id))
            attributes = _NONE if made is None else made.attributes
        else:
            made = self._assignments.find((session.config_key, session_id))
            kept = self._kept.find(id(session)) or self._keep(session, made)
            if kept is not None and kept.made is not made:
                kept = self._keep(session, made)
            if kept is not None and config_key == session.config_key and self._is_unchanged(kept):
                packed_data = self._packing.try_packed(data)
                if packed_data is not None:
                    head = _IDS_AND_TIME.pack(_HEAD, trace_id, _BIN8, span_id, _UINT64, unix_ns)
                    payload = head + kept.fields + packed_data
                    if len(payload) <= RECORD_BYTES_MAX:
                        return payload
            attributes = _attributes(session, made)
        record = trace_id, span_id, unix_ns, config_key, session_id, attributes, data
        return self._packing.packed(record, Metrics)

    def _is_unchanged(self, kept: _Kept) -> bool:
        metadata = kept.session.metadata
        return not metadata or self._packing.try_packed(metadata) == kept.metadata

    def _keep(self, session: SessionContext, made: Made | None) -> _Kept | None:
        """Pack what a session gives and keep it; None where that may change unseen, or is odd."""
        config_key, session_id, customer_id, metadata, tags = session
        if not all(
            type(text) is str for text in (config_key, session_id, customer_id or "", *tags)
        ):
            return None
        packed_metadata = self._packing.try_packed(metadata)
        parts = [config_key, session_id, _attributes(session, made)]
        packed_parts = [self._packing.try_packed(part) for part in parts]
        if packed_metadata is None or None in packed_parts:
            return None
        kept = _Kept(session, made, packed_metadata, b"".join(filter(None, packed_parts)))
        if len(kept.fields) <= FIELDS_BYTES_MAX:
            self._kept.remember(id(session), kept)
        return kept


def _attributes(session: SessionContext, made: Made | None) -> dict[str, AttributeValue]:
    attributes = session_attributes(session)
    if made is not None:
        attributes.update(made.attributes)
    return attributes
