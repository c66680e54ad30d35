"""A server of web applications in a process of its own, started by its real command line.

``Host`` starts and drives one; ``footprint`` tells from outside what its processes hold.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
from gunicorn import config

from tests.support.flushers import wait_for
from tests.support.scripts import ROOT

APPS = Path(__file__).parent / "host_apps"
CLIENTS = 4
END_OF_FILE_S = 20.0  # for a pipe that nobody holds; the flusher stays for longer than that

Answer = dict[str, Any]


class Unanswered(Exception):
    """No whole answer came."""


class Failed(Exception):
    """The answer is that of a server whose application failed."""


@dataclass(frozen=True)
class Footprint:
    """What a process has, as seen from outside."""

    tasks: int
    descriptors: Mapping[str, int]
    signals: Mapping[str, str]


class Host:
    """A server with two or more workers; ``with`` starts it, and ends it if the test did not."""

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        *,
        port: int = 0,
        environ: Mapping[str, str] | None = None,
        pid_file: Path | None = None,
        path: str = "/plain/look/x",
    ) -> None:
        """Say what to start.

        Args:
            command: Its command line; ``{port}`` and ``{python}`` stand for these.
            folder: Its working directory, where applications and the file of what was recorded are.
            port: 0 takes any that is free.
            environ: In addition to this process's.
            pid_file: Where a server that goes to the background writes its pid.
            path: What is asked for until it is answered.
        """
        self.port = port or free_port()
        self.folder = folder
        self.said = ""
        self._command = [part.replace("{port}", str(self.port)) for part in command]
        search = os.pathsep.join([str(ROOT), str(APPS), os.environ.get("PYTHONPATH", "")])
        self._environ = {
            **os.environ,
            "PYTHONPATH": search.rstrip(os.pathsep),
            "ACKNOWLEDGED": str(folder / "acknowledged"),
            **(environ or {}),
        }
        self._pid_file = pid_file
        self._path = path
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    def start(self) -> Host:
        """Start it and wait until it answers."""
        self._process = subprocess.Popen(
            self._command,
            env=self._environ,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        wait_for(self._is_answering, 60, "the server to answer")
        return self

    @property
    def pid(self) -> int:
        """The master, or the only process there is."""
        if self._pid_file is not None:
            return int(self._pid_file.read_text())
        assert self._process is not None
        return self._process.pid

    def children(self) -> list[int]:
        """Give the children of the master, dead ones that nobody collected included."""
        return [child.pid for child in psutil.Process(self.pid).children(recursive=True)]

    def zombies(self) -> list[int]:
        """Give the processes below the master that have ended and were not collected."""
        found = []
        for pid in self.children():
            try:
                if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                    found.append(pid)
            except psutil.NoSuchProcess:
                continue
        return found

    def connections(self) -> int:
        """Count the connections with clients that its processes hold."""
        count = 0
        for pid in (self.pid, *self.children()):
            try:
                sockets = psutil.Process(pid).net_connections("inet")
            except psutil.NoSuchProcess:
                continue
            count += sum(each.status != psutil.CONN_LISTEN for each in sockets)
        return count

    def get(self, path: str) -> Answer:
        """Send one request, by a connection of its own.

        Raises:
            Unanswered: The server closed the connection.
        """
        with Connection(self.port) as connection:
            return connection.get(path)

    def drive(self, names: Sequence[str], action: str = "plain/hold") -> list[Answer]:
        """Send a request for each name, some at a time; give the answers, None for one that broke off."""

        def send(name: str) -> Answer | None:
            try:
                return {**self.get(f"/{action}/{name}"), "name": name}
            except Unanswered:
                return None

        with ThreadPoolExecutor(CLIENTS) as clients:
            return [answer for answer in clients.map(send, names) if answer is not None]

    def drive_all(self, workers: int, name: str) -> tuple[list[str], dict[int, Answer]]:
        """Send requests until so many workers have answered; give the names, and an answer of each."""
        answered: list[str] = []
        seen: dict[int, Answer] = {}
        give_up = time.monotonic() + 60
        while len(seen) < workers:
            assert time.monotonic() < give_up, f"only {list(seen)} of {workers} answer\n{self.said}"
            names = [f"{name}-{len(answered) + n}" for n in range(2 * CLIENTS)]
            for answer in self.drive(names):
                answered.append(answer["name"])
                seen[answer["pid"]] = answer
        return answered, seen

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the master."""
        os.kill(self.pid, number)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Stop it as its supervisor would, and wait for the end of its output."""
        assert self._process is not None
        assert self._reader is not None
        pid = self.pid
        os.kill(pid, number)
        wait_for(lambda: self._has_ended(pid), 60, f"the server to stop\n{self.said}")
        self._reader.join(END_OF_FILE_S)
        assert not self._reader.is_alive(), "somebody holds the standard output of the server"
        self._process.wait()
        self._process = None

    def __enter__(self) -> Host:
        try:
            return self.start()
        except BaseException:
            self._kill()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._kill()
        if error is not None:
            sys.stderr.write(self.said)

    def _kill(self) -> None:
        process = self._process
        if process is None:
            return
        if self._pid_file is not None and self._pid_file.exists():
            _kill_group(self.pid)
        _kill_group(process.pid)
        process.wait()
        self._process = None

    def _has_ended(self, pid: int) -> bool:
        assert self._process is not None
        self._process.poll()
        return not psutil.pid_exists(pid)

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                self.said += line

    def _is_answering(self) -> bool:
        assert self._process is not None
        if self._pid_file is None and self._process.poll() is not None:
            raise AssertionError(f"the server did not start\n{self.said}")
        try:
            with Connection(self.port) as connection:
                connection.read(self._path)
        except Unanswered:
            return False
        return self._pid_file is None or self._pid_file.exists()


class Connection:
    """A connection of a client, kept for more than one request if the server allows it."""

    def __init__(self, port: int) -> None:
        """Say where; the first request connects."""
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def get(self, path: str) -> Answer:
        """Send one request; give its decoded answer.

        Raises:
            Unanswered: The server closed the connection.
            Failed: It answered with an error.
        """
        answer: Answer = json.loads(self.read(path))
        return answer

    def read(self, path: str) -> str:
        """Send one request; give its whole answer."""
        try:
            self._http.request("GET", path)
            response = self._http.getresponse()
            body = response.read().decode()
        except (OSError, http.client.HTTPException) as error:
            self._http.close()
            raise Unanswered(str(error)) from error
        if response.status != 200:
            raise Failed(f"{response.status} {path} {body[:1000]}")
        return body

    def begin(self, path: str) -> bytes:
        """Send one request, and give the first part of its answer, which has no end."""
        self._http.request("GET", path)
        return self._http.getresponse().read(1000)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()


def footprint(pid: int, state_dir: Path) -> Footprint:
    """Tell what a process has; files below the state directory are left out."""
    descriptors: Counter[str] = Counter()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(entry)
        except FileNotFoundError:
            continue
        if not target.startswith(f"{state_dir}/"):
            # "socket:[123]", "/tmp/wgunicorn-x1y2 (deleted)": what it is, not which
            kind = "file" if target.startswith("/") and "/dev/" not in target else target
            descriptors[re.sub(r":\[\d+\]", "", kind)] += 1
    status = Path(f"/proc/{pid}/status").read_text()
    return Footprint(
        tasks=len(os.listdir(f"/proc/{pid}/task")),
        descriptors=dict(descriptors),
        signals=dict(re.findall(r"^(Sig(?:Blk|Ign|Cgt)):\t(\w+)$", status, re.MULTILINE)),
    )


def free_port() -> int:
    """Give a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


