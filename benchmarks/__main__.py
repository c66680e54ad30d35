"""The command line of the benchmarks; run it by ``scripts/bench``.

A table is stored as soon as it is finished, so that a run that is cut off keeps what it has. A table whose
answers or counts are wrong is not stored; the run goes on and ends with 1.
"""

from __future__ import annotations

import argparse
import importlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.contestant import ContestantError
from benchmarks.receiver import Receiver
from benchmarks.report import Report, stored
from benchmarks.table import Table
from benchmarks.times import Times

CASES = (
    "reading",
    "recording",
    "flooding",
    "flusher",
    "starting",
    "wrapped",
    "middleware",
    "snapshots",
    "hosting",
    "host_times",
    "scaling",
    "profiles",
)
REPEATS = 7
ONLY_BY_NAME = {"profile"}  # counts, which need no machine of their own, and some minutes of it
CUT_OFF = 130  # as shells have it for an interrupt


def tables() -> dict[str, Callable[[Bench], Table]]:
    """Give every table's benchmark by name, in the order of a run."""
    modules = [importlib.import_module(f"benchmarks.cases.{case}") for case in CASES]
    return {name: make for module in modules for name, make in module.TABLES.items()}


def main() -> int:
    """Run what is asked for, and write the results."""
    makers = tables()
    given = _given(list(makers))
    times = Times.of("quick" if given.quick else "full")
    if given.list:
        for name in makers:
            print(f"{name:<14} {times.told(name)}")
        return 0
    report = Report.of_this_machine(sys.argv[1:], given.quick and not given.store, given.output)
    if given.draw:
        report.draw(stored(report.folder))
        return 0
    names = given.names or [name for name in makers if name not in ONLY_BY_NAME]
    print(f"{len(names)} tables, {times.estimate(names)}", flush=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        wrong = _run(makers, names, given, report, times)
    except KeyboardInterrupt:
        print("cut off: what was finished is stored", file=sys.stderr, flush=True)
        report.finish()
        return CUT_OFF
    report.finish()
    for name, why in wrong.items():
        print(f"WRONG: {name}: {why}", file=sys.stderr, flush=True)
    return 1 if wrong else 0


def _given(names: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help="which; all if none is given")
    parser.add_argument("--quick", action="store_true", help="less of everything: under 2 minutes")
    parser.add_argument("--list", action="store_true", help="tell the names")
    parser.add_argument("--store", action="store_true", help="a quick run for the pages as well")
    parser.add_argument("--draw", action="store_true", help="pages and plots of stored results")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--output", type=Path, help="where results go; for others than the stored")
    given = parser.parse_args()
    unknown = set(given.names) - set(names)
    if unknown:
        parser.error(
            f"no such benchmark: {', '.join(sorted(unknown))}; there are {' '.join(names)}"
        )
    return given


def _run(
    makers: dict[str, Callable[[Bench], Table]],
    names: list[str],
    given: argparse.Namespace,
    report: Report,
    times: Times,
) -> dict[str, str]:
    """Run them one after the other; give why, of those that were wrong."""
    wrong: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="fallom-bench-") as folder, Receiver() as receiver:
        for number, name in enumerate(names):
            bench = Bench(Path(folder), receiver, given.quick, given.repeats)
            receiver.clear()
            started_s = time.monotonic()
            try:
                table = makers[name](bench)
            except (AssertionError, ContestantError, OSError, subprocess.SubprocessError) as error:
                wrong[name] = f"{type(error).__name__}: {error}"
                print(f"WRONG: {name}: {wrong[name]}", file=sys.stderr, flush=True)
                continue
            took_s = time.monotonic() - started_s
            report.add(table, bench.missing)
            if given.repeats == REPEATS and given.output is None:
                times.put(name, took_s)
            left = times.estimate(names[number + 1 :])
            print(f"\n[{name}: {took_s:.0f} s; to come: {left}]", flush=True)
    return wrong


if __name__ == "__main__":
    sys.exit(main())
