"""What crosses from one process to another in headers: whose work it is, and in which trace.

Three headers. ``traceparent`` and ``tracestate`` are those of W3C Trace Context, which any tracing
library reads. ``fallom`` is the session, as one JSON object of ASCII characters:

    {"config_key": "my-agent", "session_id": "s-1", "customer_id": "c-1", "metadata": {}, "tags": []}

Only the first two fields must be there; unknown ones are ignored. A header that is not as it should be
counts as one that is not there: what comes from outside raises nothing, and what goes out is bounded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from fallom._core.limits import clean_value
from fallom._core.span import SessionContext

__all__ = [
    "SESSION_HEADER",
    "TRACEPARENT",
    "TRACESTATE",
    "Carried",
    "Parent",
    "decode_session",
    "encode_session",
    "find_header",
    "format_traceparent",
    "parse_traceparent",
    "parse_tracestate",
    "read_headers",
    "write_headers",
]

SESSION_HEADER = "fallom"
TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"

SAMPLED = 0x01
# The flags that version 00 knows: sampled, and (W3C Trace Context Level 2) a random trace id.
_FLAGS_KNOWN = 0x03

# Servers take 8 KiB for all headers of a request together, commonly; one of ours takes half at most.
SESSION_CHARACTERS_MAX = 4096
# "Vendors SHOULD propagate at least 512 characters" (W3C Trace Context, 3.3.1.5).
_TRACESTATE_CHARACTERS_MAX = 512
_HEADERS_MAX = 200  # of a mapping that are looked through for other spellings of a name

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_MEMBER = r"[a-z0-9][a-z0-9_\-*/@]{0,255}=[\x21-\x2b\x2d-\x3c\x3e-\x7e\x20]{0,256}"
_MEMBERS = re.compile(rf"{_MEMBER}(?:[ \t]*,[ \t]*{_MEMBER})*")


class Parent(NamedTuple):
    """A span somewhere, whose children spans here are."""

    trace_id: bytes  # 16 bytes
    span_id: bytes  # 8 bytes
    flags: int = SAMPLED
    trace_state: str = ""  # as it came


class Carried(NamedTuple):
    """What headers say: a session, a span that is active where they were written, or neither."""

    session: SessionContext | None = None
    parent: Parent | None = None


def format_traceparent(parent: Parent) -> str:
    """Give the header ``traceparent``, version 00."""
    flags = parent.flags & _FLAGS_KNOWN
    return f"00-{parent.trace_id.hex()}-{parent.span_id.hex()}-{flags:02x}"


def parse_traceparent(text: str) -> Parent | None:
    """Read the header ``traceparent``; None if it is none.

    Of a later version the fields of version 00 are read, as the specification asks.
    """
    match = (
        _TRACEPARENT.fullmatch(text.strip(" \t")) if len(text) <= SESSION_CHARACTERS_MAX else None
    )
    if match is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    if (
        version == "ff"
        or (version == "00" and rest)
        or not int(trace_id, 16)
        or not int(span_id, 16)
    ):
        return None
    return Parent(bytes.fromhex(trace_id), bytes.fromhex(span_id), int(flags, 16) & _FLAGS_KNOWN)


def parse_tracestate(text: str) -> str:
    """Give the header ``tracestate`` as it is; empty if it is too long, or no header at all."""
    text = text.strip(" \t")
    is_good = len(text) <= _TRACESTATE_CHARACTERS_MAX and _MEMBERS.fullmatch(text)
    return text if is_good else ""


def encode_session(session: SessionContext) -> str:
    """Give the header ``fallom``; empty for a session that has no bounded form.

    Where all of it is too long the metadata are left out, then the tags, then the customer.
    """
    fields: dict[str, Any] = {"config_key": session.config_key, "session_id": session.session_id}
    if session.customer_id:
        fields["customer_id"] = session.customer_id
    if session.tags:
        fields["tags"] = [clean_value(tag) for tag in session.tags]
    metadata = clean_value(session.metadata)  # never raises: of what is no mapping it gives text
    if isinstance(metadata, dict) and metadata:
        fields["metadata"] = metadata
    while True:
        text = json.dumps(fields, separators=(",", ":"), default=clean_value)
        if len(text) <= SESSION_CHARACTERS_MAX:
            return text
        if len(fields) == 2:
            return ""
        fields.popitem()  # in the order of their coming, the last first


def decode_session(text: str) -> SessionContext | None:
    """Read the header ``fallom``; None if it is none. Fields of another type than ours are left out."""
    if len(text) > SESSION_CHARACTERS_MAX:
        return None
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict):
        return None
    config_key, session_id = fields.get("config_key"), fields.get("session_id")
    if not (isinstance(config_key, str) and isinstance(session_id, str) and session_id):
        return None
    customer_id, metadata, tags = map(fields.get, ("customer_id", "metadata", "tags"))
    return SessionContext(
        config_key,
        session_id,
        customer_id if isinstance(customer_id, str) else None,
        metadata if isinstance(metadata, dict) and metadata else None,
        tuple(tag for tag in tags if isinstance(tag, str)) if isinstance(tags, list) else (),
    )


def write_headers(carried: Carried) -> dict[str, str]:
    """Give the headers that say this; ``read_headers`` reads them."""
    headers: dict[str, str] = {}
    if carried.parent is not None:
        headers[TRACEPARENT] = format_traceparent(carried.parent)
        if carried.parent.trace_state:
            headers[TRACESTATE] = carried.parent.trace_state
    session = encode_session(carried.session) if carried.session is not None else ""
    if session:
        headers[SESSION_HEADER] = session
    return headers


def read_headers(headers: Mapping[Any, Any]) -> Carried:
    """Give what headers say; names in any case, values of text or ASCII bytes."""
    parent = parse_traceparent(find_header(headers, TRACEPARENT))
    if parent is not None:
        parent = parent._replace(trace_state=parse_tracestate(find_header(headers, TRACESTATE)))
    return Carried(decode_session(find_header(headers, SESSION_HEADER)), parent)


def find_header(headers: Mapping[Any, Any], name: str) -> str:
    """Give a header's value, empty if it is not there or no text."""
    value = headers.get(name)
    if value is None:
        for number, other in enumerate(headers):
            if number >= _HEADERS_MAX:
                break
            if _text_of(other).lower() == name:
                value = headers.get(other)
                break
    return _text_of(value)


def _text_of(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("ascii", "replace")
    return value if isinstance(value, str) else ""
