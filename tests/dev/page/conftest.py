from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from fallom.dev.page.index import Index
from fallom.dev.page.index_schema import open_index
from fallom.dev.store import SpanRow
from tests.dev.conftest import AskedCloud, make_batch

_IDS = count(1)


def make_row(**given: Any) -> dict[str, Any]:
    """A row of the store's spans, as a reader of it gets it."""
    number = next(_IDS)
    attributes = given.pop("attributes", {})
    row = SpanRow(
        trace_id=f"{number:032x}",
        span_id=f"{number:016x}",
        parent_span_id="",
        name="chat gpt-4o",
        kind=3,
        start_unix_ns=10**18,
        end_unix_ns=10**18 + 10**9,
        status=0,
        status_message="",
        session_id="s1",
        config_key="app",
        resource=json.dumps({"host.name": "h", "process.pid": 7, "service.name": "svc"}),
        attributes=json.dumps(attributes),
        events="[]",
        received_unix_ns=10**18,
        request_id="r",
    )
    return {"id": number, **row._replace(**given)._asdict()}


@pytest.fixture
def row() -> Callable[..., dict[str, Any]]:
    return make_row


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    index = Index(tmp_path / "page")
    yield index
    index.close()


@pytest.fixture
def read(index: Index, tmp_path: Path) -> Iterator[Any]:
    reader = open_index(tmp_path / "page", is_writer=False)
    yield reader
    reader.close()


class LookedAtCloud(AskedCloud):
    """A local cloud whose page is looked at."""

    def page(self, path: str) -> str:
        answer = self.ask("GET", path)
        assert answer.status == 200, answer.body
        return answer.body.decode()

    def page_with(self, path: str, text: str) -> str:
        """Give a page as soon as it holds ``text``: the index follows the store."""
        return self.wait_for(lambda _: page if text in (page := self.page(path)) else "")

    def post_span(self, **given: Any) -> str:
        """Send one span, named by fields of the protocol and by attributes; give its trace's id."""
        batch = make_batch(1, given.pop("number", 1), **given.pop("attributes", {}))
        span = batch.resource_spans[0].scope_spans[0].spans[0]
        for name, value in given.items():
            if name == "message":
                span.status.message, span.status.code = value, 2
            else:
                setattr(span, name, value)
        self.post(batch)
        return span.trace_id.hex()


@pytest.fixture(scope="module")
def shared_page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LookedAtCloud]:
    with pytest.MonkeyPatch.context() as patch:
        # It starts before a test's own settings, and shows the host: the developer's is not looked at.
        patch.setenv("FALLOM_STATE_DIR", str(tmp_path_factory.mktemp("host")))
        with LookedAtCloud() as cloud:
            yield cloud


@pytest.fixture
def page(shared_page: LookedAtCloud) -> LookedAtCloud:
    """A cloud that has received nothing."""
    shared_page.clear()
    shared_page.page_with("/", "No traces yet")
    return shared_page


@pytest.fixture
def new_page() -> type[LookedAtCloud]:
    return LookedAtCloud
