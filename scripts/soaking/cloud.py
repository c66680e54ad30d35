"""The local cloud that the steps of the soak talk to, and what a step reports."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

Report = list[tuple[str, str]]
CONFIG = "variants:\n  - {model: one, weight: 100}\n"
MIB = 1 << 20


class local_cloud:  # noqa: N801 - used as a function
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
