"""What a wrapped LLM call costs beside the bare client's, in one process and one run.

The local cloud answers over loopback; bare and wrapped calls take turns, so that what else the machine
does hits both. The figure is CPU time of this process, median of the calls. The spans are counted at the
end: a run in which one is missing fails.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

MESSAGES = [{"role": "user", "content": "word " * 500}]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the calls")
    given = parser.parse_args()
    calls = 40 if given.quick else 400
    from fallom.dev.server import LocalCloud

    with LocalCloud() as cloud, tempfile.TemporaryDirectory(prefix="fallom-bench-") as folder:
        os.environ.update(cloud.environment(), FALLOM_STATE_DIR=folder, FALLOM_LINGER="1")
        os.environ["FALLOM_AUTO_INSTRUMENT"] = "false"  # the bare calls are to stay bare
        from openai import OpenAI

        import fallom

        fallom.init()
        bare = OpenAI()
        wrapped = fallom.session("app", "s").wrap_openai(bare)
        print("| call | bare, us CPU | wrapped, us CPU | overhead, us | ratio |")
        print("| --- | --- | --- | --- | --- |")
        for name, call in (("create", create), ("stream of about 500 chunks", stream)):
            bare_us, wrapped_us = compare(call, bare, wrapped, calls)
            more_us = wrapped_us - bare_us
            ratio = wrapped_us / bare_us
            print(f"| {name} | {bare_us:.0f} | {wrapped_us:.0f} | {more_us:.0f} | {ratio:.2f} |")
        assert fallom.flush(30) == 0
        delivered = cloud.stats()["spans"]["distinct"]
        assert delivered == 2 * calls, f"{delivered} spans of {2 * calls} wrapped calls"
        fallom.shutdown()
    return 0


def create(client: Any) -> None:
    client.chat.completions.create(model="gpt-4o", messages=MESSAGES)


def stream(client: Any) -> None:
    # Both ask for usage: that chunk is part of the work of either.
    for _ in client.chat.completions.create(
        model="gpt-4o", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    ):
        pass


def compare(
    call: Callable[[Any], None], bare: Any, wrapped: Any, calls: int
) -> tuple[float, float]:
    """Give the median CPU time of a bare and of a wrapped call, in microseconds."""
    took_us: dict[int, list[float]] = {0: [], 1: []}
    for _ in range(calls):
        for which, client in enumerate((bare, wrapped)):
            started_ns = time.process_time_ns()
            call(client)
            took_us[which].append((time.process_time_ns() - started_ns) / 1000)
    return statistics.median(took_us[0]), statistics.median(took_us[1])


if __name__ == "__main__":
    sys.exit(main())
