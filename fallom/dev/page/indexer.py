"""``Indexer``: the thread that follows the store and fills the page's index.

It begins when somebody first looks at the page, or at once where a person started the cloud or where spans
are given up, which is its work: a cloud that only serves tests pays nothing. Acknowledgements never wait
for it; the page says how far behind it is.
"""

from __future__ import annotations

import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from fallom._folder.folder import Catalogue
from fallom.dev.page.index import Index
from fallom.dev.serving import Desk
from fallom.dev.store import Store

__all__ = ["Indexer", "index_path"]

_BATCH: Final = 400  # 40 ms of work: a reader of the page never waits for longer than that
_PAUSE_S: Final = 0.002  # between two batches, for the requests of applications
_RETRY_S: Final = 1.0  # after an error of the disk
_PRUNE_EVERY: Final = 20_000  # spans, or a tenth of what is kept: so much more there may be


def index_path(database: Path) -> Path:
    """Give the file of the index of a store."""
    return database.with_name(f"{database.name}.page")


class Indexer:
    """One thread. ``start`` and ``wake`` may be called from any thread."""

    def __init__(
        self,
        database: Path,
        desk: Desk,
        changed: Callable[[], None],
        spans_max: int | None = None,
    ) -> None:
        """Say what to follow.

        Args:
            database: The store's file.
            desk: What is served now; the index remembers it, for the weights of the past.
            changed: Called in the thread after each batch that brought something.
            spans_max: How many spans the store shall keep; None for all.
        """
        self._database = database
        self._desk = desk
        self._changed = changed
        self.spans_max = spans_max
        self._wakened = threading.Event()
        self._ending = False
        self._noted: Catalogue | None = None
        self._clearing = False
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self.ready = threading.Event()  # the index exists and may be read
        self.behind = 0  # spans that are stored and not indexed
        self.generation = 0  # of the index's file: readers of an older one open the new one

    def start(self) -> None:
        """Begin, if it has not begun."""
        with self._lock:
            if self._thread is None and not self._ending:
                self._thread = threading.Thread(target=self._follow, name="fallom-dev-indexer")
                self._thread.daemon = True
                self._thread.start()

    def wake(self) -> None:
        """Say that something was stored."""
        self._wakened.set()

    def clear(self) -> None:
        """Say that the store was emptied."""
        self._clearing = True
        self._wakened.set()

    def close(self) -> None:
        """End; blocks until the batch at hand is done."""
        with self._lock:
            self._ending = True
        self._wakened.set()
        if self._thread is not None:
            self._thread.join()

    def _follow(self) -> None:
        while not self._ending:
            try:
                self._follow_store()
            except (sqlite3.Error, OSError) as error:
                print(f"fallom dev: the page's index: {error}", file=sys.stderr)  # noqa: T201
                self._wakened.clear()
                self._wakened.wait(_RETRY_S)

    def _follow_store(self) -> None:
        store = Store(self._database)
        index = Index(index_path(self._database))
        self.generation += 1
        self._noted = None
        try:
            self.behind = max(0, store.last_span() - index.position()[0])
            self.ready.set()
            since_pruned = every = min(_PRUNE_EVERY, max(1, (self.spans_max or 0) // 10))
            while not self._ending:
                self._wakened.clear()
                if self._clearing or _is_other(store, index):
                    self._clearing = False
                    index.reset()
                    self._noted = None
                    self._changed()
                self._note_served(index)
                taken = self._step(store, index)
                since_pruned += taken
                if since_pruned >= every:
                    since_pruned = 0
                    self._prune(store, index)
                if taken:
                    time.sleep(_PAUSE_S)
                else:
                    self._wakened.wait()
        finally:
            index.close()
            store.close()

    def _step(self, store: Store, index: Index) -> int:
        span, _, exposure, metric = index.position()
        spans = store.rows("spans", span, _BATCH)
        exposures = store.rows("exposures", exposure, _BATCH)
        metrics = store.rows("metrics", metric, _BATCH)
        taken = len(spans) + len(exposures) + len(metrics)
        if taken:
            index.add(spans, exposures, metrics)
            last = spans[-1]["id"] if spans else span
            self.behind = max(0, store.last_span() - last)
            self._changed()
        return taken

    def _note_served(self, index: Index) -> None:
        catalogue = self._desk.last
        if catalogue is self._noted or catalogue is None:
            return
        is_new = False
        for kind, payload in (("config", "configs"), ("prompt_ab_test", "prompt_ab_tests")):
            entries = catalogue.all_versions(payload)
            is_new = index.note_served(kind, entries, time.time_ns()) or is_new
        self._noted = catalogue
        if is_new:
            self._changed()

    def _prune(self, store: Store, index: Index) -> None:
        if self.spans_max is not None:
            oldest = store.keep_newest(self.spans_max, index.position()[0])
            if index.forget_before(oldest):
                self._changed()


def _is_other(store: Store, index: Index) -> bool:
    """Whether the store is not the one that was indexed: emptied, or another file of that name."""
    last, mark, _, _ = index.position()
    if not last:
        return False
    found: list[dict[str, Any]] = store.rows("spans", last - 1, 1)
    return not found or f"{found[0]['trace_id']}{found[0]['span_id']}" != mark
