"""The context of one request of a server, entered for each part of its work."""

from __future__ import annotations

from collections.abc import Mapping

from fallom._active_span import Replaced, give_back, keep_parent, step_here
from fallom._context import RequestContext
from fallom._core.propagation import SESSION_HEADER, TRACEPARENT, TRACESTATE, Carried, read_headers
from fallom._propagation import enter, leave

__all__ = ["HEADERS", "Request"]

HEADERS = (TRACEPARENT, TRACESTATE, SESSION_HEADER)

_NOTHING = Carried()


class Request:
    """A block is a part of the request's work: it has what earlier blocks set, and leaves nothing behind.

    So it is with session, prompt, and a step that is open between blocks. A server may run the blocks in
    different threads, though not two at a time.
    """

    __slots__ = ("_apart", "_carried", "_kept")

    def __init__(self, headers: Mapping[str, str | bytes] | None = None) -> None:
        """Begin with what surrounds the first block.

        Args:
            headers: To take session and parent from; None takes nothing.
        """
        self._carried = _NOTHING if headers is None else read_headers(headers)
        self._apart: RequestContext | None = None
        # What was active before a block into which nothing is carried, as nearly always: 2 us less.
        self._kept: Replaced | None = None

    def __enter__(self) -> None:
        if any(self._carried):
            self._kept = None
            enter(self._carried, self, is_remote=self._apart is None)
        else:
            self._kept = keep_parent()
        if self._apart is None:
            self._apart = RequestContext()
        else:
            self._apart.swap()

    def __exit__(self, *_: object) -> None:
        if self._apart is not None:
            self._apart.swap()
        step = step_here()
        self._carried = _NOTHING if step is None else Carried(parent=step)
        if self._kept is None:
            leave(self)
        elif step is not self._kept.ours:
            give_back(self._kept)
