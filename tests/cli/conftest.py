from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import fallom
from fallom import _runtime
from fallom.dev.server import LocalCloud
from tests.support.flushers import end_flushers


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalCloud]:
    """A local cloud with its sample; this process and those that it starts talk to it."""
    with LocalCloud(db=tmp_path / "cloud.db") as running:
        for name, value in running.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("FALLOM_LINGER", "1")
        yield running


@pytest.fixture(scope="session")
def _published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables of a host on which configs and prompts were fetched; nothing lives there any more."""
    folder = tmp_path_factory.mktemp("published")
    with LocalCloud(db=folder / "cloud.db") as cloud, pytest.MonkeyPatch.context() as patch:
        environ = {**cloud.environment(), "FALLOM_STATE_DIR": str(folder / "state")}
        for name, value in environ.items():
            patch.setenv(name, value)
        fallom.init()
        assert fallom.wait_until_ready(20)
        _runtime.reset()
        end_flushers(folder / "state")
    return environ


@pytest.fixture
def published(_published: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is an application of a host on which configs and prompts were fetched once."""
    for name, value in _published.items():
        monkeypatch.setenv(name, value)
    fallom.init(flusher="external")
