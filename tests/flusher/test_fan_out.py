"""Fan-out within one flusher: what its targets share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fallom._core.extra_targets import TARGETS_MAX
from fallom._core.settings import resolve_settings
from fallom._flusher.bounds import clocks
from fallom._flusher.fan_out import FanOut
from fallom._flusher.targets import target_hashes
from fallom._host.control import ControlPage
from fallom._host.directory import StateDirectory
from fallom._spool.tail import TAILS_MAX


def test_all_extra_targets_together_open_no_more_segments_than_the_main_one(
    tmp_path: Path,
) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    extra = {f"FALLOM_TRACES_EXTRA_T{n}_URL": "http://127.0.0.1:1" for n in range(TARGETS_MAX)}
    settings = resolve_settings({}, extra)
    directory = StateDirectory(str(tmp_path / "state"), settings.namespace)
    page = ControlPage.open(directory.root)
    fan_out = FanOut(settings, directory, page, target_hashes(settings), clocks())
    nobody: Any = None
    lanes = fan_out.make_lanes(nobody, lambda: None)
    assert len(lanes) == 2 * TARGETS_MAX
    assert sum(lane._reader._tails_max for lane in lanes) <= 2 * TAILS_MAX
