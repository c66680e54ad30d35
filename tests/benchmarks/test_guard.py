"""The guard of the hot paths, without running valgrind: what it lets pass, and what it compares with."""

from __future__ import annotations

import json

import pytest

from benchmarks import guard


def test_half_as_dear_again_fails_and_a_little_dearer_does_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    known = dict.fromkeys(guard.PATHS, 1000.0)
    assert guard.compare({**known, "models.get": 1400.0}, known, guard.LIMIT, "instructions") == 0
    assert guard.compare({**known, "models.get": 1600.0}, known, guard.LIMIT, "instructions") == 1
    assert "models.get: dearer than the limit" in capsys.readouterr().err


def test_every_baseline_has_every_guarded_path() -> None:
    stored = json.loads(guard.BASELINE.read_text())
    assert stored
    for version, found in stored.items():
        for unit in ("instructions", "times cal"):
            assert sorted(found[unit]) == sorted(guard.PATHS), version
            assert all(value > 0 for value in found[unit].values()), version
