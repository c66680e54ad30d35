"""Every system call of a cycle killed and failed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scripts.soaking.cloud import Report


def sweep(folder: Path, given: Any) -> tuple[Report, list[str]]:
    """Kill and fail every system call that changes a file."""
    from tests.support.strace import why_unusable
    from tests.support.sweep import flusher_sweep, worker_sweep

    if why_unusable():
        return [("points swept", f"none: {why_unusable()}")], []
    report, problems = [], []
    for name, make in (("worker", worker_sweep), ("flusher", flusher_sweep)):
        swept = make(folder, kinds=("signal", "error", "retval"))
        tried = 0
        for point, fault in swept.faults(given.stride, every_error=True):
            problem = swept.try_one(point, fault)
            problems += [problem] if problem else []
            tried += 1
        report.append((f"points of a {name}, faults tried", f"{len(swept.points())}, {tried}"))
    return report, problems
