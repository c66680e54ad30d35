"""Ways of one's own to have a record on disk before the call returns, and jinja2 for templates.

logging: a JSON line by the standard library's FileHandler, which flushes each record. litequeue: a queue in
SQLite, in its default journal mode (WAL). diskcache: a Deque with its default settings.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from driver import SYSTEM, TEN, USER, VARIABLES, Subject, serve


def log_line(options: dict[str, Any]) -> Subject:
    path = Path(options["file"])
    logger = logging.getLogger("bench")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    logger.addHandler(logging.FileHandler(path))

    def written() -> dict[str, int]:
        return {"written": sum(json.loads(line)["model"] != "" for line in path.open())}

    return Subject(lambda _: logger.info(json.dumps(TEN)), answers=written)


def litequeue(options: dict[str, Any]) -> Subject:
    from litequeue import LiteQueue

    queue = LiteQueue(options["file"])
    return Subject(lambda _: queue.put(json.dumps(TEN)), answers=lambda: {"written": queue.qsize()})


def deque(options: dict[str, Any]) -> Subject:
    from diskcache import Deque

    queue = Deque(directory=options["file"])
    return Subject(lambda _: queue.append(TEN), answers=lambda: {"written": len(queue)})


def jinja(_: dict[str, Any]) -> Subject:
    from jinja2 import Template

    system, user = Template(SYSTEM), Template(USER)

    def call(_: int) -> tuple[str, str]:
        return system.render(VARIABLES), user.render(VARIABLES)

    return Subject(call, answers=lambda: dict(zip(("system", "user"), call(0), strict=True)))


PATHS = {"logging": log_line, "litequeue": litequeue, "diskcache": deque, "prompts.get": jinja}

if __name__ == "__main__":
    serve(PATHS)
