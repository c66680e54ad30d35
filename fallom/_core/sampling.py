"""Sampling that keeps whole sessions: a pure function of the session's id, the same in every process."""

from __future__ import annotations

from fallom._core.digest import blake2b
from fallom._core.span import Span

__all__ = ["is_kept", "is_sampled"]

# Salted: the bucket of an assignment hashes the same id, and a sample must not be all of one variant.
_PERSON = b"fallom.sampling"


def is_sampled(session_id: str, rate: float) -> bool:
    """Tell whether the spans of a session are kept.

    Args:
        session_id: The session's id.
        rate: The share of sessions to keep, 0 to 1. Who is kept at a rate is kept at any higher one.
    """
    if rate >= 1.0:
        return True
    raw = session_id.encode("utf-8", "surrogatepass")
    drawn = int.from_bytes(blake2b(raw, digest_size=8, person=_PERSON).digest(), "big")
    return drawn < rate * (1 << 64)


def is_kept(span: Span, rate: float) -> bool:
    """Tell whether a span is kept: with its session, or one without a session by its trace."""
    if rate >= 1.0:
        return True
    session_id = span.attributes.get("fallom.session_id", span.trace_id.hex())
    return is_sampled(str(session_id), rate)
