"""A step of the application's own as a span: a tool, a search, an agent, a chain of these.

A step is active while its code runs: calls to models and steps within it are its children, and so is
what OpenTelemetry instruments. Of a generator that is a step, only the code of the generator itself is
within it, not that of the loop which it feeds.
"""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from types import TracebackType
from typing import Any, Literal, TypeAlias, TypeVar

from fallom._active_span import Active
from fallom._arguments import check_text
from fallom._core.errors import ConfigurationError
from fallom._core.limits import clean_value
from fallom._core.span import (
    AttributeValue,
    Span,
    SpanKind,
    SpanStatus,
    new_span_id,
    new_trace_id,
)
from fallom._tracing import ContextTracing
from fallom.integrations import _attributes as names
from fallom.integrations._call import error_type_of, give_up
from fallom.integrations._content import Room, masked

__all__ = ["Step", "StepKind"]

F = TypeVar("F", bound=Callable[..., Any])
StepKind: TypeAlias = Literal["tool", "retrieval", "agent", "chain"]

# Kind -> OpenTelemetry's name for the operation, and its attribute with the thing's name.
_OPERATIONS = {
    "tool": ("execute_tool", names.TOOL_NAME),
    "retrieval": ("retrieval", ""),
    "agent": ("invoke_agent", names.AGENT_NAME),
    "chain": ("", ""),
}
_TRACING = ContextTracing()


