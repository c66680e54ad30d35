"""A big backlog, drained."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from scripts.soaking.cloud import MIB, Report, local_cloud

PROMISED_START_S = 2.0
PROMISED_GROWTH_BYTES = 64 * MIB


def backlog(folder: Path, given: Any) -> tuple[Report, list[str]]:
    """Drain a backlog of many segments."""
    from tests.support.backlog import drain, make_backlog

    os.environ["FALLOM_SPOOL_BYTES_MAX"] = str(4 * given.backlog_mib * MIB)
    with local_cloud(folder) as cloud:
        spans = make_backlog(given.backlog_mib * MIB, given.segments, record_bytes=8192)
        found = drain(cloud, spans, timeout_s=3600)
        received = cloud.stats()["spans"]["received"]
    rate = given.backlog_mib / found.took_s
    report = [
        ("backlog", f"{spans} spans, {given.backlog_mib} MiB in {given.segments} segments"),
        ("first delivery after", f"{found.started_s:.2f} s"),
        ("drained in", f"{found.took_s:.1f} s ({rate:.0f} MiB/s)"),
        ("the flusher's memory grew by", f"{found.growth_bytes / MIB:.0f} MiB"),
    ]
    problems = []
    if found.started_s > PROMISED_START_S or found.growth_bytes > PROMISED_GROWTH_BYTES:
        problems.append("the backlog is slow to start, or costs too much memory")
    if received != spans:
        problems.append(f"{received - spans} were sent twice")
    return report, problems
