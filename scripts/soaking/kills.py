"""Kills of workers and flushers at random, while spans are recorded."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

from scripts.soaking.cloud import Report, local_cloud

FLUSHER_SHARE = 0.1  # of the kills
WRITERS = 3
BURST = 10


def kill(folder: Path, given: Any) -> tuple[Report, list[str]]:
    """Kill at random while the spans asked for are recorded."""
    import fallom
    from fallom._flusher.ship import LaneLimits
    from fallom._flusher.window import BATCHES_MAX
    from tests.support.flushers import wait_for
    from tests.support.storm import SLOW_ANSWERS, Storm, count_delivered

    with local_cloud(folder) as cloud:
        flusher_kills = int(given.kills * FLUSHER_SHARE)
        cloud.fault(SLOW_ANSWERS)
        takeovers: list[float] = []
        expected_s = given.kills * 0.05 + flusher_kills * 1.5
        pause_s = WRITERS * BURST * expected_s / given.spans
        with Storm(folder, WRITERS, BURST, pause_s) as storm:
            for number in range(given.kills):
                wanted = given.spans * number // given.kills
                while storm.acknowledged() < wanted:
                    time.sleep(0.001)
                time.sleep(random.uniform(0, 0.05))
                if number * flusher_kills // given.kills > storm.flusher_kills:
                    storm.kill_the_flusher()
                    killed_s = time.monotonic()
                    wait_for(storm.is_flusher_there, what="the next flusher")
                    takeovers.append(time.monotonic() - killed_s)
                else:
                    storm.kill_a_writer()
            storm.end()
            acknowledged = storm.sessions()
            fallom.init()
            left = fallom.flush(600)
            dropped = fallom.status()["dropped"]
            found = count_delivered(folder / "cloud.db")
    lost = acknowledged - found.sessions
    problems = [f"{len(lost)} lost, for example {sorted(lost)[:3]}"] if lost else []
    if left or dropped or found.forged:
        problems.append(f"left {left}, dropped {dropped}, forged {found.forged[:3]}")
    problems += found.broken_bounds(storm.flusher_kills)
    largest, batch = max(found.resent.values(), default=0), LaneLimits().items_max
    report = [
        ("kills survived: workers, flushers", f"{storm.worker_kills}, {storm.flusher_kills}"),
        ("takeover while workers record, p50, max", _spread(takeovers)),
        ("spans acknowledged", str(len(acknowledged))),
        ("spans delivered, lost", f"{len(found.sessions)}, {len(lost)}"),
        ("deliveries of spans beyond the first", str(found.twice)),
        (
            "batches in flight at a flusher's death, sent again",
            f"{len(found.resent)} in {storm.flusher_kills} kills (promised: at most {BATCHES_MAX} each), "
            f"the largest of {largest} spans (at most {batch})",
        ),
    ]
    return report, problems


def _spread(seconds: list[float]) -> str:
    ordered = sorted(seconds) or [0.0]
    return f"{ordered[len(ordered) // 2]:.2f} s, {ordered[-1]:.2f} s of {len(seconds)}"
