"""The guard: a hot path that has become half as dear again is seen, on any machine.

Instructions are counted by valgrind's callgrind, not time: for each path the difference between two
lengths of a loop, so that start-up cancels out, per call. They are compared with ``guard_baseline.json``,
which has figures for each minor version of Python; ``scripts/guard --renew`` writes those of this one.
Where valgrind or a baseline is missing, the CPU time of the paths is compared with that of ``cal``, at a
limit wide enough for noise.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
BASELINE = HERE / "guard_baseline.json"
PATHS = ("models.get", "models.first", "prompts.get", "trace.span")
LIMIT = 1.5
SHORT, LONG = 50, 2050
TIMED_LIMIT = 2.5  # of ratios to cal by CPU time: noise of a shared machine stays below it
TIMED_CALLS = 3000
_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


def main() -> int:
    """Compare, or renew the baseline."""
    parser = argparse.ArgumentParser(prog="scripts/guard", description=__doc__)
    parser.add_argument(
        "--renew", action="store_true", help="store what is measured as the baseline"
    )
    parser.add_argument("--only", choices=PATHS, help="one path")
    parser.add_argument("--timed", action="store_true", help="by time, although valgrind is there")
    given = parser.parse_args()
    stored = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    has_valgrind = shutil.which("valgrind") is not None and not given.timed
    if given.renew:
        if not has_valgrind:
            parser.error("valgrind is needed for a baseline")
        found = {"instructions": counted(), "times cal": timed()}
        stored[_VERSION] = found
        BASELINE.write_text(json.dumps(dict(sorted(stored.items())), indent=1) + "\n")
        print(json.dumps(found, indent=1))
        return 0
    known = stored.get(_VERSION)
    if has_valgrind and known is not None:
        return compare(
            counted([given.only] if given.only else PATHS),
            known["instructions"],
            LIMIT,
            "instructions a call",
        )
    known = known or stored[max(stored, key=lambda version: int(version.split(".")[1]))]
    print("by time, which sees less: there is no valgrind, or no baseline of this Python")
    return compare(timed(), known["times cal"], TIMED_LIMIT, "x cal")


def compare(found: dict[str, float], known: dict[str, float], limit: float, unit: str) -> int:
    """Print each path beside its baseline; 1 if one is dearer than the limit allows."""
    dear = []
    for name, cost in found.items():
        ratio = cost / known[name]
        verdict = "ok" if ratio <= limit else "TOO DEAR"
        dear += [name] if ratio > limit else []
        print(
            f"{name:<14} {cost:>10,.1f} {unit}, baseline {known[name]:>10,.1f}: "
            f"{ratio:.2f} x, limit {limit:g} x: {verdict}"
        )
    if dear:
        print(
            f"{', '.join(dear)}: dearer than the limit allows. If that is meant, say why in the commit and "
            "renew the baseline: scripts/guard --renew",
            file=sys.stderr,
        )
    return 1 if dear else 0


def counted(paths: Sequence[str] = PATHS) -> dict[str, float]:
    """Count instructions a call by callgrind; two loops at a time."""
    for (
        name
    ) in paths:  # in a fresh checkout the first run compiles the modules, and would count that
        _loop(name, 1, [])
    loops = [(name, calls) for name in paths for calls in (SHORT, LONG)]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        totals = dict(zip(loops, pool.map(lambda loop: _instructions(*loop), loops), strict=True))
    return {
        name: round((totals[name, LONG] - totals[name, SHORT]) / (LONG - SHORT), 1)
        for name in paths
    }


def _instructions(name: str, calls: int) -> int:
    told = _loop(name, calls, ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"])
    found = re.search(r"Collected : (\d+)", told)
    if found is None:
        raise SystemExit(f"valgrind told no count of {name}:\n{told[-3000:]}")
    return int(found[1])


def _loop(name: str, calls: int, under: Sequence[str]) -> str:
    """Run a loop; give what its standard error told."""
    with tempfile.TemporaryDirectory(prefix="fallom-guard-") as folder:
        ran = subprocess.run(
            [*under, sys.executable, str(HERE / "guarded_loop.py"), name, str(calls)],
            env=_environ(folder),
            capture_output=True,
            text=True,
            check=False,
        )
    if ran.returncode:
        raise SystemExit(f"{name} ended with {ran.returncode}:\n{ran.stderr[-3000:]}")
    return ran.stderr


def timed() -> dict[str, float]:
    """Give CPU time as a multiple of that of ``cal``, median of several rounds in turns."""
    code = (
        "import sys, time, json; sys.path[:0] = [{here!r}, {adapters!r}]\n"
        "from guarded_loop import GUARDED, PATHS, cal\n"
        "calls = {{n: PATHS[p]({{}}).call for n, p in GUARDED.items() if p}}\n"
        "def cost(call, start):\n"
        "    begun = time.thread_time_ns()\n"
        "    for number in range(start, start + {calls}): call(number)\n"
        "    return (time.thread_time_ns() - begun)\n"
        "rounds = [{{n: cost(c, r * {calls}) / cost(cal, 0) for n, c in calls.items()}}\n"
        "          for r in range(7)]\n"
        "print(json.dumps(rounds))"
    ).format(here=str(HERE), adapters=str(HERE / "adapters"), calls=TIMED_CALLS)
    with tempfile.TemporaryDirectory(prefix="fallom-guard-") as folder:
        out = subprocess.check_output(
            [sys.executable, "-c", code], env=_environ(folder), text=True, cwd=folder
        )
    rounds = json.loads(out)
    return {name: round(statistics.median(each[name] for each in rounds), 2) for name in PATHS}


def _environ(folder: str) -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("FALLOM_", "OTEL_"))}
    nowhere = "http://127.0.0.1:9"
    return {
        **clean,
        "FALLOM_STATE_DIR": f"{folder}/state",
        "FALLOM_FLUSHER": "external",
        "FALLOM_BASE_URL": nowhere,
        "FALLOM_AUTO_INSTRUMENT": "false",
        "PYTHONHASHSEED": "0",
        "PYTHONPATH": str(HERE.parent),
    }


if __name__ == "__main__":
    sys.exit(main())
