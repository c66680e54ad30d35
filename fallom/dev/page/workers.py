"""Workers: which processes recorded spans lately, and which version of a config they used last.

Workers say nothing of themselves: what is known is what their spans say. A worker that has not
called a model since a change has not been seen to switch, which is all that can be told of it.
"""

from __future__ import annotations

import sqlite3
from typing import Any, Final, NamedTuple

__all__ = ["Switch", "recent_workers", "switch_of"]

_RECENT_NS: Final = 10 * 60 * 10**9


class Switch(NamedTuple):
    """Who has taken up the current version of a config."""

    switched: list[dict[str, Any]]
    waiting: list[dict[str, Any]]

    @property
    def total(self) -> int:
        """How many workers used this config lately."""
        return len(self.switched) + len(self.waiting)


def switch_of(index: sqlite3.Connection, key: str, version: int, now_ns: int) -> Switch:
    """Tell which of the workers that used ``key`` in the last minutes used ``version`` last."""
    rows = index.execute(
        "SELECT worker.host, worker.pid, worker.service, worker_config.version, "
        "worker_config.first_ns, max(worker_config.last_ns) AS last_ns "
        "FROM worker_config JOIN worker ON worker.id = worker_config.worker "
        "WHERE worker_config.key = ? AND worker_config.last_ns > ? "
        "GROUP BY worker.id ORDER BY worker.host, worker.pid LIMIT 200",
        (key, now_ns - _RECENT_NS),
    )
    found = [dict(row) for row in rows]
    return Switch(
        [worker for worker in found if worker["version"] == version],
        [worker for worker in found if worker["version"] != version],
    )


def recent_workers(index: sqlite3.Connection, now_ns: int) -> list[dict[str, Any]]:
    """Give the processes that recorded something in the last minutes."""
    rows = index.execute(
        "SELECT host, pid, service, first_ns, last_ns, spans FROM worker WHERE last_ns > ? "
        "ORDER BY last_ns DESC LIMIT 100",
        (now_ns - _RECENT_NS,),
    )
    return [dict(row) for row in rows]
