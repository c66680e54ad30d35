"""The soak: the proofs of the tests at full size, and their figures as a table.

Kills workers and flushers at random, sweeps every system call of a worker's and a flusher's cycle, damages
every kind of file, fuzzes all that reads from disk or from the server, drains a big backlog, and runs
every cell of the servers', queues' and jobs' tests. Exits with 1 if anything is not as promised.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.soaking.backlog import backlog  # noqa: E402 - found by the line above
from scripts.soaking.cloud import Report  # noqa: E402
from scripts.soaking.damage import damage  # noqa: E402
from scripts.soaking.fuzz import fuzz  # noqa: E402
from scripts.soaking.hosts import hosts  # noqa: E402
from scripts.soaking.kills import kill  # noqa: E402
from scripts.soaking.sweep import sweep  # noqa: E402

STEPS: dict[str, Callable[[Path, Any], tuple[Report, list[str]]]] = {
    "kills": kill,
    "sweep": sweep,
    "damage": damage,
    "fuzz": fuzz,
    "backlog": backlog,
    "hosts": hosts,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=2000)
    parser.add_argument("--spans", type=int, default=1_000_000, help="at least, while killing")
    parser.add_argument("--stride", type=int, default=1, help="of points in the database, one in n")
    parser.add_argument("--rounds", type=int, default=20, help="of damage, each file anew")
    parser.add_argument("--examples", type=int, default=2000, help="of each property")
    parser.add_argument(
        "--fuzz-seconds", type=int, default=600, help="of the coverage-guided fuzzer"
    )
    parser.add_argument("--backlog-mib", type=int, default=1024)
    parser.add_argument("--segments", type=int, default=1000)
    parser.add_argument("--only", choices=list(STEPS), action="append", help="may be repeated")
    given = parser.parse_args()
    for name in [name for name in os.environ if name.startswith(("FALLOM_", "OTEL_"))]:
        del os.environ[name]
    failed = False
    for name in given.only or STEPS:
        started_s = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="fallom-soak-") as folder:
            report, problems = STEPS[name](Path(folder), given)
        report.append((f"{name}: took", f"{time.monotonic() - started_s:.0f} s"))
        for what, value in report:
            print(f"{what:<44}  {value}", flush=True)
        for problem in problems:
            print(f"NOT AS PROMISED: {problem}", file=sys.stderr, flush=True)
        failed = failed or bool(problems)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
