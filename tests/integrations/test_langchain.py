"""LangChain's runs through the real langchain-core: trees, content, usage, streams, errors, threads."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from typing import Any
from uuid import uuid4

import pytest
from fake_provider import Recording
from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.language_models.fake import FakeListLLM
from langchain_core.language_models.fake_chat_models import (
    FakeMessagesListChatModel,
    GenericFakeChatModel,
)
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.outputs import Generation, LLMResult
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda, RunnableParallel
from langchain_core.tools import tool

from fallom._core.span import Span, SpanKind, SpanStatus
from fallom.integrations import langchain
from fallom.integrations.langchain import LangChainHandler

USAGE: Any = {
    "input_tokens": 20,
    "output_tokens": 9,
    "total_tokens": 29,
    "input_token_details": {"cache_read": 7, "cache_creation": 3},
    "output_token_details": {"reasoning": 4},
}
ANSWER = AIMessage(
    "Hello there",
    usage_metadata=USAGE,
    response_metadata={"finish_reason": "stop", "model_name": "gpt-4o-2024"},
    id="answer-1",
)


@pytest.fixture
def handler(tracing: Recording) -> LangChainHandler:
    return LangChainHandler(tracing)


def told(handler: LangChainHandler) -> Any:
    return {"callbacks": [handler]}


def chat(*messages: Any) -> Any:
    return FakeMessagesListChatModel(responses=list(messages) or [ANSWER])


def by_name(tracing: Recording) -> dict[str, Span]:
    assert tracing.given_up == []
    spans = {span.name: span for span in tracing.spans}
    assert len(spans) == len(tracing.spans)
    return spans


@tool
def weather(city: str) -> str:
    """Tell the weather."""
    if city == "Atlantis":
        raise LookupError("no such city: Atlantis")
    return f"sun in {city}"


class Library(BaseRetriever):
    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        return [Document(f"about {query}", id="d1", metadata={"page": 3}), Document("more")]


def test_a_chat_model_s_run_has_messages_usage_and_reason(
    handler: LangChainHandler, tracing: Recording
) -> None:
    messages = [SystemMessage("Be brief"), HumanMessage("Say hello")]
    answer = chat().invoke(messages, config=told(handler), stop=["x"])
    assert answer.content == "Hello there"
    span = tracing.span
    assert (span.kind, span.status, span.parent_span_id) == (SpanKind.CLIENT, SpanStatus.UNSET, b"")
    assert span.name == "chat FakeMessagesListChatModel"
    attributes = dict(span.attributes)
    assert json.loads(str(attributes["gen_ai.input.messages"])) == [
        {"role": "system", "parts": [{"type": "text", "content": "Be brief"}]},
        {"role": "user", "parts": [{"type": "text", "content": "Say hello"}]},
    ]
    assert json.loads(str(attributes["gen_ai.output.messages"])) == [
        {
            "role": "assistant",
            "parts": [{"type": "text", "content": "Hello there"}],
            "finish_reason": "stop",
        }
    ]
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.response.model": "gpt-4o-2024",
        "gen_ai.response.id": "answer-1",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.request.stop_sequences": ["x"],
        "gen_ai.usage.input_tokens": 20,
        "gen_ai.usage.output_tokens": 9,
        "gen_ai.usage.cache_read.input_tokens": 7,
        "gen_ai.usage.cache_creation.input_tokens": 3,
        "gen_ai.usage.reasoning.output_tokens": 4,
        "fallom.session_id": "s-1",
        "fallom.kind": "llm",
    }
    assert expected.items() <= attributes.items()


def tree() -> Any:
    """A chain of a retriever, a tool within a function, and a model."""

    def consult(question: str) -> str:
        return str(weather.invoke({"city": question}))

    read = RunnableLambda(lambda found: found["library"][0].page_content, name="read")
    both = RunnableParallel(library=Library(), sky=RunnableLambda(consult, name="consult"))
    return (both | read | chat()).with_config(run_name="whole")


def check_tree(tracing: Recording) -> None:
    spans = by_name(tracing)
    whole = spans["whole"]
    assert {span.trace_id for span in spans.values()} == {whole.trace_id}
    assert whole.parent_span_id == b""

    def parent_of(name: str) -> str:
        wanted = spans[name].parent_span_id
        return next(span.name for span in spans.values() if span.span_id == wanted)

    assert parent_of("chat FakeMessagesListChatModel") == "whole"
    assert parent_of("read") == "whole"
    assert parent_of("retrieval Library") == "RunnableParallel<library,sky>"
    assert parent_of("consult") == "RunnableParallel<library,sky>"
    assert parent_of("execute_tool weather") == "consult"
    kinds = {name: span.attributes["fallom.kind"] for name, span in spans.items()}
    assert kinds["whole"] == kinds["consult"] == "chain"
    assert kinds["execute_tool weather"] == "tool"
    assert kinds["retrieval Library"] == "retrieval"
    tool_run = spans["execute_tool weather"].attributes
    assert tool_run["gen_ai.tool.name"] == "weather"
    assert json.loads(str(tool_run["gen_ai.tool.call.arguments"])) == {"city": "Oslo"}
    assert tool_run["gen_ai.tool.call.result"] == "sun in Oslo"
    found = spans["retrieval Library"].attributes
    assert found["fallom.document_count"] == 2
    assert found["gen_ai.retrieval.query.text"] == "Oslo"
    assert json.loads(str(found["gen_ai.retrieval.documents"]))[0] == {
        "content": "about Oslo",
        "id": "d1",
        "metadata": {"page": 3},
    }
    assert whole.attributes["fallom.input"] == "Oslo"
    assert "Hello there" in str(whole.attributes["fallom.output"])
    assert "fallom.input" not in spans["consult"].attributes
    assert tracing.prompts_taken == 1  # by the model alone


def test_a_chain_s_runs_are_one_trace_as_a_tree(
    handler: LangChainHandler, tracing: Recording
) -> None:
    tree().invoke("Oslo", config=told(handler))
    check_tree(tracing)


@pytest.mark.skipif(
    sys.version_info < (3, 11), reason="asyncio takes a context for a task from Python 3.11 on"
)
async def test_an_asynchronous_chain_s_runs_are_one_trace_as_a_tree(
    handler: LangChainHandler, tracing: Recording
) -> None:
    await tree().ainvoke("Oslo", config=told(handler))
    check_tree(tracing)


def test_each_root_run_has_a_trace_of_its_own(
    handler: LangChainHandler, tracing: Recording
) -> None:
    for _ in range(2):
        RunnableLambda(lambda x: x).invoke(1, config=told(handler))
    assert len({span.trace_id for span in tracing.spans}) == 2


def test_a_root_run_joins_the_active_span(handler: LangChainHandler, tracing: Recording) -> None:
    tracing.active = (b"t" * 16, b"s" * 8)
    RunnableLambda(lambda x: x).invoke(1, config=told(handler))
    assert (tracing.span.trace_id, tracing.span.parent_span_id) == tracing.active


def test_a_stream_tells_when_its_first_and_last_piece_came(
    handler: LangChainHandler, tracing: Recording
) -> None:
    model = GenericFakeChatModel(messages=iter([AIMessage("Hello you there")]))
    pieces = [piece.content for piece in model.stream("hi", config=told(handler))]
    assert "".join(map(str, pieces)) == "Hello you there"
    span = tracing.span
    assert span.attributes["gen_ai.request.stream"] is True
    assert 0 <= float(str(span.attributes["gen_ai.response.time_to_first_chunk"])) < 60
    assert [event.name for event in span.events] == ["fallom.first_chunk", "fallom.last_chunk"]
    assert "Hello you there" in str(span.attributes["gen_ai.output.messages"])


async def test_an_asynchronous_stream_does_so_too(
    handler: LangChainHandler, tracing: Recording
) -> None:
    model = GenericFakeChatModel(messages=iter([AIMessage("Hello you there")]))
    pieces = [piece.content async for piece in model.astream("hi", config=told(handler))]
    assert "".join(map(str, pieces)) == "Hello you there"
    assert tracing.span.attributes["gen_ai.request.stream"] is True


def test_a_stream_that_is_left_early_is_recorded(
    handler: LangChainHandler, tracing: Recording
) -> None:
    model = GenericFakeChatModel(messages=iter([AIMessage("Hello you there")]))
    stream = model.stream("hi", config=told(handler))
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert tracing.span.attributes["error.type"] == "GeneratorExit"
    if "gen_ai.output.messages" not in tracing.span.attributes:
        pytest.skip("this langchain-core tells nothing of the part that came")
    (message,) = json.loads(str(tracing.span.attributes["gen_ai.output.messages"]))
    assert message["parts"] == [{"type": "text", "content": "Hello"}]
    assert message["finish_reason"] == "error"  # as of a wrapped client's stream


def test_a_text_model_s_usage_is_read_from_the_result(
    handler: LangChainHandler, tracing: Recording
) -> None:
    run_id = uuid4()
    handler.on_llm_start(None, ["a prompt"], run_id=run_id)
    output = {"token_usage": {"prompt_tokens": 5, "completion_tokens": 6}, "model_name": "m-1"}
    result = LLMResult(generations=[[Generation(text="said")]], llm_output=output)
    handler.on_llm_end(result, run_id=run_id)
    attributes = tracing.span.attributes
    assert attributes["gen_ai.usage.input_tokens"] == 5
    assert attributes["gen_ai.usage.output_tokens"] == 6
    assert attributes["gen_ai.response.model"] == "m-1"
    assert "a prompt" in str(attributes["gen_ai.input.messages"])
    assert "said" in str(attributes["gen_ai.output.messages"])


def test_anthropic_s_own_usage_counts_what_a_cache_had_to_do_with(
    handler: LangChainHandler, tracing: Recording
) -> None:
    run_id = uuid4()
    handler.on_llm_start(None, ["p"], run_id=run_id)
    usage = {
        "input_tokens": 20,
        "cache_creation_input_tokens": 5,
        "cache_read_input_tokens": 7,
        "output_tokens": 3,
    }
    result = LLMResult(generations=[[Generation(text="s")]], llm_output={"usage": usage})
    handler.on_llm_end(result, run_id=run_id)
    assert tracing.span.attributes["gen_ai.usage.input_tokens"] == 32


def test_calls_of_tools_and_their_answers_are_parts_of_messages(
    handler: LangChainHandler, tracing: Recording
) -> None:
    call: Any = {"name": "weather", "args": {"city": "Oslo"}, "id": "c1", "type": "tool_call"}
    asked = AIMessage("", tool_calls=[call])
    conversation = [
        HumanMessage([{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]),
        asked,
        ToolMessage("sun", tool_call_id="c1"),
    ]
    chat(asked).invoke(conversation, config=told(handler))
    attributes = tracing.span.attributes
    said = json.loads(str(attributes["gen_ai.input.messages"]))
    assert said[0]["parts"][0]["type"] == "blob"
    assert "AAAA" not in str(said)
    expected = {"type": "tool_call", "name": "weather", "arguments": {"city": "Oslo"}, "id": "c1"}
    assert said[1] == {"role": "assistant", "parts": [expected]}
    answered = {"type": "tool_call_response", "response": "sun", "id": "c1"}
    assert said[2] == {"role": "tool", "parts": [answered]}
    assert attributes["fallom.tool_calls"] == 1


def test_an_error_is_on_each_run_it_went_through_and_reaches_the_caller(
    handler: LangChainHandler, tracing: Recording
) -> None:
    with pytest.raises(LookupError):
        (RunnableLambda(lambda x: x) | weather).invoke(
            {"city": "Atlantis"}, config={**told(handler), "run_name": "whole"}
        )
    spans = by_name(tracing)
    for name in ("whole", "execute_tool weather"):
        assert spans[name].status == SpanStatus.ERROR
        assert spans[name].attributes["error.type"] == "LookupError"
        assert "no such city" in spans[name].status_message
    assert spans["RunnableLambda"].status == SpanStatus.UNSET


def test_a_run_that_is_interrupted_on_purpose_is_no_error(
    handler: LangChainHandler, tracing: Recording
) -> None:
    class GraphInterrupt(Exception):
        """As LangGraph has it."""

    def ask(_: Any) -> None:
        raise GraphInterrupt

    with pytest.raises(GraphInterrupt):
        RunnableLambda(ask).invoke(1, config=told(handler))
    assert tracing.span.status == SpanStatus.UNSET


def test_retries_are_counted_with_their_times(
    handler: LangChainHandler, tracing: Recording
) -> None:
    tries: list[int] = []

    def flaky(x: int) -> int:
        tries.append(x)
        if len(tries) < 3:
            raise ConnectionError
        return x

    model = RunnableLambda(flaky, name="flaky").with_retry(
        wait_exponential_jitter=False, stop_after_attempt=3
    )
    model.invoke(1, config=told(handler))
    assert len([span for span in tracing.spans if "error.type" in span.attributes]) == 2

    run_id = uuid4()
    tracing.spans.clear()
    handler.on_llm_start(None, ["p"], run_id=run_id)
    handler.on_retry(None, run_id=run_id)
    handler.on_llm_end(LLMResult(generations=[]), run_id=run_id)
    assert tracing.span.attributes["fallom.retries"] == 1
    assert [event.name for event in tracing.span.events] == ["fallom.attempt"]


def test_an_agent_is_named_one(handler: LangChainHandler, tracing: Recording) -> None:
    run_id, child = uuid4(), uuid4()
    handler.on_chain_start(None, {}, run_id=run_id, name="planner")
    action = type("Action", (), {"tool": "weather"})()
    handler.on_agent_action(action, run_id=run_id)
    handler.on_tool_start(None, "in", run_id=child, parent_run_id=run_id)
    handler.on_tool_end("out", run_id=child)
    handler.on_agent_finish(None, run_id=run_id)
    handler.on_chain_end({}, run_id=run_id)
    agent = by_name(tracing)["invoke_agent planner"]
    assert agent.attributes["gen_ai.operation.name"] == "invoke_agent"
    assert [event.name for event in agent.events] == ["fallom.agent.action", "fallom.agent.finish"]
    assert agent.events[0].attributes == {"gen_ai.tool.name": "weather"}


def test_in_privacy_mode_no_text_is_recorded(private: Recording) -> None:
    handler = LangChainHandler(private)
    tree().invoke("Oslo", config=told(handler))
    with pytest.raises(LookupError):
        weather.invoke({"city": "Atlantis"}, config=told(handler))
    assert private.given_up == []
    assert len(private.spans) == 8
    recorded = repr(private.spans)
    for text in ("Oslo", "Hello", "sun", "about", "Atlantis", "weather in"):
        assert text not in recorded.replace("execute_tool weather", "")
    assert "gen_ai.usage.input_tokens" in recorded


def test_a_mask_sees_every_text(handler: LangChainHandler, tracing: Recording) -> None:
    tracing.mask = lambda text: text.replace("Oslo", "[city]")
    tree().invoke("Oslo", config=told(handler))
    with pytest.raises(LookupError):
        weather.invoke({"city": "Atlantis"}, config=told(handler))
    assert "Oslo" not in repr(tracing.spans)
    assert "[city]" in repr(tracing.spans)


def test_a_batch_in_threads_keeps_its_runs_apart(
    handler: LangChainHandler, tracing: Recording
) -> None:
    chain = RunnableLambda(lambda x: x, name="inner") | chat()
    barrier = threading.Barrier(4)

    def run() -> None:
        barrier.wait(10)
        chain.batch(["x"] * 10, config={**told(handler), "max_concurrency": 4})  # type: ignore[call-overload]

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tracing.given_up == []
    traces: dict[bytes, list[Span]] = {}
    for span in tracing.spans:
        traces.setdefault(span.trace_id, []).append(span)
    assert len(traces) == 40
    for spans in traces.values():
        (root,) = [span for span in spans if not span.parent_span_id]
        others = [span for span in spans if span is not root]
        assert len(others) == 2
        assert {span.parent_span_id for span in others} == {root.span_id}
    assert handler._runs == {}


async def test_concurrent_asynchronous_runs_stay_apart(
    handler: LangChainHandler, tracing: Recording
) -> None:
    chain = RunnableLambda(lambda x: x, name="inner") | chat()
    await asyncio.gather(*(chain.ainvoke("x", config=told(handler)) for _ in range(20)))
    assert len({span.trace_id for span in tracing.spans}) == 20
    assert handler._runs == {}


async def test_a_cancelled_run_is_recorded(handler: LangChainHandler, tracing: Recording) -> None:
    started = asyncio.Event()

    async def hang(_: Any) -> None:
        started.set()
        await asyncio.sleep(60)

    task = asyncio.ensure_future(RunnableLambda(hang).ainvoke(1, config=told(handler)))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert tracing.span.attributes["error.type"] == "CancelledError"


def test_runs_that_never_end_are_bounded_and_recorded(
    handler: LangChainHandler, tracing: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(langchain, "RUNS_MAX", 3)
    monkeypatch.setattr(langchain, "PLACES_MAX", 5)
    for _ in range(10):
        handler.on_llm_start(None, ["p"], run_id=uuid4())
    assert len(handler._runs) == 3
    assert len(handler._places) == 5
    assert len(tracing.spans) == 7
    assert {span.attributes["error.type"] for span in tracing.spans} == {"abandoned"}


def test_a_child_that_begins_after_its_parent_s_end_is_still_its_child(
    handler: LangChainHandler, tracing: Recording
) -> None:
    parent, child = uuid4(), uuid4()
    handler.on_chain_start(None, {}, run_id=parent, name="parent")
    handler.on_chain_end({}, run_id=parent)
    handler.on_chain_start(None, {}, run_id=child, parent_run_id=parent, name="child")
    handler.on_chain_end({}, run_id=child)
    spans = by_name(tracing)
    assert spans["child"].parent_span_id == spans["parent"].span_id


def test_an_end_without_a_start_is_passed_over(
    handler: LangChainHandler, tracing: Recording
) -> None:
    handler.on_llm_end(LLMResult(generations=[]), run_id=uuid4())
    handler.on_chain_error(ValueError(), run_id=uuid4())
    handler.on_llm_new_token("x", run_id=uuid4())
    assert (tracing.spans, tracing.given_up) == ([], [])


@pytest.mark.parametrize("method", ["content_captured", "call_attributes", "parent", "record"])
def test_a_fault_of_ours_costs_the_span_and_not_the_run(
    handler: LangChainHandler,
    tracing: Recording,
    method: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tracing.broken = {method: RuntimeError("ours")}
    model = FakeListLLM(responses=["fine"])
    assert (RunnableLambda(lambda x: x) | model).invoke("in", config=told(handler)) == "fine"
    assert tracing.given_up
    assert not [record for record in caplog.records if record.name.startswith("langchain")]
