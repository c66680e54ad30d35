"""The command line of the benchmarks; run it by ``scripts/bench``."""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.receiver import Receiver
from benchmarks.report import Report

CASES = (
    "reading",
    "recording",
    "flooding",
    "flusher",
    "starting",
    "wrapped",
    "snapshots",
    "hosting",
    "host_times",
    "scaling",
)


def main() -> int:
    """Run what is asked for, and write the results."""
    modules = {case: importlib.import_module(f"benchmarks.cases.{case}") for case in CASES}
    names = [name for module in modules.values() for name in module.NAMES]
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help="which; all if none is given")
    parser.add_argument("--quick", action="store_true", help="less of everything: under 2 minutes")
    parser.add_argument("--list", action="store_true", help="tell the names")
    parser.add_argument("--store", action="store_true", help="a quick run for the pages as well")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--output", type=Path, help="where results go; for others than the stored")
    given = parser.parse_args()
    if given.list:
        for case, module in modules.items():
            print(f"{case}: {' '.join(module.NAMES)}")
        return 0
    unknown = set(given.names) - set(names)
    if unknown:
        parser.error(
            f"no such benchmark: {', '.join(sorted(unknown))}; there are {' '.join(names)}"
        )
    report = Report.of_this_machine(sys.argv[1:], given.quick and not given.store, given.output)
    with tempfile.TemporaryDirectory(prefix="fallom-bench-") as folder, Receiver() as receiver:
        bench = Bench(Path(folder), receiver, given.quick, repeats=given.repeats)
        for module in modules.values():
            for name in module.NAMES:
                if given.names and name not in given.names:
                    continue
                receiver.clear()
                started_s = time.monotonic()
                for table in module.run(bench, (name,)):
                    report.add(table, time.monotonic() - started_s)
        report.missing = bench.missing
    report.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
