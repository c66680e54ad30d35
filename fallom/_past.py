"""What the snapshot said at a time in the past, for explaining; nothing here is held or recorded."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from fallom._core.assignment import Assignment, CompiledConfig, bucket_of, explain
from fallom._snapshot.entries import Kind

if TYPE_CHECKING:
    from fallom._snapshot.history import History

__all__ = ["Past", "past_assignment", "unix_ns_of"]


class Past(NamedTuple):
    """Which variant a session had at a time, and why."""

    assigned: Assignment | None  # None: the config was not known then
    reason: str  # "individual_target", "rule:0", "weight", or "fallback: ..."
    bucket: int
    version: int | None
    generation: int  # that was in force then; 0 where none of that time is kept
    published_unix_ns: int
    kept_since_unix_ns: int  # of the oldest that is kept; 0 if nothing was ever published


def past_assignment(
    history: History,
    config_key: str,
    session_id: str,
    unix_ns: int | None,
    version: int | None = None,
    customer_id: str | None = None,
    context: Mapping[str, Any] | None = None,
) -> Past:
    """Explain an assignment as of a time; None is now.

    Raises:
        DatabaseError: The snapshot cannot be read.
    """
    bucket = bucket_of(session_id)
    since = history.manifests[-1].published_unix_ns if history.manifests else 0
    manifest = history.at(unix_ns)
    if manifest is None:
        reason = "fallback: not_kept" if since else "fallback: no_snapshot"
        return Past(None, reason, bucket, None, 0, 0, since)
    config = history.entry(manifest, Kind.CONFIG, config_key, version)
    known = history.entry(manifest, Kind.CONFIG, config_key)
    at = manifest.generation, manifest.published_unix_ns, since
    if not isinstance(config, CompiledConfig):
        reason = "fallback: version_not_found" if known else "fallback: config_not_found"
        return Past(None, reason, bucket, None, *at)
    assigned = explain(config, session_id, customer_id, context)
    return Past(assigned, assigned.reason, bucket, config.version, *at)


def unix_ns_of(at: datetime | float) -> int:
    """Give a time in unix nanoseconds; a ``datetime`` without a zone is local.

    Raises:
        TypeError: It is neither a ``datetime`` nor a number.
        ValueError: It is no time that can be counted to: NaN, say.
    """
    if not isinstance(at, (datetime, int, float)) or isinstance(at, bool):
        raise TypeError(f"at must be a datetime or unix seconds, not {type(at).__name__}")
    try:
        return int((at.timestamp() if isinstance(at, datetime) else at) * 1e9)
    except (ValueError, OverflowError):  # also of a ``datetime`` of the year 1, by its zone
        raise ValueError(f"at is {at!r:.50}; expected a datetime or unix seconds") from None
