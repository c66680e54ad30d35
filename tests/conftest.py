"""Every test has a state directory of its own, no setting of the developer's, and leaves no process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fallom import _runtime
from fallom._context import CURRENT_PROMPT, CURRENT_SESSION
from tests.support.flushers import end_flushers


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    """The state directory of this test."""
    return tmp_path / "state"


@pytest.fixture(autouse=True)
def _apart(state_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in os.environ:
        if name.startswith(("FALLOM_", "OTEL_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("FALLOM_STATE_DIR", str(state_dir))
    monkeypatch.setenv("HOME", str(tmp_path))
    # They change the client libraries of this process for good; their own tests have processes.
    monkeypatch.setenv("FALLOM_AUTO_INSTRUMENT", "false")
    yield
    _runtime.reset()
    CURRENT_SESSION.set(None)
    CURRENT_PROMPT.set(None)
    if state_dir.exists():
        end_flushers(state_dir)
