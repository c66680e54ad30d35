"""The soak: the proofs of the tests at full size, and their figures as a table.

Kills workers and flushers at random, sweeps every system call of a worker's and a flusher's cycle, damages
every kind of file, fuzzes all that reads from disk or from the server, and drains a big backlog. Exits
with 1 if anything is not as promised.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

STEPS = ("kills", "sweep", "damage", "fuzz", "backlog")
FLUSHER_SHARE = 0.1  # of the kills
WRITERS = 3
BURST = 10
CONFIG = "variants:\n  - {model: one, weight: 100}\n"
MIB = 1 << 20
PROMISED_START_S = 2.0
PROMISED_GROWTH_BYTES = 64 * MIB
FUZZED = (
    "tests/spool/test_frame.py tests/spool/test_model.py tests/snapshot/test_manifest.py "
    "tests/snapshot/test_schema.py tests/snapshot/test_entries.py"
).split()

Report = list[tuple[str, str]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=2000)
    parser.add_argument("--spans", type=int, default=1_000_000, help="at least, while killing")
    parser.add_argument("--stride", type=int, default=1, help="of points in the database, one in n")
    parser.add_argument("--rounds", type=int, default=20, help="of damage, each file anew")
    parser.add_argument("--examples", type=int, default=5000, help="of each property")
    parser.add_argument("--backlog-mib", type=int, default=1024)
    parser.add_argument("--segments", type=int, default=1000)
    parser.add_argument("--only", choices=STEPS, action="append", help="may be repeated")
    given = parser.parse_args()
    for name in [name for name in os.environ if name.startswith(("FALLOM_", "OTEL_"))]:
        del os.environ[name]
    steps: dict[str, Callable[[Path, Any], tuple[Report, list[str]]]] = {
        "kills": kill,
        "sweep": sweep,
        "damage": damage,
        "fuzz": fuzz,
        "backlog": backlog,
    }
    failed = False
    for name in given.only or STEPS:
        started_s = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="fallom-soak-") as folder:
            report, problems = steps[name](Path(folder), given)
        report.append((f"{name}: took", f"{time.monotonic() - started_s:.0f} s"))
        for what, value in report:
            print(f"{what:<44}  {value}", flush=True)
        for problem in problems:
            print(f"NOT AS PROMISED: {problem}", file=sys.stderr, flush=True)
        failed = failed or bool(problems)
    return 1 if failed else 0


def kill(folder: Path, given: Any) -> tuple[Report, list[str]]:
    """Kill at random while the spans asked for are recorded."""
    import fallom
    from fallom._flusher.ship import LaneLimits
    from tests.support.flushers import wait_for
    from tests.support.storm import SLOW_ANSWERS, Storm, count_delivered

    with _cloud(folder) as cloud:
        flusher_kills = int(given.kills * FLUSHER_SHARE)
        cloud.fault(SLOW_ANSWERS)
        takeovers: list[float] = []
        expected_s = given.kills * 0.05 + flusher_kills * 1.5
        pause_s = WRITERS * BURST * expected_s / given.spans
        with Storm(folder, WRITERS, BURST, pause_s) as storm:
            for number in range(given.kills):
                wanted = given.spans * number // given.kills
                while storm.acknowledged() < wanted:
                    time.sleep(0.001)
                time.sleep(random.uniform(0, 0.05))
                if number * flusher_kills // given.kills > storm.flusher_kills:
                    storm.kill_the_flusher()
                    killed_s = time.monotonic()
                    wait_for(storm.is_flusher_there, what="the next flusher")
                    takeovers.append(time.monotonic() - killed_s)
                else:
                    storm.kill_a_writer()
            storm.end()
            acknowledged = storm.sessions()
            fallom.init()
            left = fallom.flush(600)
            dropped = fallom.status()["dropped"]
            found = count_delivered(folder / "cloud.db")
    lost = acknowledged - found.sessions
    problems = [f"{len(lost)} lost, for example {sorted(lost)[:3]}"] if lost else []
    if left or dropped or found.forged:
        problems.append(f"left {left}, dropped {dropped}, forged {found.forged[:3]}")
    if found.repeated_requests > storm.flusher_kills:
        problems.append("more than one batch a kill was sent twice")
    if found.twice > storm.flusher_kills * LaneLimits().items_max:
        problems.append(f"{found.twice} were sent twice")
    report = [
        ("kills survived: workers, flushers", f"{storm.worker_kills}, {storm.flusher_kills}"),
        ("takeover while workers record, p50, max", _spread(takeovers)),
        ("spans acknowledged", str(len(acknowledged))),
        ("spans delivered, lost", f"{len(found.sessions)}, {len(lost)}"),
        ("spans sent twice, in batches", f"{found.twice}, {found.repeated_requests}"),
    ]
    return report, problems


def _spread(seconds: list[float]) -> str:
    ordered = sorted(seconds) or [0.0]
    return f"{ordered[len(ordered) // 2]:.2f} s, {ordered[-1]:.2f} s of {len(seconds)}"


def sweep(folder: Path, given: Any) -> tuple[Report, list[str]]:
    """Kill and fail every system call that changes a file."""
    from tests.support.strace import why_unusable
    from tests.support.sweep import flusher_sweep, worker_sweep

    if why_unusable():
        return [("points swept", f"none: {why_unusable()}")], []
    report, problems = [], []
    for name, make in (("worker", worker_sweep), ("flusher", flusher_sweep)):
        swept = make(folder, kinds=("signal", "error", "retval"))
        tried = 0
        for point, fault in swept.faults(given.stride, every_error=True):
            problem = swept.try_one(point, fault)
            problems += [problem] if problem else []
            tried += 1
        report.append((f"points of a {name}, faults tried", f"{len(swept.points())}, {tried}"))
    return report, problems


def damage(folder: Path, given: Any) -> tuple[Report, list[str]]:
    """Damage several files of a state directory at once, again and again."""
    import fallom
    from fallom import _runtime, models, trace
    from tests.support.damage import DAMAGES
    from tests.support.flushers import end_flushers

    chance = random.Random(given.rounds)
    state, problems, damaged = folder / "state", [], 0
    with _cloud(folder) as cloud:
        for turn in range(given.rounds):
            fallom.init()
            if not fallom.wait_until_ready(20) or models.get("app", "s", fallback="") != "one":
                problems.append(f"round {turn}: no config: {fallom.status()}")
            for number in range(100):
                trace.span({"n": number}, config_key="app", session_id=f"{turn}-{number}")
            left = fallom.flush(20)
            arrived = {row["attributes"]["fallom.session_id"] for row in cloud.spans()}
            lost = {f"{turn}-{number}" for number in range(100)} - arrived
            if left or lost:
                problems.append(f"round {turn}: {left} left, {len(lost)} lost")
            cloud.clear()
            _runtime.reset()
            end_flushers(state)
            for path in sorted(path for path in state.rglob("*") if path.is_file()):
                if chance.random() < 0.5:
                    chance.choice(list(DAMAGES.values()))(path, chance)
                    damaged += 1
    return [("files damaged", str(damaged)), ("rounds survived", str(given.rounds))], problems


def fuzz(folder: Path, given: Any) -> tuple[Report, list[str]]:
    """Run the properties of all that reads from disk or from the server, and the model, for long."""
    profile = folder / "soak_profile.py"
    profile.write_text(
        "from hypothesis import HealthCheck, settings\n"
        f"settings.register_profile('soak', max_examples={given.examples}, deadline=None,\n"
        "    suppress_health_check=list(HealthCheck))\n"
        "settings.load_profile('soak')\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "soak_profile", "--timeout=0"]
    environ = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    command += [*FUZZED, "--hypothesis-show-statistics", "--hypothesis-profile=soak"]
    ran = subprocess.run(
        command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False
    )
    counts = re.findall(r"- (\d+) passing,", ran.stdout)  # one a phase of a property
    properties = len(re.findall(r"^tests/.*::.*:$", ran.stdout, re.MULTILINE))
    cases = sum(int(count) for count in counts)
    report = [("properties fuzzed, cases", f"{properties}, {cases}")]
    return report, [ran.stdout[-3000:]] if ran.returncode else []


def backlog(folder: Path, given: Any) -> tuple[Report, list[str]]:
    """Drain a backlog of many segments."""
    from tests.support.backlog import drain, make_backlog

    os.environ["FALLOM_SPOOL_BYTES_MAX"] = str(4 * given.backlog_mib * MIB)
    with _cloud(folder) as cloud:
        spans = make_backlog(given.backlog_mib * MIB, given.segments, record_bytes=8192)
        found = drain(cloud, spans, timeout_s=3600)
        received = cloud.stats()["spans"]["received"]
    rate = given.backlog_mib / found.took_s
    report = [
        ("backlog", f"{spans} spans, {given.backlog_mib} MiB in {given.segments} segments"),
        ("first delivery after", f"{found.started_s:.2f} s"),
        ("drained in", f"{found.took_s:.1f} s ({rate:.0f} MiB/s)"),
        ("the flusher's memory grew by", f"{found.growth_bytes / MIB:.0f} MiB"),
    ]
    problems = []
    if found.started_s > PROMISED_START_S or found.growth_bytes > PROMISED_GROWTH_BYTES:
        problems.append("the backlog is slow to start, or costs too much memory")
    if received != spans:
        problems.append(f"{received - spans} were sent twice")
    return report, problems


class _cloud:  # noqa: N801 - used as a function
    """The local cloud, this process pointed at it, and no flusher left behind."""

    def __init__(self, folder: Path) -> None:
        from fallom.dev.server import LocalCloud

        self._state = folder / "state"
        served = folder / "served"
        (served / "configs").mkdir(parents=True)
        (served / "configs/app.yaml").write_text(CONFIG, encoding="utf-8")
        self._cloud = LocalCloud(served, db=folder / "cloud.db")

    def __enter__(self) -> Any:
        self._cloud.start()
        os.environ.update(self._cloud.environment())
        os.environ.update(FALLOM_STATE_DIR=str(self._state), FALLOM_LINGER="1")
        return self._cloud

    def __exit__(self, *_: object) -> None:
        from fallom import _runtime
        from tests.support.flushers import end_flushers

        _runtime.reset()
        end_flushers(self._state)
        self._cloud.stop()


if __name__ == "__main__":
    sys.exit(main())
