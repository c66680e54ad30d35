"""What publishes tasks, in a process of its own: reads code from a pipe, and answers with JSON."""

from __future__ import annotations

import gc
import json
import sys
import traceback
from typing import Any

import tests.support.celery_app as application


def get(result: Any) -> Any:
    return result.get(timeout=60, interval=0.02)


def main() -> None:
    # A result that the collector drops says so to Redis, with whose older clients it then waits for the
    # lock of the very command that was collected in.
    gc.disable()
    names = {**vars(application), "get": get}
    for line in sys.stdin:
        names["found"] = None
        try:
            exec(json.loads(line), names)  # the test's own code
            answer = {"found": names["found"]}
        except BaseException:
            answer = {"error": traceback.format_exc()}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
