"""Waiting for delivery: what is in the spool now, and until when it is with the server."""

from __future__ import annotations

import time
from collections.abc import Iterator

from fallom._flusher.targets import target_hashes
from fallom._runtime import Runtime
from fallom._spool.survey import count_left, left_of, marks_of

__all__ = ["flush_steps"]

POLL_S = 0.02


def flush_steps(runtime: Runtime, timeout_s: float) -> Iterator[int | None]:
    """Wait for what is in the namespace's spool now, dead processes' segments included.

    Gives None whenever the caller should sleep for ``POLL_S``, and last of all the number of records
    that the server has not accepted by then. One form for callers that block and callers that await.
    """
    give_up = time.monotonic() + timeout_s
    runtime.look()
    place = runtime.whereabouts.place
    if place is None or runtime.settings.flusher == "none":
        yield 0  # nothing was ever recorded: it was dropped, and counted; or nobody will deliver it
        return
    spool, targets = place.directory.spool, target_hashes(runtime.settings)
    try:
        marks = marks_of(spool, targets)
        while marks and time.monotonic() < give_up:
            yield None
            runtime.look_if_due()
            marks = left_of(spool, marks, targets)
        yield count_left(spool, marks, targets)
    except OSError as error:  # the directory went away: what was in it is gone
        runtime.gave_up("waiting for delivery", error)
        yield 0
