"""``Recorder``: the store's writer and reader, seen from the event loop.

Two threads, one each way: a slow query must not hold up an acknowledgement, and SQLite must not hold
up the loop. Rows that somebody waits for are committed when ``store`` returns; log rows (``note``)
ride along with the next transaction, and ``stats`` and ``rows`` see all that was noted before.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fallom.dev.store import ExposureRow, FetchRow, MetricsRow, SpanRow, Store

__all__ = ["Recorder"]

_PRUNE_EVERY = 10_000  # requests: two hours of a host that polls every 2 s


class Recorder:
    """One store, written by one thread and read by another."""

    def __init__(
        self,
        path: Path,
        stored: Callable[[], None] = lambda: None,
        cleared: Callable[[], None] = lambda: None,
        fetches_max: int | None = None,
    ) -> None:
        """Open the store; see ``Store`` for what is raised.

        Args:
            path: The store's file.
            stored: Called after each commit of rows that somebody waits for; must not block.
            cleared: Called after all was forgotten; must not block.
            fetches_max: How many requests are kept, and a tenth more at most; None for all. A cloud that
                is only polled gets nothing else.
        """
        self.path = path
        self._written = Store(path)
        self._read = Store(path)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="fallom-dev-writer")
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="fallom-dev-reader")
        self._noted: deque[FetchRow] = deque()
        self._stored = stored
        self._cleared = cleared
        self._fetches_max = fetches_max
        self._prune_every = min(_PRUNE_EVERY, max(1, (fetches_max or 0) // 10))
        self._since_pruned = self._prune_every  # of an earlier run there may be too many

    async def store(self, rows: Callable[[], Iterable[SpanRow | ExposureRow | MetricsRow]]) -> None:
        """Commit the rows that ``rows`` gives; it is called in the writer's thread.

        Decoding a batch takes as long as storing it, so both happen off the loop.
        """
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._writer, lambda: self._add(rows()))
        self._stored()

    def note(self, row: FetchRow) -> None:
        """Store a log row soon; nobody waits for it."""
        self._noted.append(row)
        if len(self._noted) == 1:  # one job for all that is noted until the thread gets to it
            self._writer.submit(self._add)

    async def stats(self) -> dict[str, Any]:
        """Count what was received, everything noted included."""
        await self._settle()
        return await asyncio.get_running_loop().run_in_executor(self._reader, self._read.stats)

    async def rows(self, table: str, after: int, limit: int) -> list[dict[str, Any]]:
        """Give rows of a table, everything noted included."""
        await self._settle()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._reader, self._read.rows, table, after, limit)

    async def clear(self) -> None:
        """Forget everything that was received."""
        await self._settle()
        await asyncio.get_running_loop().run_in_executor(self._writer, self._written.clear)
        self._cleared()

    def close(self) -> None:
        """Store what is noted and close; blocks until the threads are done."""
        self._writer.submit(self._add)
        self._writer.shutdown()
        self._reader.shutdown()
        self._written.close()
        self._read.close()

    async def _settle(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._writer, self._add)

    def _add(self, given: Iterable[SpanRow | ExposureRow | MetricsRow] = ()) -> None:
        """Store rows, and with them all that is noted."""
        rows: list[SpanRow | ExposureRow | MetricsRow | FetchRow] = list(given)
        while self._noted:
            rows.append(self._noted.popleft())
        if rows:
            self._written.add(rows)
        self._since_pruned += sum(type(row) is FetchRow for row in rows)
        if self._fetches_max is not None and self._since_pruned >= self._prune_every:
            with contextlib.suppress(sqlite3.Error):  # the rows are stored; the next ones try again
                self._written.keep_newest_fetches(self._fetches_max)
                self._since_pruned = 0
