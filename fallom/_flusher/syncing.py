"""The thread of the sync: when the snapshot is fetched, and wishes in between."""

from __future__ import annotations

import contextlib
import logging
import queue
import time
from collections.abc import Sequence
from pathlib import Path

from fallom._core.settings import Settings, is_hosted
from fallom._flusher.folders import Folders
from fallom._flusher.http import Http
from fallom._flusher.ledger import Ledger
from fallom._flusher.sync import Sync
from fallom._host.control import ControlPage
from fallom._host.counts import Tally
from fallom._host.directory import StateDirectory
from fallom._snapshot.publish import Publisher

__all__ = ["SyncThread"]

_logger = logging.getLogger("fallom")

WISHES_MAX = 1000  # that wait; whoever wished one too many has its fallback, and may wish again

_OURS = "configs: "  # what this thread shows as the last error begins so


class SyncThread:
    """Runs a ``Sync`` whenever it is due; ``run`` is the body of its thread."""

    def __init__(
        self,
        settings: Settings,
        http: Http,
        directory: StateDirectory,
        page: ControlPage,
        ledger: Ledger,
    ) -> None:
        """Open nothing yet."""
        self._settings = settings
        self._http = http
        self._directory = directory
        self._page = page
        self._ledger = ledger
        self.wrong_since_unix_s = 0.0  # since when the server does not take the key
        self._inbox: queue.SimpleQueue[tuple[str, int] | None] = queue.SimpleQueue()

    def wish(self, config_key: str, version: int) -> None:
        """Ask for a pinned version; does not block."""
        if self._inbox.qsize() < WISHES_MAX:  # without a key nobody ever takes one out
            self._inbox.put((config_key, version))

    def stop(self) -> None:
        """Ask the thread to end after the exchange that is under way; does not block."""
        self._inbox.put(None)

    def run(self) -> None:
        """Sync until told to stop. The guard of this thread: a fault costs a turn, not the sync."""
        if not self._settings.api_key and is_hosted(self._settings.configs_url):
            return  # it answers nobody without a key, and need not be asked
        is_told_to_stop = False
        while not is_told_to_stop:
            try:
                self._run()
                is_told_to_stop = True
            except Exception as error:
                self._ledger.say(f"{_OURS}{type(error).__name__}: {error}", time.monotonic())
                _logger.debug("sync failed", exc_info=True)
                with contextlib.suppress(queue.Empty):
                    is_told_to_stop = self._inbox.get(timeout=1.0) is None

    def _run(self) -> None:
        publisher = Publisher(Path(self._directory.snapshot_path))
        folders = Folders(self._http, lambda sentence: _logger.warning("%s", sentence))
        sync = Sync(self._settings, folders, publisher, self._announce)
        while True:
            now_s = time.monotonic()
            due_s = sync.due_s(now_s)
            if now_s >= due_s:
                self._ledger.tally(Tally.CONFIG_FETCHES)
                sync.run_once(now_s)
                since = self.wrong_since_unix_s or time.time()
                self.wrong_since_unix_s = since if sync.is_refused else 0.0
                if sync.last_error:
                    self._ledger.show(_OURS + sync.last_error)  # it is in the log already
                else:
                    self._page.set_synced(int(time.time()))
                    self._show([*folders.problems(), *sync.refused])
                continue
            try:
                wish = self._inbox.get(timeout=due_s - now_s)
            except queue.Empty:
                continue
            if wish is None:
                return
            sync.wish(*wish)

    def _show(self, refused: Sequence[str]) -> None:
        """Show what of good answers cannot be served, unless something else is shown."""
        shown = self._page.last_error()  # also that of an earlier flusher
        if refused and (not shown or shown.startswith(_OURS)):
            self._ledger.show(_OURS + refused[0])
        elif shown.startswith(_OURS):
            self._ledger.clear_error(_OURS)

    def _announce(self, generation: int) -> None:
        if generation != self._page.generation():
            self._page.set_generation(generation)
            self._ledger.tally(Tally.PUBLISHES)
