"""The calls that an application makes for every request, against the floor of the same run.

Each row is the median of 7 repeats, in microseconds and as a multiple of ``cal`` (md5 of 16 bytes, to an
integer, modulo), because absolute times mean nothing on a shared machine. What is written is read back
and counted: a row whose counts are wrong fails the run. Run it by ``scripts/bench``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPEATS = 7
NOWHERE = "http://127.0.0.1:9"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the calls")
    parser.add_argument("--json", metavar="PATH", help="write the rows here as well")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fallom-bench-") as folder:
        rows = measure(Path(folder), 2_000 if given.quick else 20_000)
    rows += import_rows()
    print(f"| call | us | x cal | x floor |\n| --- | --- | --- | --- |\n{table(rows)}")
    if given.json:
        Path(given.json).write_text(json.dumps(rows, indent=2))
    return 0


def table(rows: list[dict[str, Any]]) -> str:
    def cell(value: float | None) -> str:
        return "" if value is None else f"{value:.2f}"

    return "\n".join(
        f"| {row['call']} | {cell(row['us'])} | {cell(row.get('cal'))} | {cell(row.get('floor'))} |"
        for row in rows
    )


def measure(folder: Path, calls: int) -> list[dict[str, Any]]:
    os.environ.update(
        FALLOM_STATE_DIR=str(folder / "state"),
        FALLOM_FLUSHER="external",
        FALLOM_CONFIGS_URL=NOWHERE,
        FALLOM_PROMPTS_URL=NOWHERE,
        FALLOM_TRACES_URL=NOWHERE,
    )
    import fallom
    from fallom import models, prompts, trace

    fallom.init()
    publish()
    data = {f"metric_{number}": number * 1.5 for number in range(10)}
    variables = dict.fromkeys("abcde", "value")
    sixteen = os.urandom(16)

    def cal(_: int) -> int:
        return int.from_bytes(hashlib.md5(sixteen).digest()[:4], "big") % 1_000_000

    import msgpack

    descriptor = os.open(folder / "floor", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def floor_of_a_record(_: int) -> None:
        os.write(descriptor, msgpack.packb(["app", "s", data]))

    cal_us = timed(cal, calls * 5)
    write_us = timed(floor_of_a_record, calls)
    rows = [
        {"call": "cal", "us": cal_us, "cal": 1.0},
        {"call": "floor of a record: pack and write", "us": write_us, "cal": write_us / cal_us},
    ]
    counter = iter(range(10**9))
    for name, call, floor_us in [
        ("models.get, warm", lambda _: models.get("app", "s", fallback="f"), cal_us),
        (
            "models.get, first of a session",
            lambda _: models.get("app", f"s{next(counter)}", fallback="f"),
            write_us,
        ),
        ("prompts.get, 5 variables", lambda _: prompts.get("p", variables), None),
        ("prompts.get_ab, 5 variables", lambda _: prompts.get_ab("t", "s", variables), None),
        ("trace.span, 10 attributes", lambda _: trace.span(data, "app", "s"), write_us),
    ]:
        us = timed(call, calls)
        row = {"call": name, "us": us, "cal": us / cal_us}
        rows.append(row if floor_us is None else {**row, "floor": us / floor_us})
    os.close(descriptor)
    fallom.shutdown()
    check(calls)
    return rows


def publish() -> None:
    from fallom import _runtime
    from fallom._snapshot.entries import Kind
    from fallom._snapshot.publish import Publisher
    from fallom._snapshot.schema import read_listing

    place = _runtime.current().open_place()
    variants = [{"model": "one", "weight": 50}, {"model": "two", "weight": 50}]
    template = "{{a}} and {{b}} and {{c}}"
    payloads = {
        Kind.CONFIG: {"configs": [{"key": "app", "version": 1, "variants": variants}]},
        Kind.PROMPT: {
            "prompts": [
                {
                    "key": "p",
                    "version": 1,
                    "system_prompt": template,
                    "user_template": "{{d}} {{e}}",
                }
            ]
        },
        Kind.AB_TEST: {
            "prompt_ab_tests": [
                {"key": "t", "version": 1, "variants": [{"prompt_key": "p", "weight": 100}]}
            ]
        },
    }
    listings = [read_listing(kind, payload) for kind, payload in payloads.items()]
    place.page.set_generation(Publisher(Path(place.directory.snapshot_path)).publish(listings))


def check(calls: int) -> None:
    """Count what was written: nothing that was timed may have been dropped."""
    import fallom
    from fallom import _runtime
    from fallom._flusher.targets import target_hashes
    from fallom._spool.survey import count_left, marks_of

    runtime = _runtime.current()
    spool, targets = runtime.open_place().directory.spool, target_hashes(runtime.settings)
    written = count_left(spool, marks_of(spool, targets), targets)
    expected = calls * REPEATS * 2 + 1  # trace.span, first exposures, and that of the warm session
    assert written == expected, f"{written} records were written, {expected} were recorded"
    assert not fallom.status()["dropped"]


def import_rows() -> list[dict[str, Any]]:
    """Measure ``import fallom`` and ``init`` in new processes, by CPU time and memory."""
    code = """
import os, resource, time
def memory(): return int(open("/proc/self/statm").read().split()[1]) * 4 / 1024
before_s, before_mib = time.process_time(), memory()
if {load}: import fallom; fallom.init()
print(time.process_time() - before_s, memory() - before_mib)
"""
    rows = []
    for name, load in (("nothing, in a new process", False), ("import fallom, init", True)):
        pairs = []
        for _ in range(REPEATS):
            with tempfile.TemporaryDirectory(prefix="fallom-bench-") as folder:
                environ = {**os.environ, "FALLOM_STATE_DIR": folder, "FALLOM_FLUSHER": "external"}
                out = subprocess.check_output(
                    [sys.executable, "-c", code.format(load=load)], env=environ, text=True
                )
            pairs.append([float(part) for part in out.split()])
        cpu_s, mib = (statistics.median(column) for column in zip(*pairs, strict=True))
        rows.append({"call": f"{name} (+{mib:.1f} MiB)", "us": cpu_s * 1e6})
    return rows


def timed(call: Callable[[int], Any], calls: int) -> float:
    """Give the median over the repeats of one call's time, in microseconds."""
    each = []
    for _ in range(REPEATS):
        started_ns = time.perf_counter_ns()
        for number in range(calls):
            call(number)
        each.append((time.perf_counter_ns() - started_ns) / calls / 1000)
    return statistics.median(each)


if __name__ == "__main__":
    sys.exit(main())
