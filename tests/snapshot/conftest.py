from __future__ import annotations

from pathlib import Path

import pytest

from fallom._snapshot.publish import Publisher
from tests.snapshot.builders import Page


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where the snapshot is."""
    return tmp_path / "snapshot"


@pytest.fixture
def publisher(directory: Path) -> Publisher:
    return Publisher(directory)


@pytest.fixture
def page() -> Page:
    return Page()
