"""The state of this host's fallom, as plain values: for people, ``fallom status``, and monitors."""

from __future__ import annotations

import os
import time
from typing import Any

from fallom._flusher.targets import target_hashes
from fallom._host.control import Drop
from fallom._host.place import Place
from fallom._host.versions import unpack_version
from fallom._runtime import Runtime
from fallom._spool.segment import segment_names
from fallom._spool.survey import marks_of
from fallom._version import __version__

__all__ = ["read_status"]


def read_status(runtime: Runtime) -> dict[str, Any]:
    """Give the state; see ``fallom.status`` for the fields."""
    place = runtime.place
    info = runtime.snapshot.info()
    dropped, sampled_out = _without_sampled(_dropped(place, runtime))
    return {
        "version": __version__,
        "pid": os.getpid(),
        "namespace": runtime.settings.namespace,
        "state_dir": place.directory.path if place is not None else None,
        "flusher": _flusher(place, runtime.settings.flusher),
        "snapshot": {"generation": info.generation, "age_s": info.age_s(time.time_ns())},
        "spool": _spool(place, runtime),
        "sent": place.page.tallies() if place is not None else {},
        "dropped": dropped,
        "sampled_out": sampled_out,
        "last_error": place.page.last_error() if place is not None else "",
    }


def _flusher(place: Place | None, mode: str) -> dict[str, Any]:
    if place is None:
        return {"mode": mode, "is_alive": False}
    page, now_ns = place.page, time.monotonic_ns()
    is_alive = page.is_alive(now_ns)
    paused_s = page.paused_until_s() - time.time()
    return {
        "mode": mode,
        "is_alive": is_alive,
        "pid": page.flusher_pid() if is_alive else None,
        "version": unpack_version(page.flusher_version()) if is_alive else None,
        "beat_age_s": max(0.0, (now_ns - page.heartbeat_ns()) / 1e9) if is_alive else None,
        "paused_s": paused_s if is_alive and paused_s > 0 else None,
    }


def _spool(place: Place | None, runtime: Runtime) -> dict[str, Any]:
    empty = {"segments": 0, "allocated_bytes": 0, "unaccepted_bytes": 0, "limit_bytes": 0}
    if place is None:
        return empty
    spool = place.directory.spool
    try:
        waiting = marks_of(spool, target_hashes(runtime.settings))
        return {
            "segments": len(segment_names(spool)),
            "allocated_bytes": place.page.spool_bytes(),
            "unaccepted_bytes": sum(mark.end - mark.start for mark in waiting),
            "limit_bytes": runtime.settings.spool_bytes_max,
        }
    except OSError:  # removed at this moment; the next look makes it anew
        return empty


def _dropped(place: Place | None, runtime: Runtime) -> dict[str, int]:
    """Give the drops by reason, those that this process has not passed on yet included."""
    drops = place.page.drops() if place is not None else {}
    for drop, count in runtime.drops.pending().items():
        drops[drop.name.lower()] = drops.get(drop.name.lower(), 0) + count
    return {reason: count for reason, count in drops.items() if count}


def _without_sampled(counts: dict[str, int]) -> tuple[dict[str, int], int]:
    """Take out what sampling left out, because it was asked to: that is no drop."""
    return counts, counts.pop(Drop.SAMPLED.name.lower(), 0)
