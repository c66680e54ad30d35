"""Real servers with an application of the tests', and the local cloud as the receiver."""

from __future__ import annotations

from pathlib import Path

import pytest

from fallom.dev.server import LocalCloud
from tests.processes.conftest import cloud, folder

__all__ = ["cloud", "folder"]


@pytest.fixture(autouse=True)
def _one_fetch_and_a_flusher_that_stays(
    cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The flusher outlives every server of a test, and one interval the whole test."""
    monkeypatch.setenv("FALLOM_LINGER", "120")
    monkeypatch.setenv("FALLOM_SYNC_INTERVAL", "3600")
    (tmp_path / "host").mkdir()
