"""A runtime of its own for a while, whatever the application says; for tests of applications."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from fallom._core.settings import Settings
from fallom._runtime import HOLDER, current, reset, start

__all__ = ["diverted"]


@contextlib.contextmanager
def diverted(change: Callable[[Settings], Settings]) -> Iterator[None]:
    """Change the settings of every ``init`` in the block, and have a runtime of its own for it.

    Afterwards the runtime of before is in force again, untouched.
    """
    before, outer = HOLDER.runtime, HOLDER.change
    given = current()  # of ``init``, or of the environment; it opens nothing
    HOLDER.runtime, HOLDER.change = None, change
    try:
        start(given.settings, given.given_mask)
        yield
    finally:
        reset()
        HOLDER.runtime, HOLDER.change = before, outer
