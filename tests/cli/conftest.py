from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fallom.dev.server import LocalCloud


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalCloud]:
    """A local cloud with its sample; this process and those that it starts talk to it."""
    with LocalCloud(db=tmp_path / "cloud.db") as running:
        for name, value in running.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("FALLOM_LINGER", "1")
        yield running
