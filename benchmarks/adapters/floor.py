"""The floor: the least that the task itself asks for, in plain Python, with nothing of a library."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from typing import Any

import msgpack
from driver import SESSIONS, SYSTEM, TEN, USER, VARIABLES, Subject, serve

THRESHOLDS = ((500_000, "one"), (1_000_000, "two"))


def assign(session: str) -> str:
    """Hash, modulo, compare."""
    bucket = int.from_bytes(hashlib.md5(session.encode()).digest()[:4], "big") % 1_000_000
    for threshold, model in THRESHOLDS:
        if bucket < threshold:
            return model
    raise AssertionError


def models_warm(_: dict[str, Any]) -> Subject:
    sessions = SESSIONS
    return Subject(
        lambda number: assign(sessions[number & 255]),
        answers=lambda: {"models": [assign(session) for session in sessions]},
    )


def models_first(options: dict[str, Any]) -> Subject:
    """The same, with one append."""
    descriptor = _file(options)
    pack, write = msgpack.packb, os.write

    def call(number: int) -> str:
        session = f"first-{number}"
        model = assign(session)
        write(descriptor, pack(["app", 1, session, model]))
        return model

    return Subject(call)


def prompts_get(_: dict[str, Any]) -> Subject:
    """Join templates that were split before."""
    system, user = _split(SYSTEM), _split(USER)

    def render(parts: list[tuple[str, str]], variables: dict[str, Any]) -> str:
        return "".join(
            [
                text + str(variables[name]) if name in variables else text + name
                for text, name in parts
                if text or name
            ]
        )

    def call(_: int) -> tuple[str, str]:
        return render(system, VARIABLES), render(user, VARIABLES)

    def answers() -> dict[str, str]:
        system_text, user_text = call(0)
        return {"system": system_text, "user": user_text}

    return Subject(call, answers=answers)


def _split(template: str) -> list[tuple[str, str]]:
    pieces = template.replace("}}", "{{").split("{{")
    pieces += [""] * (len(pieces) % 2)
    return list(zip(pieces[::2], pieces[1::2], strict=True))


def span(options: dict[str, Any]) -> Subject:
    """Pack and write; with ``fdatasync`` if the options say so."""
    descriptor = _file(options)
    pack, write = msgpack.packb, os.write
    if options.get("fdatasync"):

        def call(number: int) -> None:
            write(descriptor, pack(["app", "s", number, TEN]))
            os.fdatasync(descriptor)

    else:

        def call(number: int) -> None:
            write(descriptor, pack(["app", "s", number, TEN]))

    return Subject(call, answers=lambda: {"written": _count(options["file"])})


def span_with_ids(options: dict[str, Any]) -> Subject:
    """Pack and write what no span can be without: ids and a time as well."""
    descriptor = _file(options)
    pack, write, random, clock = msgpack.packb, os.write, os.urandom, time.time_ns

    def call(_: int) -> None:
        write(descriptor, pack([random(16), random(8), clock(), "app", "s", TEN]))

    return Subject(call, answers=lambda: {"written": _count(options["file"])})


def locked_span(options: dict[str, Any]) -> Subject:
    """Pack, and write under a lock: what one file for several threads asks for."""
    descriptor, lock = _file(options), threading.Lock()
    pack, write = msgpack.packb, os.write

    def call(number: int) -> None:
        packed = pack(["app", "s", number, TEN])
        with lock:
            write(descriptor, packed)

    return Subject(call, answers=lambda: {"written": _count(options["file"])})


def _file(options: dict[str, Any]) -> int:
    return os.open(options["file"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def _count(path: str) -> int:
    with open(path, "rb") as file:
        return sum(1 for _ in msgpack.Unpacker(file))


PATHS = {
    "models.get": models_warm,
    "models.first": models_first,
    "prompts.get": prompts_get,
    "span": span,
    "span.ids": span_with_ids,
    "span.locked": locked_span,
}

if __name__ == "__main__":
    serve(PATHS)
