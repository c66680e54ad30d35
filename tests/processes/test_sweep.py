"""Each system call that changes a file, in turn, is killed or fails: nothing is lost, the next run mends.

strace does it, so that no point is missed by luck. Here a part of the points is swept, the same one each
time; ``scripts/soak`` sweeps them all.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.strace import why_unusable
from tests.support.sweep import Sweep, flusher_sweep, worker_sweep

pytestmark = [pytest.mark.skipif(why_unusable() != "", reason=why_unusable() or "usable")]

SNAPSHOT_STRIDE = 83  # SQLite alone has some 700 points, one like the next


def run(sweep: Sweep, stride: int) -> None:
    tried = [sweep.try_one(point, fault) for point, fault in sweep.faults(stride)]
    problems = [problem for problem in tried if problem]
    assert problems == [], f"{len(problems)} of {len(tried)}"
    assert len(tried) > 30


def test_a_worker_that_is_killed_at_any_call_loses_nothing_it_acknowledged(tmp_path: Path) -> None:
    run(worker_sweep(tmp_path, kinds=("signal",)), stride=1)


def test_a_worker_whose_calls_fail_raises_nothing_and_counts_what_it_dropped(
    tmp_path: Path,
) -> None:
    run(worker_sweep(tmp_path, kinds=("error", "retval")), stride=1)


def test_a_flusher_that_is_killed_at_any_call_loses_nothing(tmp_path: Path) -> None:
    run(flusher_sweep(tmp_path, kinds=("signal",)), SNAPSHOT_STRIDE)


def test_a_flusher_whose_calls_fail_goes_on_and_loses_nothing(tmp_path: Path) -> None:
    run(flusher_sweep(tmp_path, kinds=("error", "retval")), SNAPSHOT_STRIDE)
