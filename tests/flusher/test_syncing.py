"""The thread of the sync: what it shows, and what waits for it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fallom._core.settings import Settings
from fallom._flusher.http import Request, Response
from fallom._flusher.ledger import Ledger
from fallom._flusher.syncing import WISHES_MAX, SyncThread
from fallom._host.control import ControlPage
from fallom._host.directory import StateDirectory
from tests.snapshot.builders import config
from tests.support.flushers import wait_for
from tests.support.targets import FakeHttp


class Syncing:
    """A thread that syncs each 50 ms, and the main thread's part of it: to carry the error over."""

    def __init__(self, base: Path, configs_url: str = "http://configs.test") -> None:
        base.mkdir(mode=0o700)
        self.configs: list[Any] = [config("a")]
        settings = Settings(
            api_key="key",
            configs_url=configs_url,
            prompts_url="http://prompts.test",
            sync_interval_s=0.05,
        )
        directory = StateDirectory(str(base), settings.namespace)
        self.page = ControlPage.open(directory.root)
        self._ledger = Ledger()
        self._http: Any = FakeHttp(self._answer)
        self._sync = SyncThread(settings, self._http, directory, self.page, self._ledger)
        self._thread = threading.Thread(target=self._sync.run)
        self._thread.start()

    def _answer(self, request: Request) -> Response:
        name = request.url.rpartition("/")[2].replace("-", "_")
        items = self.configs if name == "configs" else []
        return Response(200, {}, json.dumps({name: items}).encode())

    def shown(self) -> str:
        error = self._ledger.take()[2]
        if error is not None:
            self.page.set_last_error(error)
        return self.page.last_error()

    def wait_for_a_whole_run(self) -> None:
        asked = len(self._http.requests)
        wait_for(lambda: len(self._http.requests) >= asked + 6)  # the rest of one, and a whole one

    def close(self) -> None:
        self._sync.stop()
        self._thread.join(20)


@pytest.fixture
def syncing(tmp_path: Path) -> Iterator[Syncing]:
    made = Syncing(tmp_path / "state")
    yield made
    made.close()


def test_an_item_that_cannot_be_served_is_shown_until_it_is_mended(syncing: Syncing) -> None:
    wait_for(syncing.page.synced_s)
    assert syncing.shown() == ""
    syncing.configs = [config("a"), {"key": "bad"}]
    wait_for(lambda: syncing.shown().startswith("configs: configs[1] 'bad': variants is null"))
    syncing.configs = [config("a")]
    wait_for(lambda: syncing.shown() == "")


def test_a_mistake_in_a_file_is_shown_until_it_is_mended(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "configs" / "a.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(config("a")))
    syncing = Syncing(tmp_path / "state", f"file://{tmp_path}/folder")
    try:
        wait_for(syncing.page.synced_s)
        file.write_text(json.dumps({**config("a"), "variants": []}))
        wait_for(lambda: syncing.shown().startswith(f"configs: {file}:"))
        syncing.wait_for_a_whole_run()
        assert syncing.shown().startswith(f"configs: {file}:")
        file.write_text(json.dumps(config("a", 2)))
        wait_for(lambda: syncing.shown() == "")
    finally:
        syncing.close()


def test_what_else_is_wrong_is_not_hidden_by_an_item(syncing: Syncing) -> None:
    syncing.page.set_last_error("traces: HTTP 401")
    syncing.configs = [config("a"), {"key": "bad"}]
    syncing.wait_for_a_whole_run()
    assert syncing.shown() == "traces: HTTP 401"


def test_wishes_that_nobody_grants_do_not_fill_the_memory() -> None:
    nothing: Any = None
    sync = SyncThread(Settings(), nothing, nothing, nothing, nothing)
    sync.run()  # there is no key, so that it ends at once
    for version in range(3 * WISHES_MAX):
        sync.wish("a", version)
    assert sync._inbox.qsize() == WISHES_MAX
