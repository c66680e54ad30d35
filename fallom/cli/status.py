"""``fallom status``: one screen from what ``fallom.status()`` gives."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import click

__all__ = ["show_status", "status_lines"]


def show_status(as_json: bool) -> int:
    """Print the status of this host's state directory; give the exit code."""
    import fallom  # only here: the other commands need no runtime

    fallom.init(flusher="external")  # look, and start nothing
    status = fallom.status()
    if as_json:
        click.echo(json.dumps(status, indent=2, sort_keys=True, default=str))
    else:
        for line in status_lines(status):
            click.echo(line)
    return 0


def status_lines(status: Mapping[str, Any]) -> Iterator[str]:
    """Give a status as lines: a heading for each part, a line for each fact."""
    width = max((len(_words(name)) for name in _leaves(status)), default=0)
    for name, value in status.items():
        if not isinstance(value, Mapping):
            yield f"{_words(name):<{width}}  {_shown(value)}"
    for name, value in status.items():
        if isinstance(value, Mapping):
            yield ""
            yield _words(name)
            yield from (f"  {line}" for line in _facts(value, width))


def _facts(part: Mapping[str, Any], width: int) -> Iterator[str]:
    if not part:
        yield "none"
    for name, value in part.items():
        if isinstance(value, Mapping):
            yield _words(name)
            yield from (f"  {line}" for line in _facts(value, width))
        else:
            yield f"{_words(name):<{width}}  {_shown(value)}"


def _leaves(part: Mapping[str, Any]) -> Iterator[str]:
    for name, value in part.items():
        if isinstance(value, Mapping):
            yield from _leaves(value)
        else:
            yield name


def _words(name: object) -> str:
    return str(name).replace("_", " ")


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return "; ".join(map(_shown, value)) or "none"
    return str(value)