@dataclass(frozen=True)
class Kind:
    """A kind of server: how it is started, and what is known of it without fallom."""

    name: str
    command: tuple[str, ...]
    workers: int = 2
    threads_max: int = 1  # of a worker, where how many it starts depends on the load
    leaks: bool = True  # whether a later request of a connection sees the session of an earlier one
    environ: Mapping[str, str] = field(default_factory=dict)

    def with_options(self, name: str, *options: str) -> Kind:
        """Give the same server with further options."""
        command = (*self.command, *options)
        return Kind(
            f"{self.name} {name}".strip(),
            command,
            self.workers,
            self.threads_max,
            self.leaks,
            self.environ,
        )


_BIN = f"{sys.prefix}/bin"
# A thread of the master that would not be there without it; gunicorn has it from 25.1 on.
_NO_CONTROL_SOCKET = ("--no-control-socket",) if hasattr(config, "ControlSocketDisable") else ()
_GUNICORN = (
    sys.executable,
    "-m",
    "gunicorn",
    "--bind",
    "127.0.0.1:{port}",
    "--workers",
    "2",
    *_NO_CONTROL_SOCKET,
)
_UWSGI = (
    os.environ.get("FALLOM_TEST_UWSGI", f"{_BIN}/uwsgi"),
    *"--master --die-on-term --need-app --http11-socket 127.0.0.1:{port} --processes 2".split(),
    # A second socket of the workers: the shell that starts the flusher happens to close number 3.
    *("--uwsgi-socket", "127.0.0.1:0", "--virtualenv", sys.prefix, "--module", "wsgi_app:app"),
)
SYNC = Kind("gunicorn sync", (*_GUNICORN, "wsgi_app:app"))
GTHREAD = Kind(
    "gunicorn gthread",
    (*_GUNICORN, "--worker-class", "gthread", "--threads", "4", "wsgi_app:app"),
    threads_max=8,
)
GEVENT = Kind("gunicorn gevent", (*_GUNICORN, "--worker-class", "gevent", "wsgi_app:app"))
UVICORN_WORKER = Kind(
    "gunicorn uvicorn-worker",
    (*_GUNICORN, "--worker-class", "uvicorn_worker.UvicornWorker", "asgi_app:app"),
    leaks=False,
)
UWSGI = Kind("uwsgi", _UWSGI)
UVICORN = Kind(
    "uvicorn",
    (sys.executable, "-m", "uvicorn", "--port", "{port}", "--workers", "2", "asgi_app:app"),
    leaks=False,
)
HYPERCORN = Kind(
    "hypercorn",
    (
        *(sys.executable, "-m", "hypercorn", "--bind", "127.0.0.1:{port}", "--workers", "2"),
        *("--keep-alive", "1", "asgi_app:app"),  # for so long it holds what clients have closed
    ),
    leaks=False,
)
