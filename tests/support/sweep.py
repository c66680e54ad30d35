"""The sweep: every point of a cycle, every fault at it, and what must hold whatever came of it."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.cycles import (
    BATCH,
    GUILTY,
    SPANS,
    Left,
    flusher_cycle,
    left_in,
    worker_cycle,
)
from tests.support.strace import ERRORS, Ending, Point, Say, faults_of, run_traced

__all__ = ["Sweep", "flusher_sweep", "worker_sweep"]

ALL = {f"s{number}" for number in range(SPANS)}


@dataclass
class Sweep:
    """One cycle, run again and again, each time with one fault at one point."""

    folder: Path
    cycle: Callable[[Path], Callable[[Say], None]]
    judge: Callable[[Path, Ending, bool, bool], list[str]]  # what is not as promised after it
    kinds: tuple[str, ...]  # of faults: "signal", "error", "retval"
    template: Path | None = None  # a state directory to begin with
    _points: list[Point] = field(default_factory=list)

    def points(self) -> list[Point]:
        """List the points, from a run without any fault."""
        if not self._points:
            ending = self._run(None, "")
            assert ending.status == 0, ending.said
            self._points = ending.points
        return self._points

    def faults(self, stride: int = 1, every_error: bool = False) -> Iterator[tuple[Point, str]]:
        """Give what is to be tried.

        Args:
            stride: Of the points within the snapshot's database only each so-many-th is taken.
            every_error: All errors at each point, not one of them in turn.
        """
        in_snapshot = 0
        for index, point in enumerate(self.points()):
            if "/snapshot" in point.shown:
                in_snapshot += 1
                if in_snapshot % stride:
                    continue
            turn = ERRORS[index % len(ERRORS)]
            for fault in faults_of(point):
                kind, _, value = fault.partition("=")
                if kind in self.kinds and (every_error or kind != "error" or value == turn):
                    yield point, fault

    def try_one(self, point: Point, fault: str) -> str:
        """Run the cycle with a fault; give what is not as promised, "" if nothing is."""
        ending = self._run(point, fault)
        killed = fault.startswith("signal")
        if killed and ending.status == 0:
            return ""  # this time the call was not made: its turn comes at another point
        # strace makes believe: the bytes of a "short write" are not there. To SQLite, which goes on behind
        # them, that is damage, and all one may ask is that the next run mends it.
        lies = fault.startswith("retval") and "/snapshot" in point.shown
        problems = self.judge(self._base, ending, killed, lies)
        if ending.status != (-9 if killed else 0):
            problems.insert(0, f"status {ending.status}: {ending.said[-1:]}")
        return f"{fault} at {point}: {'; '.join(problems)}" if problems else ""

    @property
    def _base(self) -> Path:
        return self.folder / "swept"

    def _run(self, point: Point | None, fault: str) -> Ending:
        shutil.rmtree(self._base, ignore_errors=True)
        if self.template is not None:
            shutil.copytree(self.template, self._base)
        return run_traced(self.cycle(self._base), self.folder, self._base, point, fault)


def worker_sweep(folder: Path, kinds: tuple[str, ...]) -> Sweep:
    """Give the sweep of a worker's cycle."""
    return Sweep(folder, worker_cycle, _judge_worker, kinds)


def flusher_sweep(folder: Path, kinds: tuple[str, ...]) -> Sweep:
    """Give the sweep of a flusher's cycle, over what a healthy worker recorded."""
    template = folder / "recorded"
    assert run_traced(worker_cycle(template), folder, template).status == 0
    return Sweep(folder, flusher_cycle, _judge_flusher, kinds, template)


def _judge_worker(base: Path, ending: Ending, killed: bool, lies: bool) -> list[str]:
    del lies  # its files survive that
    said = set(ending.said)
    recorded = said & ALL
    left = left_in(base)
    # A page that was being made: the flusher removes it after a minute.
    strange = [name for name in left.strange if not name.startswith("control.")]
    problems = [f"left behind: {strange}"] if strange else []
    if any(count > 1 for count in left.spool.values()) or not left.spool.keys() <= ALL:
        problems.append(f"the spool has {left.spool}")
    lost = recorded - left.spool.keys()
    if killed:
        if lost:
            problems.append(f"lost {sorted(lost)}")
        if len(left.spool.keys() - recorded) > 1:
            problems.append("more than the one span that was being recorded")
    elif recorded and f"dropped {len(lost)}" not in said:
        problems.append(f"lost {len(lost)}, but {ending.said[-1]}")
    again = run_traced(worker_cycle(base), base.parent, base)
    if again.status or again.said[-1] != f"dropped {0 if killed else len(lost)}":
        problems.append(f"the next run says {again.said[-1]}")
    after = left_in(base)
    if after.spool != left.spool + Counter(ALL):
        problems.append(f"after the next run there is {after.spool}")
    return problems


def _judge_flusher(base: Path, ending: Ending, killed: bool, lies: bool) -> list[str]:
    del killed  # the same is asked for either way
    got = Counter(line[4:] for line in ending.said if line.startswith("got "))
    left = left_in(base)
    problems = _lost(got, left)
    published = {line[10:] for line in ending.said if line.startswith("published ")}
    if published and not lies and left.model not in {f"m{max(published)}", "m2"}:
        problems.append(f"published {published}, readable is {left.model!r}")
    repeated = sum((got + left.spool - Counter(ALL)).values())
    if repeated > BATCH:
        problems.append(f"{repeated} would be sent twice")
    again = run_traced(flusher_cycle(base), base.parent, base)
    got += Counter(line[4:] for line in again.said if line.startswith("got "))
    after = left_in(base)
    if again.status or after.spool or after.model != "m2":
        problems.append(f"the next flusher leaves {after}, {again.said[-1:]}")
    problems += _lost(got, after)
    if left.strange:
        problems.append(f"left behind: {left.strange}")
    return problems


def _lost(got: Counter[str], left: Left) -> list[str]:
    lost = ALL - got.keys() - left.spool.keys()
    if GUILTY in lost and GUILTY in left.dead:
        lost.remove(GUILTY)
    return [f"lost {sorted(lost)}"] if lost else []
