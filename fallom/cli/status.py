"""``fallom status``: one screen from what ``fallom.status()`` gives, and what to do about it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import click

__all__ = ["show_status", "status_lines", "troubles"]

_KIB: Final = 1024


def show_status(as_json: bool) -> int:
    """Print the status of this host's state directory; give the exit code."""
    import fallom  # only here: the other commands need no runtime

    fallom.init(flusher="external")  # look, and start nothing
    status = fallom.status()
    # Bytes are not enough: the file that this very look opened has a header, and nothing to deliver.
    is_alive = status["flusher"]["is_alive"]
    wrong = list(troubles(status, 0 if is_alive else fallom.flush(timeout=0)))
    if as_json:
        click.echo(json.dumps(status, indent=2, sort_keys=True, default=str))
    else:
        for line in [*status_lines(status), *hints(status), *(f"! {line}" for line in wrong)]:
            click.echo(line)
    return 1 if wrong else 0


def troubles(status: Mapping[str, Any], stranded: int) -> Iterator[str]:
    """Give what is wrong now, with what to do; past drops are facts, not troubles.

    Args:
        status: As ``fallom.status`` gives it.
        stranded: How many records wait where no flusher lives.
    """
    flusher = status.get("flusher", {})
    if status.get("state_dir") is None:
        yield "No state directory could be made safe, nothing is kept. Set FALLOM_STATE_DIR."
    if stranded:
        yield (
            f"{stranded} record(s) wait and no flusher lives. The next call of an application starts "
            "one; `fallom flusher --once` delivers now."
        )
    if flusher.get("paused_s"):
        reason = status.get("last_error") or "see the flusher's log"
        yield f"Delivery is paused for {_seconds(flusher['paused_s'])}: {reason}"


def hints(status: Mapping[str, Any]) -> Iterator[str]:
    """Give a word to whoever looks at a namespace that nobody uses."""
    if not status["snapshot"]["generation"] and not any(status["sent"].values()):
        yield ""
        yield (
            "Nothing was recorded or fetched here yet. If applications do run, look with their "
            "settings: key, URLs and FALLOM_STATE_DIR decide the place."
        )


def status_lines(status: Mapping[str, Any]) -> Iterator[str]:
    """Give a status as lines: first the plain facts, then a heading and lines for each part."""
    width = max((len(_label(name)) for name in _leaves(status)), default=0)
    for name, value in status.items():
        if not isinstance(value, Mapping):
            yield f"{_label(name):<{width}}  {_shown(name, value)}"
    for name, value in status.items():
        if isinstance(value, Mapping):
            yield ""
            yield _label(name)
            yield from (f"  {line}" for line in _facts(value, width))


def _facts(part: Mapping[str, Any], width: int) -> Iterator[str]:
    if not part:
        yield "none"
    for name, value in part.items():
        if isinstance(value, Mapping):
            yield _label(name)
            yield from (f"  {line}" for line in _facts(value, width))
        else:
            yield f"{_label(name):<{width}}  {_shown(name, value)}"


def _leaves(part: Mapping[str, Any]) -> Iterator[str]:
    for name, value in part.items():
        if isinstance(value, Mapping):
            yield from _leaves(value)
        else:
            yield name


def _label(name: str) -> str:
    """Give a field's name as words; the value says the unit."""
    for suffix in ("_bytes", "_s"):
        name = name.removesuffix(suffix)
    return name.removeprefix("is_").replace("_", " ")


def _shown(name: str, value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        if name.endswith("_bytes"):
            return _bytes(value)
        return _seconds(value) if name.endswith("_s") else f"{value}"
    if isinstance(value, list | tuple):
        return "; ".join(_shown("", item) for item in value) or "none"
    return str(value)


def _bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < _KIB:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= _KIB
    return f"{count:.1f} GiB"


def _seconds(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} d"
