"""Tries an installed fallom, with nothing else installed: records, delivers to a socket, tells itself."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar

import fallom
from fallom import models, trace
from fallom.testing import capture

CONFIGS = {
    "configs": [{"key": "agent", "version": 1, "variants": [{"model": "gpt-4o", "weight": 100}]}]
}
LISTINGS = {
    "/configs": CONFIGS,
    "/prompts": {"prompts": []},
    "/prompt-ab-tests": {"prompt_ab_tests": []},
}


class Server(BaseHTTPRequestHandler):
    """Serves one config, and takes everything."""

    posted: ClassVar[dict[str, bytes]] = {}

    def do_GET(self) -> None:
        self._answer(json.dumps(LISTINGS[self.path]).encode())

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        self.posted[self.path] = self.posted.get(self.path, b"") + body
        self._answer(b"")

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


def main() -> None:
    server = HTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    os.environ["FALLOM_LINGER"] = "0.5"
    fallom.init(api_key="key", traces_url=url, configs_url=url, prompts_url=url)
    assert fallom.wait_until_ready(timeout=60)
    assert models.get("agent", "session-1") == "gpt-4o"
    with fallom.session("agent", "session-1"), trace.step("plan", kind="agent"):
        pass
    trace.span({"score": 0.5}, "agent", "session-1")
    assert fallom.flush(timeout=60) == 0
    assert b"invoke_agent plan" in Server.posted["/v1/traces"]
    assert b"session-1" in Server.posted["/sessions"]
    with capture(models={"agent": "claude"}) as captured:
        assert models.get("agent", "session-2") == "claude"
    assert captured.exposures[0].model == "claude"
    program = [sys.executable, "-m", "fallom"]
    said = subprocess.run([*program, "--version"], capture_output=True, text=True, check=False)
    # The command line is an extra: without it, it says how to get it.
    assert fallom.__version__ in said.stdout or "fallom[cli]" in said.stderr, said
    subprocess.run([*program, "flusher", "--once"], timeout=60, check=True)


if __name__ == "__main__":
    main()
