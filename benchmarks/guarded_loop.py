"""One of the guarded calls in a loop, for ``benchmarks/guard.py`` to count the instructions of."""

from __future__ import annotations

import gc
import os
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent / "adapters")]

from driver import cal  # noqa: E402
from fallom_now import PATHS  # noqa: E402

GUARDED = {
    "cal": None,
    "models.get": "models.get",
    "models.first": "models.first",
    "prompts.get": "prompts.get",
    "trace.span": "span",
}


def main(name: str, calls: int) -> None:
    """Call it so often, and end without exit hooks."""
    path = GUARDED[name]
    # The clock stands still: under valgrind a run takes seconds, and what is done once a second (the look,
    # the check of open files) would count more often the busier the machine is.
    now_ns, now_s = time.monotonic_ns(), time.monotonic()
    time.monotonic_ns, time.monotonic = (lambda: now_ns), (lambda: now_s)
    call = cal if path is None else PATHS[path]({}).call
    for number in range(20):  # what is done once is done here: segments, caches
        call(-1 - number)
    gc.disable()
    for number in range(calls):
        call(number)
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
