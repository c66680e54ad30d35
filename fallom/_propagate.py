"""A callable that takes the context along in which it was handed over: for pools that do not."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, TypeVar

from fallom._context import CURRENT_PROMPT, PromptTag, TagFields
from fallom._core.propagation import Carried
from fallom._propagation import carried_here, enter, leave

__all__ = ["Propagated", "propagated"]

F = TypeVar("F", bound=Callable[..., Any])


def propagated(function: F) -> F:
    """Give ``function`` so that each call has the session and the parent of this moment."""
    carried, prompt = carried_here(), CURRENT_PROMPT.get()
    wrapped: Any
    if inspect.isasyncgenfunction(function):
        wrapped = _async_generator(function, carried, prompt)
    elif inspect.isgeneratorfunction(function):
        wrapped = _generator(function, carried, prompt)
    elif inspect.iscoroutinefunction(function):
        wrapped = _coroutine(function, carried, prompt)
    else:
        wrapped = Propagated(function, carried, prompt)
    return wrapped  # type: ignore[no-any-return]


class _Block:
    """What was carried, in force within a ``with`` block; entered as often as is needed."""

    def __init__(self, carried: Carried, prompt: list[PromptTag | TagFields] | None) -> None:
        self._carried = carried
        self._prompt = prompt

    def __enter__(self) -> None:
        enter(self._carried, self, is_whole=True, is_remote=False)
        CURRENT_PROMPT.set(self._prompt)

    def __exit__(self, *_: object) -> None:
        leave(self)


class Propagated:
    """A plain callable with its context. It can be pickled if the function can; a prompt tag stays here."""

    def __init__(
        self,
        function: Callable[..., Any],
        carried: Carried,
        prompt: list[PromptTag | TagFields] | None = None,
    ) -> None:
        """Use ``trace.propagate``."""
        functools.update_wrapper(self, function)
        self._function = function
        self._carried = carried
        self._prompt = prompt

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        with _Block(self._carried, self._prompt):
            return self._function(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return Propagated, (self._function, self._carried)


def _coroutine(
    function: Callable[..., Any], carried: Carried, prompt: list[PromptTag | TagFields] | None
) -> Callable[..., Any]:
    @functools.wraps(function)
    async def called(*args: Any, **kwargs: Any) -> Any:
        with _Block(carried, prompt):
            return await function(*args, **kwargs)

    return called


def _generator(
    function: Callable[..., Any], carried: Carried, prompt: list[PromptTag | TagFields] | None
) -> Callable[..., Any]:
    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        block = _Block(carried, prompt)
        inner = function(*args, **kwargs)
        go, sent = inner.send, None
        while True:
            try:
                with block:
                    item = go(sent)
            except StopIteration as stop:
                return stop.value
            try:
                sent = yield item
                go = inner.send
            except GeneratorExit:
                with block:
                    inner.close()
                raise
            except BaseException as error:  # noqa: BLE001  # handed on to the generator
                go, sent = inner.throw, error

    return called


def _async_generator(
    function: Callable[..., Any], carried: Carried, prompt: list[PromptTag | TagFields] | None
) -> Callable[..., Any]:
    @functools.wraps(function)
    async def called(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        block = _Block(carried, prompt)
        inner = function(*args, **kwargs)
        go, sent = inner.asend, None
        while True:
            try:
                with block:
                    item = await go(sent)
            except StopAsyncIteration:
                return
            try:
                sent = yield item
                go = inner.asend
            except GeneratorExit:
                with block:
                    await inner.aclose()
                raise
            except BaseException as error:  # noqa: BLE001  # handed on to the generator
                go, sent = inner.athrow, error

    return called
