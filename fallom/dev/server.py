"""``LocalCloud``: the local cloud as a process of its own, for tests and scripts.

    with LocalCloud(folder) as cloud:
        os.environ.update(cloud.environment())
        ...
        assert cloud.stats()["spans"]["distinct"] == 2000

It can be killed and restarted on the same port and database. It never outlives whoever started it:
the child ends when its standard input closes, and that happens even when the parent is killed (and all
that it forked meanwhile, for those hold the pipe too).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

__all__ = ["CloudStartError", "LocalCloud", "python_path"]

_START_S: Final = 20.0  # importing the server takes 0.3 s; a busy machine with two cores ten times
_STOP_S: Final = 10.0
_POLL_S: Final = 0.01
_REQUEST_S: Final = 30.0
_PAGE_ROWS: Final = 5000
_T = TypeVar("_T")


class CloudStartError(RuntimeError):
    """The local cloud did not start; the message holds what it said."""


class LocalCloud:
    """A local cloud in a process of its own. Methods block; none is safe for two threads at once."""

    def __init__(
        self,
        folder: str | os.PathLike[str] | None = None,
        *,
        db: str | os.PathLike[str] | None = None,
        port: int = 0,
        fault: str | None = None,
        arguments: tuple[str, ...] = (),
    ) -> None:
        """Say what to start; ``start`` or ``with`` starts it.

        Args:
            folder: What is served; None for the sample.
            db: The database; None for one that lives as long as this object.
            port: 0 takes any that is free, and ``restart`` takes the same again.
            fault: A specification as ``fallom dev --fault`` has it.
            arguments: Further arguments of ``fallom dev``.
        """
        self._own_files: tempfile.TemporaryDirectory[str] | None = None
        self._folder = folder
        self._db = db
        self._port = port
        self._fault = fault
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        """The port; 0 before the first start, if none was asked for."""
        return self._port

    @property
    def url(self) -> str:
        """Where it is, without a slash at the end."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int | None:
        """The process, or None when none runs."""
        return self._process.pid if self._process else None

    def environment(self) -> dict[str, str]:
        """Give the variables that point fallom and an OpenAI client here."""
        return {
            "FALLOM_TRACES_URL": self.url,
            "FALLOM_CONFIGS_URL": self.url,
            "FALLOM_PROMPTS_URL": self.url,
            "OPENAI_BASE_URL": f"{self.url}/v1",
            "OPENAI_API_KEY": "anything",
        }

    def start(self) -> LocalCloud:
        """Start the process and wait until it answers.

        Raises:
            CloudStartError: It ended, or did not listen within 20 s.
        """
        if self._process is not None:
            raise CloudStartError("it runs already")
        deadline = time.monotonic() + _START_S
        is_first = self._own_files is None
        while not self._try_start(deadline):
            # A port that was ours can be somebody's for a moment: a client that connects to a dead
            # server may get the very port as its own. At the first start there is no such excuse.
            if is_first or time.monotonic() > deadline:
                said = self.log()
                if is_first:
                    self.stop()
                raise CloudStartError(f"`fallom dev` did not start:\n{said}")
            time.sleep(_POLL_S * 10)
        return self

    def _try_start(self, deadline: float) -> bool:
        if self._own_files is None:
            self._own_files = tempfile.TemporaryDirectory(prefix="fallom-cloud-")
        own = Path(self._own_files.name)
        port_file = own / "port"
        port_file.unlink(missing_ok=True)
        command = [sys.executable, "-m", "fallom", "dev", "--quiet", "--until-stdin-closes"]
        command += ["--keep", "0"]  # a test counts everything
        command += ["--port", str(self._port), "--port-file", str(port_file)]
        command += ["--db", os.fspath(self._db or own / "cloud.db")]
        command += ["--fault", self._fault] if self._fault else []
        command += [*self._arguments, *([os.fspath(self._folder)] if self._folder else [])]
        with (own / "log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603  our own command, no shell
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": python_path(os.environ)},
            )
        while not port_file.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                return False
            time.sleep(_POLL_S)
        self._port = int(port_file.read_text())
        return True

    def kill(self) -> None:
        """Kill -9; what it acknowledged is in the database."""
        self._end(signal.SIGKILL)

    def terminate(self) -> int | None:
        """End it in order, keeping files for a restart; give its exit code."""
        return self._end(signal.SIGTERM)

    def restart(self) -> None:
        """Kill -9 if it runs, and start it on the same port and database."""
        self.kill()
        self.start()

    def stop(self) -> None:
        """End it and remove its own files; calling it twice is harmless."""
        self._end(signal.SIGTERM)
        if self._own_files is not None:
            self._own_files.cleanup()
            self._own_files = None

    def log(self) -> str:
        """Give what it wrote to its console."""
        if self._own_files is None:
            return ""
        return (Path(self._own_files.name) / "log").read_text(errors="replace")

    def stats(self) -> dict[str, Any]:
        """Give the counts of ``/_dev/stats``."""
        stats: dict[str, Any] = self._call("GET", "/_dev/stats")
        return stats

    def spans(self) -> list[dict[str, Any]]:
        """Give every span that came, oldest first; a span that came twice is there twice."""
        return self._rows("spans")

    def exposures(self) -> list[dict[str, Any]]:
        """Give every exposure that came."""
        return self._rows("exposures")

    def metrics(self) -> list[dict[str, Any]]:
        """Give all that came to ``POST /spans``."""
        return self._rows("metrics")

    def fetches(self) -> list[dict[str, Any]]:
        """Give every request that came, with status and the Authorization header's hash."""
        return self._rows("fetches")

    def fault(self, *faults: str | dict[str, Any]) -> None:
        """Set these faults in place of those before; without any, behave again."""
        self._call("PUT", "/_dev/fault", list(faults))

    def clear(self) -> None:
        """Forget everything that was received."""
        self._call("DELETE", "/_dev/data")

    def wait_for(self, look: Callable[[LocalCloud], _T], timeout_s: float = 30.0) -> _T:
        """Call ``look`` until it gives something true, and give that.

        Raises:
            TimeoutError: It never did; the message has the last stats.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            found = look(self)
            if found:
                return found
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {timeout_s:g} s; the cloud has {self.stats()}")
            time.sleep(_POLL_S * 5)

    def __enter__(self) -> LocalCloud:
        """Start it."""
        return self.start()

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        self.stop()

    def _rows(self, table: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            after = found[-1]["id"] if found else 0
            page = self._call("GET", f"/_dev/{table}?after={after}&limit={_PAGE_ROWS}")
            found += page
            if len(page) < _PAGE_ROWS:
                return found

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method)  # noqa: S310
        # a proxy of the environment has no business between this process and loopback
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=_REQUEST_S) as response:
                answer = response.read()
        except urllib.error.HTTPError as error:
            with error:
                raise ValueError(f"{method} {path}: {error.read().decode()}") from None
        return json.loads(answer) if answer else None

    def _end(self, number: signal.Signals) -> int | None:
        process, self._process = self._process, None
        if process is None:
            return None
        process.send_signal(number)
        try:
            code = process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        if process.stdin:
            process.stdin.close()
        return code


def python_path(environ: Mapping[str, str]) -> str:
    """Give a PYTHONPATH by which the child finds this very package, installed or not."""
    here = str(Path(__file__).parents[2])
    return os.pathsep.join(filter(None, (here, environ.get("PYTHONPATH", ""))))
