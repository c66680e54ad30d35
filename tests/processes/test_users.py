"""A process that becomes another user after the fork records into that user's own directory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fallom.dev.server import LocalCloud
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
fallom.status()  # loads what it needs: another user may not be able to read this interpreter's library
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


def test_two_users_on_one_host_have_each_their_own_state_and_flusher(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    homes = {uid: shared / f"home-{uid}" for uid in (0, NOBODY)}
    for uid, home in homes.items():
        home.mkdir()
        os.chown(home, uid, uid)
    monkeypatch.delenv("FALLOM_STATE_DIR")
    with LocalCloud(db=tmp_path / "cloud.db") as cloud:
        for name, value in cloud.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("FALLOM_FLUSHER", "external")
        # Forked, not started: another user may not be able to run this interpreter. What the flusher
        # imports is loaded before for the same reason.
        code = f"""
import os, time, fallom
from fallom import trace
import fallom._flusher.loop, fallom._flusher.http, diskcache, filelock, platformdirs, requests, idna
import fallom._flusher.main as flusher
from fallom._core.settings import resolve_settings
fallom._flusher.http.Http()
homes = {{0: {str(homes[0])!r}, {NOBODY}: {str(homes[NOBODY])!r}}}
for uid in ({NOBODY}, 0):
    if os.fork() == 0:
        if uid:
            os.setgid(uid); os.setuid(uid)
        os.environ["XDG_STATE_HOME"] = homes[uid]
        fallom.init()
        for number in range(20):
            trace.span({{}}, config_key="app", session_id=f"{{uid}}-{{number}}")
        assert fallom.status()["state_dir"].startswith(homes[uid])
        fallom.shutdown()
        os._exit(flusher.run_external(resolve_settings({{}}, os.environ), once=True))
    assert os.wait()[1] == 0
"""
        run_script(code, tmp_path)
        found = {row["attributes"]["fallom.session_id"] for row in cloud.spans()}
        expected = {f"{uid}-{number}" for uid in (0, NOBODY) for number in range(20)}
        assert found == expected
        assert cloud.stats()["spans"]["received"] == 40
    for uid, home in homes.items():
        assert {path.stat().st_uid for path in home.rglob("*")} == {uid}