class Step:
    """Made by ``trace.step``; a context manager for one block, or a decorator for any number of calls."""

    def __init__(
        self, name: str, kind: StepKind, attributes: Mapping[str, AttributeValue] | None
    ) -> None:
        """Use ``trace.step``."""
        check_text(name=name)  # of a decorator without parentheses it is the function, never to run
        if kind not in _OPERATIONS:
            known = ", ".join(map(repr, _OPERATIONS))
            raise ConfigurationError(f"kind is {kind!r}; expected one of {known}.", "kind")
        self._name = name
        self._kind: StepKind = kind
        self._given = attributes
        self._attributes: dict[str, AttributeValue] = {}
        self._ids: tuple[bytes, bytes, bytes] | None = None  # trace, span, parent; None: not begun
        self._active: Active | None = None
        self._start_unix_ns = 0
        self._start_ns = 0

    def set_attribute(self, name: str, value: AttributeValue) -> None:
        """Put an attribute on the span, within its block; before, ``trace.step`` takes some.

        It is recorded in privacy mode too: put no content here.
        """
        self._attributes[name] = clean_value(value)

    def set_input(self, value: Any) -> None:
        """Record what goes into the step: a tool's arguments, a query. Not in privacy mode."""
        self._content(names.TOOL_ARGUMENTS if self._kind == "tool" else names.INPUT, value)

    def set_output(self, value: Any) -> None:
        """Record what comes out of the step. Not in privacy mode."""
        self._content(names.TOOL_RESULT if self._kind == "tool" else names.OUTPUT, value)

    def __enter__(self) -> Step:
        self._begin()
        self._enter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leave()
        self._end(error)

    async def __aenter__(self) -> Step:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, traceback)

    def __call__(self, function: F) -> F:
        """Make each call of a function a step: plain, asynchronous, or a generator of either kind."""
        if inspect.isasyncgenfunction(function):
            wrap: Callable[..., Any] = self._async_generator
        elif inspect.isgeneratorfunction(function):
            wrap = self._generator
        elif inspect.iscoroutinefunction(function):
            wrap = self._coroutine
        else:
            wrap = self._function
        return wrap(function)  # type: ignore[no-any-return]

    def _again(self) -> Step:
        return Step(self._name, self._kind, self._given)

    def _function(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def stepped(*args: Any, **kwargs: Any) -> Any:
            with self._again():
                return function(*args, **kwargs)

        return stepped

    def _coroutine(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        async def stepped(*args: Any, **kwargs: Any) -> Any:
            with self._again():
                return await function(*args, **kwargs)

        return stepped

    def _generator(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def stepped(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            step = self._again()
            step._begin()
            inner = function(*args, **kwargs)
            go, sent = inner.send, None
            while True:
                step._enter()
                try:
                    item = go(sent)
                except StopIteration as stop:
                    step._end(None)
                    return stop.value
                except BaseException as error:
                    step._end(error)
                    raise
                finally:
                    step._leave()
                try:
                    sent = yield item
                    go = inner.send
                except GeneratorExit:
                    step._enter()
                    try:
                        inner.close()
                    except BaseException as error:
                        step._end(error)
                        raise
                    finally:
                        step._leave()
                        step._end(None)
                    raise
                except BaseException as error:  # noqa: BLE001  # handed on to the generator
                    go, sent = inner.throw, error

        return stepped

    def _async_generator(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        async def stepped(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
            step = self._again()
            step._begin()
            inner = function(*args, **kwargs)
            go, sent = inner.asend, None
            while True:
                step._enter()
                try:
                    item = await go(sent)
                except StopAsyncIteration:
                    step._end(None)
                    return
                except BaseException as error:
                    step._end(error)
                    raise
                finally:
                    step._leave()
                try:
                    sent = yield item
                    go = inner.asend
                except GeneratorExit:
                    step._enter()
                    try:
                        await inner.aclose()
                    except BaseException as error:
                        step._end(error)
                        raise
                    finally:
                        step._leave()
                        step._end(None)
                    raise
                except BaseException as error:  # noqa: BLE001  # handed on to the generator
                    go, sent = inner.athrow, error

        return stepped

    def _begin(self) -> None:
        try:
            trace_id, parent = _TRACING.parent() or (new_trace_id(), b"")
            operation, thing = _OPERATIONS[self._kind]
            attributes = _TRACING.call_attributes(takes_prompt=False)
            attributes[names.KIND] = self._kind
            if operation:
                attributes[names.OPERATION] = operation
            if thing:
                attributes[thing] = self._name
            attributes.update((str(n), clean_value(v)) for n, v in (self._given or {}).items())
            self._attributes = attributes
            self._start_unix_ns = time.time_ns()
            self._start_ns = time.perf_counter_ns()
            self._ids = (trace_id, new_span_id(), parent)
        except Exception as error:  # noqa: BLE001  # named edge guard: costs the span, not the step
            give_up(_TRACING, "step", error)

    def _enter(self) -> None:
        if self._ids is not None:
            try:
                self._active = _TRACING.activate(self._ids[0], self._ids[1])
            except Exception as error:  # noqa: BLE001  # named edge guard: costs the link, not the step
                give_up(_TRACING, "step", error)

    def _leave(self) -> None:
        active, self._active = self._active, None
        if active is not None:
            _TRACING.deactivate(active)

    def _end(self, error: BaseException | None) -> None:
        ids, self._ids = self._ids, None
        if ids is None:
            return
        try:
            self._record(ids, error)
        except Exception as problem:  # noqa: BLE001  # named edge guard: costs the span, not the step
            give_up(_TRACING, "step", problem)

    def _record(self, ids: tuple[bytes, bytes, bytes], error: BaseException | None) -> None:
        message = ""
        if error is not None:
            self._attributes[names.ERROR_TYPE] = error_type_of(error)
            if _TRACING.content_captured:
                with masked(_TRACING.mask):
                    message = Room().text(str(error))
        operation = _OPERATIONS[self._kind][0]
        trace_id, span_id, parent = ids
        _TRACING.record(
            Span(
                trace_id=trace_id,
                span_id=span_id,
                parent_span_id=parent,
                name=f"{operation} {self._name}".lstrip(),
                kind=SpanKind.INTERNAL,
                start_unix_ns=self._start_unix_ns,
                end_unix_ns=self._start_unix_ns + time.perf_counter_ns() - self._start_ns,
                status=SpanStatus.UNSET if error is None else SpanStatus.ERROR,
                status_message=message,
                attributes=self._attributes,
            )
        )

    def _content(self, name: str, value: Any) -> None:
        try:
            if _TRACING.content_captured:
                with masked(_TRACING.mask):
                    self._attributes[name] = Room().text(value)
        except Exception as error:  # noqa: BLE001  # named edge guard
            give_up(_TRACING, "step", error)
