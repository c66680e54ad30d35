"""Custom metrics, steps of one's own, and what of a context says whose they are: set, carried, taken in."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from fallom._active_span import active_span
from fallom._arguments import check_text, metadata_of, tags_of
from fallom._context import CURRENT_SESSION
from fallom._core.errors import NoSessionError
from fallom._core.span import AttributeValue
from fallom._core.span import SessionContext as Session
from fallom._host.counts import Drop
from fallom._runtime import HOLDER, current
from fallom._spool.frame import Kind, RecordError
from fallom._spool.segment import Destination

if TYPE_CHECKING:
    from fallom._propagation import Extracted
    from fallom._step import Step

__all__ = [
    "clear_session",
    "extract",
    "get_session",
    "inject",
    "propagate",
    "set_session",
    "span",
    "step",
]

F = TypeVar("F", bound=Callable[..., Any])

_METRICS, _METRIC = Destination.METRICS, Kind.METRICS  # a member of an enum costs 60 ns


def set_session(
    config_key: str,
    session_id: str,
    customer_id: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    tags: Sequence[str] | None = None,
) -> None:
    """Set the session of this context (thread or task), until it is set anew or cleared.

    A server that serves many requests by one thread must clear it after each, or the next request
    inherits it; ``with fallom.session(...)`` does so by itself.

    Args:
        config_key: The config's key, under which traces are grouped.
        session_id: The conversation's or request's id.
        customer_id: The end user.
        metadata: Anything worth knowing, by name; what is no mapping gets the name ``value``.
        tags: Words to find it by; one text is one tag.
    """
    given = metadata_of(metadata), tags_of(tags)
    CURRENT_SESSION.set(Session(config_key, session_id, customer_id, *given))


def get_session() -> dict[str, Any] | None:
    """Give the session of this context, without the parts that were not given; None if there is none."""
    session = CURRENT_SESSION.get()
    if session is None:
        return None
    given = session._asdict()
    given["tags"] = list(session.tags)
    return {name: value for name, value in given.items() if value}


def clear_session() -> None:
    """Clear the session of this context."""
    CURRENT_SESSION.set(None)


def span(
    data: Mapping[str, Any],
    config_key: str | None = None,
    session_id: str | None = None,
) -> None:
    """Record custom metrics of a session; the latest value per field wins.

    It is in the kernel when this returns, and so survives this process.

    Args:
        data: Names to numbers, texts or flags; anything else is recorded as JSON text.
        config_key: The config's key; by default that of the context's session.
        session_id: The session's id; by default that of the context's session.

    Raises:
        NoSessionError: No session was given and none is set. (It is a ValueError.)
        TypeError: ``data`` is no mapping, or a key or id no text.

    Blocks:
        For one write to a file.
    """
    if type(data) is not dict and not isinstance(data, Mapping):
        raise TypeError(f"data must be a mapping of names to values, not {type(data).__name__}")
    session = CURRENT_SESSION.get()
    if config_key is None or session_id is None:
        if session is None:
            raise NoSessionError(
                "trace.span has no session: give config_key= and session_id=, call "
                "trace.set_session(...) first, or use `with fallom.session(...)`."
            )
        config_key = config_key or session.config_key
        session_id = session_id or session.session_id
    if type(config_key) is not str or type(session_id) is not str:
        check_text(config_key=config_key, session_id=session_id)
    if session is not None and session.session_id != session_id:
        session = None
    runtime = HOLDER.runtime or current()
    try:
        if type(data) is not dict:
            data = dict(data)
        trace_id, span_id = runtime.ids.new()
        parent = active_span()
        if parent is not None:
            trace_id = parent[0]
        now_ns = time.time_ns()
        payload = runtime.metrics.packed(
            trace_id, span_id, now_ns, config_key, session_id, session, data
        )
    except RecordError:
        runtime.count_drop(Drop.NOT_ENCODABLE)
    except Exception as error:  # noqa: BLE001 - the edge guard of this call
        runtime.gave_up("trace.span", error)
    else:
        runtime.record(_METRICS, _METRIC, payload)


def step(
    name: str,
    kind: Literal["tool", "retrieval", "agent", "chain"] = "chain",
    attributes: Mapping[str, AttributeValue] | None = None,
) -> Step:
    """Make a span of a step of your own; calls to models and steps within it are its children.

        with trace.step("search", kind="retrieval") as search:
            search.set_attribute("documents", len(found))

        @trace.step("weather", kind="tool")
        async def weather(city): ...

    A function may be plain, asynchronous, or a generator of either kind. The span is of the session of
    the context, and of the OpenTelemetry span that is active, if there is one. It is recorded when the
    step ends, with the class of the exception that ended it.

    Args:
        name: What it is: a tool's name, say.
        kind: What kind of thing it is.
        attributes: Names to values; recorded in privacy mode too.

    Raises:
        ConfigurationError: ``kind`` is none of these. (It is a ValueError.)
        TypeError: ``name`` is no text: it is a function where the decorator has no parentheses.
    """
    from fallom._step import Step  # paid for by those who use it

    return Step(name, kind, attributes)


def inject(headers: MutableMapping[str, str], *, with_session: bool = True) -> None:
    """Write what this context says into headers of a request or a message, for ``extract``.

    ``traceparent`` (and ``tracestate``) of W3C Trace Context name the active span: a step, a traced
    call, or OpenTelemetry's span. ``fallom`` is the session: config key, session id, customer, tags and
    metadata, in at most 4096 characters; what does not fit of the latter three is left out. Where there
    is no span, or no session, its headers are not written. Headers of these names are written over.

    Nothing writes them by itself but the integration of Celery, into its tasks: a request to somebody
    else gets ``with_session=False``, or his log has your customers.

    Args:
        headers: A mapping to write to.
        with_session: False leaves the session out.
    """
    from fallom._propagation import headers_here  # paid for by those who use it

    try:
        written = headers_here(with_session)
    except Exception as error:  # noqa: BLE001 - the edge guard of this call: metadata may be anything
        current().gave_up("trace.inject", error)
        return
    for name, value in written.items():
        headers[name] = value


def extract(headers: Mapping[Any, Any]) -> Extracted:
    """Take in what ``inject`` wrote elsewhere: a context manager, for ``with`` and ``async with``.

        with trace.extract(message.headers):
            ...  # spans are of that session, and children of that span

    Behind the block session and active span are what they were. What is not in the headers stays as it
    is within the block too, and a header that is damaged counts as one that is not there: this never
    raises. Where OpenTelemetry has taken the same trace from the headers already, its span is the parent.

    Anybody can write such headers: take them from your own services only, not from the internet.

    Args:
        headers: Names, in any case, to values.
    """
    from fallom._propagation import Extracted  # paid for by those who use it

    return Extracted(headers)


def propagate(function: F) -> F:
    """Give a function with the session and the active span of this moment, for another thread or process.

        pool.submit(trace.propagate(summarize), document)

    A thread of a pool has no session of its own, unlike an asyncio task or ``asyncio.to_thread``, which
    copy the context. Call this where work is handed over; as a decorator it would take what is there
    when the function is defined.

    Functions, coroutine functions, and generators of either kind; of a generator each piece of its own
    code has it. A plain function can be pickled with it, for a pool of processes, if it can be pickled
    itself and the session's metadata can; a prompt's tag stays in this process.

    Args:
        function: What to call there.
    """
    from fallom._propagate import propagated  # paid for by those who use it

    return propagated(function)


# The names of the releases before 0.3, paid for by those who use them.
_EARLIER = {
    "fallom": "FallomSession session",
    "fallom.trace.core": (
        "get_api_key get_base_url init is_debug_mode is_initialized send_trace send_trace_sync "
        "should_capture_content shutdown"
    ),
    "fallom.trace.types": "SessionContext SessionOptions TraceContext TraceData WaterfallTimings",
    "fallom.trace.wrappers": (
        "FallomCallbackHandler callback_handler_from_session wrap_anthropic wrap_google_ai wrap_openai"
    ),
}


if TYPE_CHECKING:  # who would take any name for one of this module if they saw the function below
    from fallom.session import FallomSession, session
    from fallom.trace import core, types, wrappers
    from fallom.trace.core import *  # noqa: F403
    from fallom.trace.types import *  # noqa: F403
    from fallom.trace.wrappers import *  # noqa: F403

    __all__ += ["FallomSession", "session"]
    __all__ += core.__all__
    __all__ += types.__all__
    __all__ += wrappers.__all__
else:

    def __getattr__(name: str) -> Any:
        """Give a name of the releases before 0.3; for ``utils`` its ImportError says what to use."""
        if name == "utils":
            importlib.import_module("fallom.trace.utils")
        for module, names in _EARLIER.items():
            if name in names.split():
                return getattr(importlib.import_module(module), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
