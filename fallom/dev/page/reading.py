"""``Shelf``: the index and the store, read by one thread for the page."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from fallom.dev.page.index_schema import open_index
from fallom.dev.page.indexer import Indexer, index_path
from fallom.dev.store import Store

__all__ = ["Shelf"]

_READY_S: Final = 10.0  # to make an empty index; a disk that takes longer has other troubles
T = TypeVar("T")


class Shelf:
    """What the page reads. It starts the indexer at the first look."""

    def __init__(self, database: Path, indexer: Indexer) -> None:
        """Say where; nothing is opened yet."""
        self._database = database
        self._indexer = indexer
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fallom-dev-page")
        self._index: sqlite3.Connection | None = None
        self._store: Store | None = None
        self._generation = -1

    async def ask(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """Call ``question`` with the index, in the page's thread."""
        return await self.run(lambda: question(self._opened()))

    async def rows(self, ids: list[int]) -> list[dict[str, Any]]:
        """Give whole rows of the store's spans."""
        return await self.run(lambda: self._opened_store().rows_by_id(ids)) if ids else []

    async def fetches_of(self, path: str, limit: int) -> list[dict[str, Any]]:
        """Give the last requests for a path, newest first."""
        return await self.run(lambda: self._opened_store().fetches_of(path, limit))

    def close(self) -> None:
        """End the thread and close the files."""
        self._thread.shutdown()
        if self._index is not None:
            self._index.close()
        if self._store is not None:
            self._store.close()

    async def run(self, work: Callable[[], T]) -> T:
        """Call ``work`` in the page's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _opened(self) -> sqlite3.Connection:
        self._indexer.start()
        if not self._indexer.ready.wait(_READY_S):
            raise sqlite3.OperationalError("the page's index cannot be made; see the console")
        generation = self._indexer.generation
        if self._index is None or generation != self._generation:
            if self._index is not None:
                self._index.close()
            self._index = open_index(index_path(self._database), is_writer=False)
            self._generation = generation
        return self._index

    def _opened_store(self) -> Store:
        if self._store is None:
            self._store = Store(self._database)
        return self._store
