"""Every kind of server with fallom is the server that it was, and loses nothing.

A cell starts the server without fallom and looks at it; starts it with fallom and compares; stops it,
starts it again on the same port beside the flusher that lives on, and counts what arrived.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from fallom.dev.server import LocalCloud
from tests.support import hosts
from tests.support.host_checks import HostTest
from tests.support.hosts import Kind

PRELOAD = "--preload"
CELLS = [
    hosts.SYNC,
    hosts.GTHREAD.with_options("preload", PRELOAD),
    hosts.GEVENT,
    hosts.UVICORN_WORKER,
    hosts.UWSGI.with_options("threads", "--threads", "4", "--enable-threads"),
    hosts.UVICORN,
    hosts.HYPERCORN,
]
LONG_CELLS = [
    hosts.SYNC.with_options("preload", PRELOAD),
    hosts.GTHREAD,
    hosts.GEVENT.with_options("preload", PRELOAD),
    hosts.UVICORN_WORKER.with_options("preload", PRELOAD),
    hosts.UWSGI,
    hosts.UWSGI.with_options("enable-threads", "--enable-threads"),
    hosts.UWSGI.with_options("lazy", "--lazy-apps"),
    hosts.UWSGI.with_options("lazy threads", "--lazy-apps", "--threads", "4"),
    hosts.UWSGI.with_options("osafterfork", "--py-call-osafterfork"),
    hosts.UWSGI.with_options("fork hooks", "--py-call-uwsgi-fork-hooks"),
    hosts.UWSGI.with_options("fork hooks threads", "--py-call-uwsgi-fork-hooks", "--threads", "4"),
]
ALL = [
    *(pytest.param(cell, id=cell.name) for cell in CELLS),
    *(pytest.param(cell, id=cell.name, marks=pytest.mark.long) for cell in LONG_CELLS),
]


@pytest.mark.parametrize("kind", ALL)
def test_a_server_with_fallom_is_the_server_that_it_was_and_loses_nothing(
    kind: Kind, cloud: LocalCloud, tmp_path: Path, state_dir: Path
) -> None:
    test = HostTest(kind, cloud, tmp_path / "host", state_dir)
    with test.host(BARE="yes") as host:
        bare = test.observe(host, "bare")
        host.stop()
    test.answered.clear()
    with test.host() as host:
        test.check_same(host, bare)
        flusher = test.flusher()
        test.check_sessions(host)
        host.stop()
        assert test.flusher() == flusher, "it had nothing of the server's output to hold"
    with test.host(port=host.port) as again:  # at once: nobody holds its port
        test.check_same(again, bare)
        again.stop()
        assert test.flusher() == flusher
    test.check_delivered()
    test.check_stoppable()
