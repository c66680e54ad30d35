"""A contestant: a process in an environment of its own that runs an adapter and takes orders."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.environments import interpreter_of

__all__ = ["Contestant", "ContestantError"]

ANSWER_S = 400  # longer than any flush may take
_ADAPTERS = Path(__file__).resolve().parent / "adapters"
_NOT_INHERITED = ("FALLOM_", "OTEL_", "DD_", "LANGFUSE_", "LANGSMITH_", "LOGFIRE_", "SENTRY_")


class ContestantError(Exception):
    """It could not do what it was told; the message has its traceback."""


class Contestant:
    """One adapter with one path open. Orders block until they are answered."""

    def __init__(
        self,
        name: str,
        peer: str,
        adapter: str,
        path: str,
        options: Mapping[str, Any] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """Start the process and open the path.

        Args:
            name: What the row is called.
            peer: Whose environment; "fallom" for this checkout's.
            adapter: The file in ``adapters/``.
            path: The path that it opens.
            options: What the path is told.
            environ: Variables on top of the environment, from which settings of peers are left out.

        Raises:
            MissingPeerError: The peer cannot be installed.
            ContestantError: The path cannot be opened.
        """
        self.name = name
        self._next = 0
        clean = {k: v for k, v in os.environ.items() if not k.startswith(_NOT_INHERITED)}
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed with it
        self._process = subprocess.Popen(
            [interpreter_of(peer), _ADAPTERS / f"{adapter}.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            env={**clean, "PYTHONDONTWRITEBYTECODE": "", **(environ or {})},
        )
        self.pid = self._process.pid
        self.extra = self._order({"do": "open", "path": path, "options": dict(options or {})})

    def reopen(self, path: str, options: Mapping[str, Any]) -> None:
        """Open another path in the same process."""
        self.extra = self._order({"do": "open", "path": path, "options": dict(options)})

    def order(self, do: str, **order: Any) -> Any:
        """Give an order and wait for the answer."""
        return self.wait(self.begin(do, **order))

    def begin(self, do: str, **order: Any) -> None:
        """Give an order; ``wait`` gives its answer. Calls are numbered on, so that none is repeated."""
        self._send({"do": do, "start": self._next, **order})
        self._next += order.get("calls", 0) + order.get("singles", 0)

    def wait(self, _: None = None) -> Any:
        """Wait for the answer to ``begin``."""
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], ANSWER_S)[0]:
            raise ContestantError(f"{self.name} did not answer in {ANSWER_S} s: {self.said()}")
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            raise ContestantError(f"{self.name} ended: {self.said()}")
        answer = json.loads(line)
        if isinstance(answer, dict) and "error" in answer:
            raise ContestantError(f"{self.name}: {answer['error']}")
        return answer

    def said(self) -> str:
        """Give the end of what it printed."""
        self._said.seek(0)
        return self._said.read().decode(errors="replace")[-2000:]

    def close(self) -> None:
        """End it."""
        with self._said, self._process as process, contextlib.suppress(BrokenPipeError):
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()

    def _order(self, order: dict[str, Any]) -> Any:
        self._send(order)
        return self.wait()

    def _send(self, order: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise ContestantError(f"{self.name} ended: {self.said()}") from None
