"""What a call's span says of its session: the model's assignment, and the prompt tag, taken once."""

from __future__ import annotations

import asyncio
import contextvars
import os
from pathlib import Path
from typing import Any

import pytest

import fallom
from fallom import models, prompts, trace
from fallom._core.span import Span
from fallom._tracing import ContextTracing
from fallom.dev.server import LocalCloud
from fallom.testing import capture
from tests.support.flushers import wait_for
from tests.support.spans import recorded_spans

TARGETED = """
variants: [{model: one, weight: 100}, {model: two, weight: 0}]
targeting:
  individualTargets: [{field: customerId, value: c-1, variantIndex: 1}]
"""


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    folder = tmp_path / "cloud"
    for part in ("configs", "prompts"):
        (folder / part).mkdir(parents=True)
    (folder / "configs/app.yaml").write_text(TARGETED)
    (folder / "prompts/hello.yaml").write_text("system_prompt: You greet.\nuser_template: Hello\n")
    with LocalCloud(folder=folder, db=tmp_path / "cloud.db") as running:
        for name, value in running.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("FALLOM_LINGER", "1")
        fallom.init()
        assert fallom.wait_until_ready(20)
        yield running


ASSIGNED = ("fallom.config_version", "fallom.variant_index", "fallom.assignment.reason")


def assigned(attributes: Any) -> list[Any]:
    return [attributes.get(name) for name in ASSIGNED]


@pytest.mark.usefixtures("cloud")
def test_what_models_get_decided_is_on_the_spans_of_its_session() -> None:
    session = fallom.session("app", "s-1")
    assert assigned(session.attributes()) == [None, None, None]
    for _ in range(2):
        models.get("app", "s-1")
        assert assigned(session.attributes()) == [1, 0, "weight"]
        assert assigned(fallom.session("app", "s-1").attributes()) == [1, 0, "weight"]
    assert assigned(fallom.session("app", "s-2").attributes()) == [None, None, None]
    assert assigned(fallom.session("other", "s-1").attributes()) == [None, None, None]
    models.get("app", "s-1", customer_id="c-1")
    assert assigned(session.attributes()) == [1, 1, "individual_target"]
    with session:
        assert assigned(ContextTracing().call_attributes()) == [1, 1, "individual_target"]


@pytest.mark.usefixtures("cloud")
def test_what_the_session_s_own_call_decided_counts_before_it() -> None:
    models.get("app", "s-1")
    session = fallom.session("app", "s-1", customer_id="c-1")
    assert session.get_model_sync() == "two"
    assert assigned(session.attributes()) == [1, 1, "individual_target"]
    lost = fallom.session("nowhere", "s-1")
    lost.get_model_sync(fallback="spare")
    assert assigned(lost.attributes()) == [None, None, "fallback: config_not_found"]


def test_metrics_say_it_too(cloud: LocalCloud) -> None:
    models.get("app", "s-1")
    trace.span({"score": 1}, config_key="app", session_id="s-1")
    assert fallom.flush(20) == 0
    (span,) = wait_for(cloud.spans)
    assert assigned(span["attributes"]) == [1, 0, "weight"]


class Broken(dict[str, Any]):
    """A mapping of the application's whose methods fail."""

    def __iter__(self) -> Any:
        raise RuntimeError("the application's")

    items = keys = __iter__


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        (Broken(a=1), {}),
        ({"a": 1, "b": None}, {"a": 1}),
        ("text", {"value": "text"}),
        (["x", "y"], {"value": ["x", "y"]}),
    ],
)
def test_metadata_that_are_no_mapping_cost_neither_call_nor_record(
    metadata: Any, expected: dict[str, Any]
) -> None:
    def check(named: dict[str, str]) -> None:
        trace.span({"score": 1})
        trace.inject(named)

    headers: list[dict[str, str]] = [{}, {}]
    with capture() as captured:
        with fallom.session("app", "s-1", metadata=metadata):
            check(headers[0])
        trace.set_session("app", "s-1", metadata=metadata)
        check(headers[1])
        trace.clear_session()
        assert fallom.status()["dropped"] == {}
    prefix = "fallom.metadata."
    for record in captured.metrics:
        found = {
            name.removeprefix(prefix): value
            for name, value in record.attributes.items()
            if name.startswith(prefix)
        }
        assert found == expected
    assert len(captured.metrics) == 2
    assert headers[0] == headers[1]
    assert "s-1" in headers[0]["fallom"]


@pytest.mark.parametrize(
    ("tags", "expected"),
    [("one", ["one"]), ("", []), (5, ["5"]), (["a", "b"], ["a", "b"]), ({"a": 1}.keys(), ["a"])],
)
def test_one_text_is_one_tag(tags: Any, expected: list[str]) -> None:
    with capture() as captured:
        with fallom.session("app", "s-1", tags=tags):
            trace.span({"score": 1})
        trace.set_session("app", "s-1", tags=tags)
        trace.span({"score": 2})
        trace.clear_session()
    found = [record.attributes.get("fallom.tags", []) for record in captured.metrics]
    assert found == [expected, expected]


def test_data_that_cannot_be_read_costs_the_record_and_not_the_call() -> None:
    with capture() as captured:
        trace.span(Broken(score=1), "app", "s-1")
        assert fallom.status()["dropped"] == {"internal": 1}
    assert captured.metrics == []


def tag_of(takes_prompt: bool = True) -> Any:
    return ContextTracing().call_attributes(takes_prompt).get("fallom.prompt_key")


@pytest.mark.usefixtures("cloud")
def test_the_tag_is_taken_by_the_next_call_that_uses_a_prompt() -> None:
    prompts.get("hello")
    assert [tag_of(False), tag_of(False), tag_of(), tag_of()] == [None, None, "hello", None]


@pytest.mark.usefixtures("cloud")
async def test_of_the_tasks_that_a_context_starts_one_has_the_tag() -> None:
    prompts.get("hello")

    async def call() -> Any:
        return tag_of()

    found = await asyncio.gather(*(call() for _ in range(5)))
    assert sorted(found, key=str) == [None, None, None, None, "hello"]
    assert tag_of() is None
    prompts.get("hello")
    copied = contextvars.copy_context()
    prompts.get("hello")
    assert copied.run(tag_of) == "hello"
    assert tag_of() == "hello"


def test_a_forked_child_has_the_tag_of_its_own(cloud: LocalCloud, state_dir: Path) -> None:
    prompts.get("hello")
    child = os.fork()
    if child == 0:
        with trace.step("in the child"):
            pass
        os._exit(0 if tag_of() == "hello" else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert tag_of() == "hello"  # a process is a context of its own
    spans: list[Span] = recorded_spans(state_dir)
    assert [span.name for span in spans] == ["in the child"]


@pytest.mark.parametrize(
    ("rate", "captures", "expected"),
    [(1.0, True, True), (1.0, False, False), (0.0, True, False), (0.0, False, False)],
)
def test_content_is_built_of_sessions_that_are_kept(
    rate: float, captures: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FALLOM_FLUSHER", "external")
    fallom.init(api_key="k", sample_rate=rate, capture_content=captures)
    assert fallom.session("app", "s")._tracing.content_captured is expected
    assert ContextTracing().content_captured is captures  # without a session its trace decides
