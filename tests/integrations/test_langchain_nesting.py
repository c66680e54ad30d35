"""Calls and steps of one's own within LangChain's runs: each belongs under the run that it is part of."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from fake_provider import Provider, chat_reply
from langchain_core.runnables import RunnableLambda, RunnableParallel
from langchain_core.tools import tool

import fallom
from fallom import trace
from fallom.testing import Capture, CapturedSpan, capture

SESSION = ("agent", "s-1")


@pytest.fixture
def captured() -> Iterator[Capture]:
    with capture() as captured:
        yield captured


@pytest.fixture
def callbacks() -> Any:
    return {"callbacks": [fallom.session(*SESSION).langchain_callback()]}


def tree(captured: Capture) -> dict[str, str | None]:
    """The name of each span's parent by its name; names end in a word that tells them apart."""
    names = {span.span_id: span.name.split()[-1] for span in captured.spans}
    assert len(set(names.values())) == len(names)
    assert len({span.trace_id for span in captured.spans}) == 1
    parents: dict[str, str | None] = {}
    for span in captured.spans:
        parent = span.parent_span_id
        parents[names[span.span_id]] = None if parent is None else names[parent]
    return parents


def step(name: str) -> str:
    with trace.step(name):
        return name


@tool
def lookup(city: str) -> str:
    """Look a city up."""
    return step("inner") + city


def test_call_of_a_wrapped_client_in_a_tool_is_the_tools(
    captured: Capture, callbacks: Any, provider: Provider
) -> None:
    provider.always = chat_reply
    with openai.OpenAI(base_url=provider.url, api_key="k", max_retries=0) as bare:
        client = fallom.session(*SESSION).wrap_openai(bare)

        @tool
        def ask(question: str) -> str:
            """Ask a model."""
            messages: Any = [{"role": "user", "content": question}]
            answer = client.chat.completions.create(model="gpt-4o", messages=messages)
            return str(answer.choices[0].message.content)

        ask.invoke({"question": "Oslo?"}, config=callbacks)
    assert tree(captured) == {"gpt-4o": "ask", "ask": None}


def test_step_in_a_tool_in_a_chain_is_the_tools(captured: Capture, callbacks: Any) -> None:
    chain = RunnableLambda(lambda city: lookup.invoke({"city": city}), name="chain")
    chain.invoke("Oslo", config=callbacks)
    assert tree(captured) == {"inner": "lookup", "lookup": "chain", "chain": None}


def test_step_around_and_step_between_are_in_the_tree(captured: Capture, callbacks: Any) -> None:
    def run(city: str) -> Any:
        with trace.step("between"):
            step("deep")
            return lookup.invoke({"city": city})

    with trace.step("around"):
        RunnableLambda(run, name="chain").invoke("Oslo", config=callbacks)
    parents = tree(captured)
    assert parents["chain"] == "around"
    assert parents["between"] == "chain"
    assert parents["deep"] == "between"
    # LangChain's tree is LangChain's: the tool is under the run that called it.
    assert parents["lookup"] == "chain"
    assert parents["inner"] == "lookup"


def test_what_comes_after_a_run_is_not_under_it(captured: Capture, callbacks: Any) -> None:
    with trace.step("around"):
        RunnableLambda(lambda text: text, name="chain").invoke("x", config=callbacks)
        step("after")
    assert tree(captured) == {"around": None, "chain": "around", "after": "around"}


def test_what_the_reader_of_a_stream_does_is_not_under_the_run(
    captured: Capture, callbacks: Any
) -> None:
    def pieces(texts: Iterator[str]) -> Iterator[str]:
        for text in texts:
            step("within")
            yield text

    from langchain_core.runnables import RunnableGenerator

    with trace.step("around"):
        for _ in RunnableGenerator(pieces, name="chain").stream("x", config=callbacks):
            step("reader")
    parents = tree(captured)
    assert parents["reader"] == "around"
    assert parents["chain"] == "around"
    assert parents["within"] in ("chain", "around")  # older versions run generators in no context


def test_parallel_branches_keep_apart(captured: Capture, callbacks: Any) -> None:
    branches = RunnableParallel(
        a=RunnableLambda(lambda _: step("in-a"), name="branch-a"),
        b=RunnableLambda(lambda _: step("in-b"), name="branch-b"),
    )
    branches.invoke("x", config=callbacks)
    parents = tree(captured)
    assert (parents["in-a"], parents["in-b"]) == ("branch-a", "branch-b")


@pytest.mark.skipif(
    sys.version_info < (3, 11), reason="asyncio takes a context for a task from Python 3.11 on"
)
async def test_async_tools_side_by_side_keep_apart(captured: Capture, callbacks: Any) -> None:
    @tool
    async def first(city: str) -> str:
        """Look up."""
        await asyncio.sleep(0)
        return step("in-first")

    @tool
    async def second(city: str) -> str:
        """Look up."""
        await asyncio.sleep(0)
        return step("in-second")

    with trace.step("around"):
        await asyncio.gather(
            first.ainvoke({"city": "x"}, config=callbacks),
            second.ainvoke({"city": "x"}, config=callbacks),
        )
    parents = tree(captured)
    assert (parents["in-first"], parents["in-second"]) == ("first", "second")
    assert (parents["first"], parents["second"]) == ("around", "around")


def test_headers_for_others_name_the_run(captured: Capture, callbacks: Any) -> None:
    headers: dict[str, str] = {}
    RunnableLambda(lambda _: trace.inject(headers), name="chain").invoke("x", config=callbacks)
    span: CapturedSpan = captured.span()
    assert headers["traceparent"].split("-")[1:3] == [span.trace_id, span.span_id]


def test_runs_of_other_handlers_are_not_ours(captured: Capture) -> None:
    from langchain_core.callbacks import BaseCallbackHandler

    RunnableLambda(lambda _: step("alone"), name="chain").invoke(
        "x", config={"callbacks": [BaseCallbackHandler()]}
    )
    assert tree(captured) == {"alone": None}
