"""Whether all that processes acknowledged has arrived, by one flusher and with one fetch of configs.

A process acknowledges by writing a span's name to a file when the call that recorded it has returned.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import fallom
from fallom.dev.server import LocalCloud
from tests.support.flushers import leader_pids


def acknowledged(folder: Path) -> Counter[str]:
    """Give the names of the spans whose recording had returned."""
    path = folder / "acknowledged"
    return Counter(path.read_text().split()) if path.exists() else Counter()


def check_delivered(cloud: LocalCloud, folder: Path, state_dir: Path) -> list[dict[str, Any]]:
    """See that all has arrived; give the spans."""
    assert len(leader_pids(state_dir)) == 1
    fallom.init()
    assert fallom.flush(60) == 0, fallom.status()
    assert fallom.status()["dropped"] == {}
    rows = cloud.spans()
    arrived = Counter(row["name"] for row in rows)
    assert acknowledged(folder) - arrived == Counter(), "acknowledged and lost"
    assert len({row["span_id"] for row in rows}) == len(rows), "nothing comes twice"
    assert cloud.stats()["fetches"]["/configs"] == 1, "one fetch an interval"
    return rows
