"""A spool directory, and what stands in for a writer in another process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fallom._host.files import File, open_directory


@pytest.fixture
def spool_path(tmp_path: Path) -> Path:
    path = tmp_path / "spool"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def spool(spool_path: Path) -> Iterator[File]:
    directory = open_directory(str(spool_path))
    yield directory
    directory.close()
