from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from fallom.dev.recorder import Recorder
from fallom.dev.store import FetchRow, Store

ROW = FetchRow("GET", "/configs", 200, 1, 2, "", "", 0, "r")


async def test_counts_and_rows_include_what_was_noted_before(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "x.db")

    async def noted_while_busy(look: Callable[[], Awaitable[Any]]) -> Any:
        await recorder.clear()
        release = threading.Event()

        def slow_rows() -> list[Any]:
            assert release.wait(20)
            return []

        storing = asyncio.create_task(recorder.store(slow_rows))
        await asyncio.sleep(0)  # the writer is busy now
        recorder.note(ROW)
        threading.Timer(0.2, release.set).start()
        found = await look()
        await storing
        return found

    assert (await noted_while_busy(recorder.stats))["fetches"] == {"/configs": 1}
    assert len(await noted_while_busy(lambda: recorder.rows("fetches", 0, 9))) == 1
    recorder.close()


async def test_everything_noted_is_stored_when_it_is_closed(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "x.db")
    for _ in range(500):
        recorder.note(ROW)
    recorder.close()
    store = Store(tmp_path / "x.db")
    assert store.stats()["fetches"] == {"/configs": 500}
    store.close()


async def test_of_requests_alone_no_more_are_kept_than_was_asked_for(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "x.db", fetches_max=20)
    kept = []
    for _ in range(100):
        recorder.note(ROW)
        kept.append((await recorder.stats())["fetches"]["/configs"])
    assert max(kept) <= 22
    assert kept[-1] >= 20
    recorder.close()
    again = Recorder(tmp_path / "x.db", fetches_max=3)
    again.note(ROW)
    assert (await again.stats())["fetches"] == {"/configs": 3}
    again.close()
