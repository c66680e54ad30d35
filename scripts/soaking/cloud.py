"""The local cloud that the steps of the soak talk to, and what a step reports."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Report = list[tuple[str, str]]
CONFIG = "variants:\n  - {model: one, weight: 100}\n"
MIB = 1 << 20


@contextlib.contextmanager
def local_cloud(folder: Path) -> Iterator[Any]:
    """Start the local cloud and point this process at it; leave no flusher behind."""
    from fallom import _runtime
    from fallom.dev.server import LocalCloud
    from tests.support.flushers import end_flushers

    state, served = folder / "state", folder / "served"
    (served / "configs").mkdir(parents=True)
    (served / "configs/app.yaml").write_text(CONFIG, encoding="utf-8")
    with LocalCloud(served, db=folder / "cloud.db") as cloud:
        os.environ.update(cloud.environment())
        os.environ.update(FALLOM_STATE_DIR=str(state), FALLOM_LINGER="1")
        try:
            yield cloud
        finally:
            _runtime.reset()
            end_flushers(state)
