"""LangChain's and LangGraph's runs, by a callback handler: each run is a span, under that of its parent.

Runs that belong together (a chain, its prompts, models, tools and retrievers) have one trace, that of
the outermost run; a handler may watch any number of them at once, in any threads and tasks. A handler
is told of a run's start and of its end, and keeps what is between: runs that never end are recorded,
as abandoned, when there are too many.

This module is imported only where langchain-core is: by those who ask for a handler.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler

from fallom._core.span import SpanKind, Tracing, new_trace_id
from fallom.integrations import _attributes as names
from fallom.integrations._call import give_up
from fallom.integrations._content import Room, clean, field, items, masked
from fallom.integrations._langchain_reading import (
    documents_of,
    model_of_run,
    name_of_run,
    plain_text,
    request_of_run,
    result_of_run,
    tool_of_run,
)
from fallom.integrations._langchain_run import Run

__all__ = ["LangChainHandler"]

RUNS_MAX = 10_000  # in flight at once: a batch of thousands fits, and what leaks stays below 20 MB
PLACES_MAX = 20_000  # of runs that are remembered for children that begin after their parent's end

F = TypeVar("F", bound=Callable[..., None])


def _guarded(method: F) -> F:
    """Keep what goes wrong here from LangChain, which would log it, or raise it if told so."""

    @functools.wraps(method)
    def guarded(self: LangChainHandler, *args: Any, **kwargs: Any) -> None:
        try:
            with masked(self._tracing.mask):
                method(self, *args, **kwargs)
        except Exception as error:  # noqa: BLE001  # named edge guard: costs the span, not the run
            give_up(self._tracing, "integration", error)

    return guarded  # type: ignore[return-value]


class _RunPlace(NamedTuple):
    """Where a run is in its trace, and what was active where it began."""

    span: tuple[bytes, bytes]
    outside: tuple[bytes, bytes] | None


class LangChainHandler(BaseCallbackHandler):
    """Records runs. Made by ``session.langchain_callback()``; one object serves any number of runs.

    It serves synchronous and asynchronous runs alike: its methods never wait for anything, so an event
    loop may call them where it is, and needs no thread for them.
    """

    run_inline = True  # else each callback of an asynchronous run is sent to a thread

    def __init__(self, tracing: Tracing) -> None:
        """Take where the spans go."""
        self._tracing = tracing
        # Plain dicts without a lock: one that a thread holds at a fork would be held for ever.
        self._runs: dict[UUID, Run] = {}
        self._places: dict[UUID, _RunPlace] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> LangChainHandler:
        """Give itself: a copy of a config must tell of the same runs."""
        return self

    def place_of(
        self, run_id: UUID | None, active: tuple[bytes, bytes] | None
    ) -> tuple[bytes, bytes] | None:
        """Give (trace id, span id) of a run that code is part of.

        Args:
            run_id: The run.
            active: The span that is active in that code. If it is not what was so when the run began, it
                is a step within the run, and nearer: None.
        """
        place = None if run_id is None else self._places.get(run_id)
        return place.span if place is not None and place.outside == active else None

    # Models.

    @_guarded
    def on_chat_model_start(
        self,
        serialized: dict[str, Any] | None,
        messages: list[list[Any]],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:
        """Begin a chat model's run."""
        said = messages[0] if messages else []
        self._begin_model("chat", serialized, said, run_id, parent_run_id, kwargs)

    @_guarded
    def on_llm_start(
        self,
        serialized: dict[str, Any] | None,
        prompts: list[str],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:
        """Begin a text model's run."""
        self._begin_model("text_completion", serialized, prompts, run_id, parent_run_id, kwargs)

    @_guarded
    def on_llm_new_token(self, token: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Take a piece of a streamed answer: when it came."""
        self._piece(run_id)

    @_guarded
    def on_stream_event(self, event: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Take an event of a streamed answer: when it came."""
        self._piece(run_id)

    @_guarded
    def on_llm_end(self, response: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """End a model's run."""
        run = self._take(run_id)
        if run is not None:
            run.attributes.update(result_of_run(response, self._tracing.content_captured))
            self._record(run, None)

    @_guarded
    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """End a model's run by an error; what was streamed until then is with it."""
        run = self._take(run_id)
        if run is not None:
            partial = kwargs.get("response")
            if partial is not None and field(partial, "generations"):
                captured = self._tracing.content_captured
                run.attributes.update(result_of_run(partial, captured, is_whole=False))
            self._record(run, error)

    # Chains and agents.

    @_guarded
    def on_chain_start(
        self,
        serialized: dict[str, Any] | None,
        inputs: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:
        """Begin a chain's run; of the outermost one, the input is recorded."""
        name = name_of_run(serialized, kwargs, "chain")
        is_agent = name == "AgentExecutor" or field(kwargs.get("metadata"), "lc_agent_name") == name
        run = self._begin("chain", name, run_id, parent_run_id)
        if is_agent:
            self._become_agent(run, name)
        if run.is_root and self._tracing.content_captured:
            run.attributes[names.INPUT] = plain_text(inputs)

    @_guarded
    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """End a chain's run."""
        run = self._take(run_id)
        if run is not None:
            if run.is_root and self._tracing.content_captured:
                run.attributes[names.OUTPUT] = plain_text(outputs)
            self._record(run, None)

    @_guarded
    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """End a chain's run by an error."""
        self._fail(run_id, error)

    @_guarded
    def on_agent_action(self, action: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Take it that an agent chose a tool; the run that it is told of is the agent's."""
        run = self._runs.get(run_id)
        if run is not None:
            if run.kind == "chain":
                self._become_agent(run, run.name)
            tool = field(action, "tool")
            said = {names.TOOL_NAME: clean(tool)[:256]} if isinstance(tool, str) else {}
            run.event(names.AGENT_ACTION, said)

    @_guarded
    def on_agent_finish(self, finish: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Take it that an agent is done."""
        run = self._runs.get(run_id)
        if run is not None:
            run.event(names.AGENT_FINISH, {})

    # Tools and retrievers.

    @_guarded
    def on_tool_start(
        self,
        serialized: dict[str, Any] | None,
        input_str: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:
        """Begin a tool's run."""
        name = name_of_run(serialized, kwargs, "tool")
        run = self._begin("tool", f"execute_tool {name}", run_id, parent_run_id)
        run.attributes[names.OPERATION] = "execute_tool"
        run.attributes[names.TOOL_NAME] = name
        run.attributes.update(
            tool_of_run(serialized, kwargs, input_str, self._tracing.content_captured)
        )

    @_guarded
    def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """End a tool's run."""
        run = self._take(run_id)
        if run is not None:
            if self._tracing.content_captured:
                run.attributes[names.TOOL_RESULT] = plain_text(output)
            self._record(run, None)

    @_guarded
    def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """End a tool's run by an error."""
        self._fail(run_id, error)

    @_guarded
    def on_retriever_start(
        self,
        serialized: dict[str, Any] | None,
        query: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:
        """Begin a retriever's run."""
        name = name_of_run(serialized, kwargs, "retriever")
        run = self._begin("retrieval", f"retrieval {name}", run_id, parent_run_id)
        run.attributes[names.OPERATION] = "retrieval"
        if self._tracing.content_captured:
            run.attributes[names.RETRIEVAL_QUERY] = Room().text(query)

    @_guarded
    def on_retriever_end(self, documents: Sequence[Any], *, run_id: UUID, **kwargs: Any) -> None:
        """End a retriever's run."""
        run = self._take(run_id)
        if run is not None:
            run.attributes[names.DOCUMENT_COUNT] = len(items(documents))
            if self._tracing.content_captured:
                run.attributes[names.RETRIEVAL_DOCUMENTS] = documents_of(documents)
            self._record(run, None)

    @_guarded
    def on_retriever_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """End a retriever's run by an error."""
        self._fail(run_id, error)

    @_guarded
    def on_retry(self, retry_state: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Take it that LangChain tries a run again."""
        run = self._runs.get(run_id)
        if run is not None:
            run.retries += 1
            run.event(names.ATTEMPT, {names.ATTEMPT_NUMBER: run.retries + 1})

    # What they share.

    def _begin_model(
        self,
        operation: str,
        serialized: Any,
        messages: Any,
        run_id: UUID,
        parent_run_id: UUID | None,
        kwargs: Mapping[str, Any],
    ) -> None:
        model = model_of_run(serialized, kwargs)
        name = f"{operation} {model or name_of_run(serialized, kwargs, '')}".rstrip()
        run = self._begin("llm", name, run_id, parent_run_id, takes_prompt=True)
        run.span_kind = SpanKind.CLIENT
        run.attributes[names.OPERATION] = operation
        if model:
            run.attributes[names.REQUEST_MODEL] = model
        run.attributes.update(request_of_run(messages, kwargs, self._tracing.content_captured))

    def _begin(
        self,
        kind: str,
        name: str,
        run_id: UUID,
        parent_run_id: UUID | None,
        takes_prompt: bool = False,
    ) -> Run:
        outer = self._places.get(parent_run_id) if parent_run_id is not None else None
        outside = self._tracing.parent()
        if outer is None:
            run = Run(kind, name, outside or (new_trace_id(), b""), is_root=True)
        else:
            run = Run(kind, name, outer.span, is_root=False)
            if outside == outer.span:  # nothing within the outer run is nearer
                outside = outer.outside
        run.attributes[names.KIND] = kind
        run.attributes.update(self._tracing.call_attributes(takes_prompt))
        self._runs[run_id] = run
        self._places[run_id] = _RunPlace((run.trace_id, run.span_id), outside)
        if len(self._places) > PLACES_MAX:
            _pop_oldest(self._places)
        if len(self._runs) > RUNS_MAX:
            oldest = _pop_oldest(self._runs)
            if oldest is not None:
                self._record(oldest, None, failure="abandoned")
        return run

    def _become_agent(self, run: Run, name: str) -> None:
        run.kind = "agent"
        run.name = f"invoke_agent {name}"
        run.attributes[names.KIND] = "agent"
        run.attributes[names.OPERATION] = "invoke_agent"
        run.attributes[names.AGENT_NAME] = name

    def _piece(self, run_id: UUID) -> None:
        run = self._runs.get(run_id)
        if run is not None:
            run.piece()

    def _take(self, run_id: UUID) -> Run | None:
        """Give a run that ends; None if it began before this handler, or was told to end twice."""
        return self._runs.pop(run_id, None)

    def _fail(self, run_id: UUID, error: BaseException) -> None:
        run = self._take(run_id)
        if run is not None:
            self._record(run, error)

    def _record(self, run: Run, error: BaseException | None, failure: str = "") -> None:
        self._tracing.record(run.finished(error, failure, self._tracing.content_captured))


T = TypeVar("T")


def _pop_oldest(runs: dict[UUID, T]) -> T | None:
    """Take out what was put in first; None if other threads took it just now."""
    try:
        return runs.pop(next(iter(runs)), None)
    except (StopIteration, RuntimeError):
        return None
