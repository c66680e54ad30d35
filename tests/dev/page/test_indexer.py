from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from fallom._folder.folder import Folder
from fallom.dev.page.index_schema import open_index
from fallom.dev.page.indexer import Indexer, index_path
from fallom.dev.serving import Desk
from fallom.dev.store import SpanRow, Store
from tests.support.flushers import wait_for


def test_no_span_is_given_up_before_experiments_have_counted_it(
    tmp_path: Path, folder: Path, row: Any
) -> None:
    database = tmp_path / "dev.db"
    with contextlib.closing(Store(database)) as store:
        told = {"fallom.config_version": 1, "fallom.variant_index": 0}
        rows = [row(session_id=f"s{number}", attributes=told) for number in range(1500)]
        store.add(SpanRow(*(one[name] for name in SpanRow._fields)) for one in rows)
        desk = Desk(Folder(folder))
        indexer = Indexer(database, desk, lambda: None, spans_max=50)
        with contextlib.closing(desk), contextlib.closing(indexer):
            indexer.start()
            wait_for(lambda: store.stats()["spans"]["received"] <= 55)
        index = open_index(index_path(database), is_writer=False)
        with contextlib.closing(index):
            ((sessions,),) = index.execute("SELECT count(*) FROM assignment").fetchall()
    assert sessions == 1500
