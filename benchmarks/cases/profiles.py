"""Profiles: which functions the instructions and the bytecodes of a path are spent in.

Counts, not times, so that no quiet machine is needed: instructions of functions in C by valgrind's
callgrind, bytecodes of functions in Python by tracing. Two runs are subtracted from each other, so that
the start cancels out. What the kernel does for a call is in neither.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from benchmarks.bench import Bench, expect
from benchmarks.contestant import Contestant
from benchmarks.table import Table

_PROFILED = Path(__file__).resolve().parent.parent / "adapters/profiled.py"


class _Path(NamedTuple):
    title: str
    more: tuple[str, int]  # the run that is looked at: path and calls
    less: tuple[str, int]  # the run that is taken off
    calls: int  # by which they differ


PATHS = {
    "models.get": _Path("`models.get`, warm", ("models.get", 1050), ("models.get", 50), 1000),
    "models.first": _Path("`models.get`, first", ("models.first", 1050), ("models.first", 50), 1000),
    "prompts.get": _Path("`prompts.get`", ("prompts.get", 1050), ("prompts.get", 50), 1000),
    "span": _Path("`trace.span`", ("span", 1050), ("span", 50), 1000),
    "flusher": _Path("flusher, a span", ("flusher", 1200), ("flusher", 200), 1000),
    "llm": _Path("a wrapped call, beside the bare one", ("llm.wrapped", 100), ("llm.bare", 100), 100),
}  # fmt: skip


def profile(bench: Bench) -> Table:
    """Count instructions and bytecodes of each path, by function."""
    columns = ("instructions", "bytecodes", "most instructions in", "most bytecodes in")
    table = Table("profile", "Where the instructions go", columns)
    has_valgrind = shutil.which("valgrind") is not None
    if not has_valgrind:
        bench.miss("instructions: valgrind is not installed")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        running = {
            name: (
                pool.submit(_difference, bench, path, True) if has_valgrind else None,
                pool.submit(_difference, bench, path, False),
            )
            for name, path in PATHS.items()
        }
    for name, (by_callgrind, by_tracing) in running.items():
        instructions = by_callgrind.result() if by_callgrind else {}
        bytecodes = by_tracing.result()
        row = {"row": PATHS[name].title, "bytecodes": sum(bytecodes.values())}
        row["most bytecodes in"] = _first(bytecodes)
        if instructions:
            row["instructions"] = sum(instructions.values())
            row["most instructions in"] = _first(instructions)
            expect(row["instructions"] > row["bytecodes"] > 0, f"{name}: {row}")
        table.rows.append(row)
        table.curves[name] = {
            "instructions": _largest(instructions),
            "bytecodes": _largest(bytecodes),
        }
    table.notes = [
        "Of one call or span, mean of many. Instructions by valgrind's callgrind, of functions in C; "
        "bytecodes, of functions in Python; both without what they call. They are counts and not times; "
        "what the kernel does is in neither.",
    ]
    return table


def _difference(bench: Bench, path: _Path, is_in_c: bool) -> dict[str, float]:
    more, less = (_count(bench, *run, is_in_c) for run in (path.more, path.less))
    more.subtract(less)
    return {name: count / path.calls for name, count in more.items() if count}


def _count(bench: Bench, path: str, calls: int, is_in_c: bool) -> Counter[str]:
    environ = bench.ours(url=bench.receiver.url)
    if path == "flusher":
        filler = Contestant("filler", "fallom", "shipping", "fill", {"is_llm": False}, environ)
        filler.order("warm", calls=calls)
        filler.close()
    counted = Path(environ["FALLOM_STATE_DIR"]) / "counted"
    command = [sys.executable, str(_PROFILED), path, str(calls)]
    if is_in_c:
        under = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={counted}"]
    else:
        under, command = [], [*command, str(counted)]
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("FALLOM_", "OTEL_"))}
    ran = subprocess.run(
        [*under, *command],
        env={**clean, **environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    expect(ran.returncode == 0, f"{path} ended with {ran.returncode}: {ran.stderr[-2000:]}")
    return (
        _by_function(counted.read_text()) if is_in_c else Counter(json.loads(counted.read_text()))
    )


def _by_function(out: str) -> Counter[str]:
    """Read what callgrind wrote: the cost of each function itself, without what it calls.

    Names and files are written once, with a number, and by the number alone afterwards.
    """
    known: dict[tuple[str, str], str] = {}
    found: Counter[str] = Counter()
    library = function = ""
    is_callees = False  # the line after a ``calls=`` is the cost of what was called

    def named(kind: str, text: str) -> str:
        number, _, name = text.partition(" ")
        if name:
            known[kind, number] = name
        return known[kind, number]

    for line in out.splitlines():
        if line[:1].isdigit() or line[:1] in "+-*":
            if not is_callees:
                found[f"{_short(function)} ({library})"] += sum(map(int, line.split()[1:]))
            is_callees = False
            continue
        kind, _, text = line.partition("=")
        if kind == "calls":
            is_callees = True
        elif kind in ("ob", "cob"):
            name = Path(named("ob", text)).name.split(".")[0]
            library = name if kind == "ob" else library
        elif kind in ("fn", "cfn"):
            name = named("fn", text)
            function = name if kind == "fn" else function
    return found


def _short(function: str) -> str:
    """Give a name without what compilers and callgrind add to it."""
    name = re.sub(r"'\d+$|\.(part|constprop|isra|cold|lto_priv)\.?\d*", "", function)
    return re.sub(r"^__pyx_\w+?_\d+_cmsgpack_\d+", "", name)


def _largest(counts: dict[str, float]) -> dict[str, float]:
    """Give the largest, and the sum of all others."""
    ordered = sorted(counts.items(), key=lambda each: -each[1])
    largest = {name: round(count, 1) for name, count in ordered[:14]}
    return {**largest, "all others": round(sum(count for _, count in ordered[14:]), 1)}


def _first(counts: dict[str, float]) -> str:
    name = max(counts, key=lambda each: counts[each])
    return f"`{name}` {100 * counts[name] / sum(counts.values()):.0f} %"


TABLES = {"profile": profile}
