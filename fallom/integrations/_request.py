"""The context of one request of a server, entered for each part of its work."""

from __future__ import annotations

from collections.abc import Mapping

from fallom._active_span import step_here
from fallom._context import RequestContext
from fallom._core.propagation import SESSION_HEADER, TRACEPARENT, TRACESTATE, Carried, read_headers
from fallom._propagation import enter, leave

__all__ = ["HEADERS", "Request"]

HEADERS = (TRACEPARENT, TRACESTATE, SESSION_HEADER)


class Request:
    """A block is a part of the request's work: it has what earlier blocks set, and leaves nothing behind.

    So it is with session, prompt, and a step that is open between blocks. A server may run the blocks in
    different threads, though not two at a time.
    """

    __slots__ = ("_apart", "_carried")

    def __init__(self, headers: Mapping[str, str | bytes] | None = None) -> None:
        """Begin with what surrounds the first block.

        Args:
            headers: To take session and parent from; None takes nothing.
        """
        self._carried = Carried() if headers is None else read_headers(headers)
        self._apart: RequestContext | None = None

    def __enter__(self) -> None:
        is_first = self._apart is None
        enter(self._carried, self, is_remote=is_first)
        if self._apart is None:
            self._apart = RequestContext()
        else:
            self._apart.swap()

    def __exit__(self, *_: object) -> None:
        if self._apart is not None:
            self._apart.swap()
        self._carried = Carried(parent=step_here())
        leave(self)
