"""Weave's client with its write-ahead log, which nobody sends on (``WEAVE_DISABLE_WAL_SENDER``).

A call is two lines of JSON (start, end), synced every 64 lines or half a second. Ids of operations are made
by the client, for there is no server. By default threads of the client write, some time after the call;
with ``client_parallelism`` 0 the call itself does.
"""

from __future__ import annotations

import collections
import json
import os
from pathlib import Path
from typing import Any

from driver import TEN, Subject, serve


def _span(options: dict[str, Any], parallelism: str) -> Subject:
    home = Path(options["file"])
    home.mkdir()
    os.environ.update(
        HOME=str(home),
        WEAVE_ENABLE_WAL="true",
        WEAVE_DISABLE_WAL_SENDER="true",
        WEAVE_ENABLE_CLIENT_SIDE_DIGESTS="true",
        WEAVE_CLIENT_PARALLELISM=parallelism,
        WEAVE_PRINT_CALL_LINK="false",
        WEAVE_USE_SERVER_CACHE="false",
        WEAVE_CAPTURE_SYSTEM_INFO="false",
        WANDB_ERROR_REPORTING="false",
    )
    from weave.trace.context.weave_client_context import set_weave_client_global
    from weave.trace.weave_client import WeaveClient
    from weave.trace_server_bindings.remote_http_trace_server import RemoteHTTPTraceServer

    server = RemoteHTTPTraceServer(options["url"])
    client = WeaveClient("bench", "bench", server, ensure_project_exists=False)
    set_weave_client_global(client)
    create, finish = client.create_call, client.finish_call

    def call(_: int) -> None:
        finish(create("metrics", TEN))

    def answers() -> dict[str, int]:
        parts: collections.Counter[str] = collections.Counter()
        for file in home.glob(".weave/wal/**/*.jsonl"):
            for line in map(json.loads, file.open()):
                if line["type"] in ("call_start", "call_end"):
                    parts[line["req"][line["type"][5:]]["id"]] += 1
        return {"written": sum(count == 2 for count in parts.values())}

    return Subject(call, client.flush, answers=answers)


PATHS = {"span": lambda given: _span(given, ""), "span.inline": lambda given: _span(given, "0")}

if __name__ == "__main__":
    serve(PATHS)
