"""Random ids of spans, drawn in advance: never the same ones in two processes, however they were forked."""

from __future__ import annotations

import os
import struct
from typing import Any

from fallom._host.forks import ForkMark, new_mark

__all__ = ["Ids"]

_DRAWN_AT_ONCE = 64
_PAIR = struct.Struct("16s8s")


class Ids:
    """The ids of one process; for any thread, and for a signal handler that interrupts it.

    From the operating system, whose generator is never the same in two processes; 64 pairs at a time,
    because a call to it takes 280 ns and most of that is the call.
    """

    __slots__ = ("_pool",)

    def __init__(self) -> None:
        """Draw nothing yet."""
        # In one reference, so that nobody takes from a parent's ids under the mark of the child.
        self._pool: tuple[ForkMark, list[tuple[Any, ...]]] = new_mark(), []

    def new(self) -> tuple[bytes, bytes]:
        """Give (trace id, span id), 16 and 8 random bytes that nobody else gets."""
        mark, left = self._pool
        try:
            trace_id, span_id = left.pop()
        except IndexError:
            return self._draw()
        # After the take, not before: of a fork between the two the child is told here.
        return (trace_id, span_id) if mark[0] else self._draw()

    def _draw(self) -> tuple[bytes, bytes]:
        mark = self._pool[0]
        left = list(_PAIR.iter_unpack(os.urandom(_PAIR.size * _DRAWN_AT_ONCE)))
        trace_id, span_id = left.pop()
        self._pool = (mark if mark[0] else new_mark()), left
        return trace_id, span_id
