"""The state of this host's fallom, as plain values: for people, ``fallom status``, and monitors."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from typing import Any

from fallom._core.extra_targets import ExtraTarget
from fallom._core.settings import Settings
from fallom._flusher.targets import hashes_of, target_hashes
from fallom._host.counts import Drop
from fallom._host.files import entries_of
from fallom._host.place import Place
from fallom._host.target_board import TARGET_DROPS, TargetBoard, TargetCount
from fallom._host.versions import unpack_version
from fallom._runtime import Runtime
from fallom._snapshot.reader import SnapshotInfo
from fallom._spool.inspection import Waiting, waiting_of
from fallom._spool.segment import Destination, segment_names
from fallom._spool.survey import marks_of
from fallom._version import __version__

__all__ = ["drops_of", "flusher_of", "read_status", "status_of"]

# What the flusher gave up of what was in the spool; the other reasons kept a record out of it.
_LEFT_THE_SPOOL = ("oldest", "aged", "refused", "rejected", "exposures_off", "erased")
_ACCEPTED = ("spans_accepted", "metrics_accepted", "exposures_accepted", "exposures_repeated")


def read_status(runtime: Runtime) -> dict[str, Any]:
    """Give the state as this process knows it; see ``fallom.status`` for the fields."""
    settings = runtime.settings
    info, place = runtime.snapshot.info(), runtime.whereabouts.place
    return status_of(
        settings,
        settings.namespace,
        place,
        info,
        target_hashes(settings),
        runtime.drops.pending(),
    )


def status_of(
    settings: Settings,
    namespace: str,
    place: Place | None,
    info: SnapshotInfo,
    target_of: Mapping[Destination, bytes] | None,
    pending: Mapping[Drop, int],
) -> dict[str, Any]:
    """Give the state of a namespace.

    Args:
        settings: For what they limit.
        namespace: Whose state.
        place: Where it is; None for nowhere.
        info: Of its snapshot.
        target_of: See ``marks_of``.
        pending: Drops of this process that are not in the page yet.
    """
    unix_ns = time.time_ns()
    dropped, sampled_out = drops_of(place, pending)
    sent = place.page.tallies() if place is not None else {}
    spool = _spool(place, settings, target_of, unix_ns)
    gone = sum(dropped.get(reason, 0) for reason in _LEFT_THE_SPOOL)
    accepted = sum(sent.get(name, 0) for name in _ACCEPTED)
    return {
        "version": __version__,
        "pid": os.getpid(),
        "namespace": namespace,
        "state_dir": place.directory.path if place is not None else None,
        "flusher": flusher_of(place, settings.flusher),
        "snapshot": {
            "generation": info.generation,
            "age_s": info.age_s(unix_ns),
            "checked_age_s": _checked_age_s(place),
        },
        "spool": spool,
        "targets": _targets(place, settings, target_of, unix_ns),
        "dead": _dead(place),
        "recorded": accepted + gone + spool["waiting_records"],
        "sent": sent,
        "dropped": dropped,
        "sampled_out": sampled_out,
        "last_error": place.page.last_error() if place is not None else "",
    }


def flusher_of(place: Place | None, mode: str) -> dict[str, Any]:
    """Give the state of the flusher, as ``status_of`` has it."""
    if place is None:
        return {"mode": mode, "is_alive": False}
    page, now_ns = place.page, time.monotonic_ns()
    is_alive = page.is_alive(now_ns)
    paused_s = page.paused_until_s() - time.time()
    tallies = page.tallies()
    batches = tallies["batches_sent"]
    return {
        "mode": mode,
        "is_alive": is_alive,
        "pid": page.flusher_pid() if is_alive else None,
        "version": unpack_version(page.flusher_version()) if is_alive else None,
        "beat_age_s": max(0.0, (now_ns - page.heartbeat_ns()) / 1e9) if is_alive else None,
        "paused_s": paused_s if is_alive and paused_s > 0 else None,
        "batch_mean_s": tallies["delivery_ms"] / 1e3 / batches if batches else None,
    }


def _checked_age_s(place: Place | None) -> float | None:
    synced_s = place.page.synced_s() if place is not None else 0
    return max(0.0, time.time() - synced_s) if synced_s else None


def _spool(
    place: Place | None,
    settings: Settings,
    target_of: Mapping[Destination, bytes] | None,
    unix_ns: int,
) -> dict[str, Any]:
    empty = {
        "segments": 0,
        "allocated_bytes": 0,
        "unaccepted_bytes": 0,
        "waiting_records": 0,
        "oldest_age_s": None,
        "limit_bytes": 0,
    }
    if place is None:
        return empty
    spool = place.directory.spool
    try:
        waiting = waiting_of(spool, marks_of(spool, target_of), target_of)
        oldest_ns = waiting.oldest_unix_ns
        return {
            "segments": len(segment_names(spool)),
            "allocated_bytes": place.page.spool_bytes(),
            "unaccepted_bytes": waiting.bytes,
            "waiting_records": waiting.records,
            "oldest_age_s": max(0.0, (unix_ns - oldest_ns) / 1e9) if oldest_ns else None,
            "limit_bytes": place.directory.spool_bytes_max(settings.spool_bytes_total),
        }
    except OSError:  # removed at this moment; the next look makes it anew
        return empty


def _targets(
    place: Place | None,
    settings: Settings,
    target_of: Mapping[Destination, bytes] | None,
    unix_ns: int,
) -> list[dict[str, Any]]:
    """Give what each extra target has and lacks; of settings that are not ours, what it has."""
    if place is None:
        return []
    known = {each.name: each for each in settings.extra_targets if target_of is not None}
    found = []
    for state in TargetBoard(place.page).states():
        counts = state.counts
        paused_s = counts[TargetCount.PAUSED_UNTIL] - unix_ns / 1e9
        target = known.get(state.name)
        found.append(
            {
                "name": state.name,
                "url": target.endpoint if target is not None else None,
                **(_lacking(place, target, unix_ns) if target is not None else {}),
                "accepted": counts[TargetCount.ACCEPTED],
                "batches_sent": counts[TargetCount.BATCHES_SENT],
                "batches_retried": counts[TargetCount.BATCHES_RETRIED],
                "dropped": {r.name.lower(): counts[r] for r in TARGET_DROPS if counts[r]},
                "paused_s": paused_s if paused_s > 0 else None,
                "last_error": state.last_error,
            }
        )
    return found


def _lacking(place: Place, target: ExtraTarget, unix_ns: int) -> dict[str, Any]:
    spool, hashes = place.directory.spool, hashes_of(target)
    try:
        waiting = waiting_of(spool, marks_of(spool, hashes), hashes)
    except OSError:  # removed at this moment
        waiting = Waiting(0, 0, 0)
    oldest_ns = waiting.oldest_unix_ns
    return {
        "waiting_records": waiting.records,
        "unaccepted_bytes": waiting.bytes,
        "oldest_age_s": max(0.0, (unix_ns - oldest_ns) / 1e9) if oldest_ns else None,
        "limit_bytes": target.bytes_max,
    }


def _dead(place: Place | None) -> dict[str, int]:
    """Count what is in ``dead/`` by size; how many letters that is, ``fallom dead ls`` reads."""
    files = total = 0
    if place is not None:
        # Removed, or changed while it is listed: then it is a part of it.
        with contextlib.suppress(OSError), entries_of(place.directory.dead) as entries:
            for entry in entries:
                total += entry.stat(follow_symlinks=False).st_size
                files += 1
    return {"files": files, "bytes": total}


def drops_of(place: Place | None, pending: Mapping[Drop, int]) -> tuple[dict[str, int], int]:
    """Give the drops by reason, and what sampling left out: as it was asked to, so no drop."""
    drops = place.page.drops() if place is not None else {}
    for drop, count in pending.items():
        drops[drop.name.lower()] = drops.get(drop.name.lower(), 0) + count
    sampled_out = drops.pop(Drop.SAMPLED.name.lower(), 0)
    return {reason: count for reason, count in drops.items() if count}, sampled_out
