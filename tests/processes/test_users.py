"""A process that becomes another user after the fork records into that user's own directory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.scripts import run_script

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

NOBODY = 65534


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that other users can enter; pytest's own are closed to them."""
    with tempfile.TemporaryDirectory(prefix="fallom-test-") as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


def test_a_worker_that_changes_its_user_after_the_fork_uses_its_own_directory(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    homes = {uid: shared / f"home-{uid}" for uid in (0, NOBODY)}
    for uid, home in homes.items():
        home.mkdir()
        os.chown(home, uid, uid)
    monkeypatch.delenv("FALLOM_STATE_DIR")
    code = f"""
import os, fallom
from fallom import trace
os.environ["XDG_STATE_HOME"] = {str(homes[0])!r}
fallom.init(traces_url="http://127.0.0.1:9", configs_url="http://127.0.0.1:9", flusher="external")
trace.span({{}}, config_key="app", session_id="root")
if os.fork() == 0:
    os.setgid({NOBODY}); os.setuid({NOBODY})  # as a server drops its privileges
    os.environ["XDG_STATE_HOME"] = {str(homes[NOBODY])!r}
    trace.span({{}}, config_key="app", session_id="nobody")
    assert fallom.status()["dropped"] == {{}}, fallom.status()
    os._exit(0)
assert os.wait()[1] == 0
"""
    run_script(code, tmp_path)
    for uid, home in homes.items():
        (segment,) = home.rglob("metrics-*.live")
        assert segment.stat().st_uid == uid
