"""What commands show: tables, units, times, JSON; plain in a pipe, where a script reads it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timezone
from typing import Any, Final

import click

__all__ = [
    "bytes_text",
    "echo_json",
    "json_option",
    "parse_time",
    "plain",
    "seconds_text",
    "table",
    "time_text",
    "visible",
]

_KIB: Final = 1024
_AGO: Final = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}

json_option = click.option("--json", "as_json", is_flag=True, help="For scripts.")


def echo_json(value: Any, *, indent: int | None = 2) -> None:
    """Print a value as JSON; bytes as hexadecimal digits."""
    click.echo(json.dumps(plain(value), indent=indent))


def plain(value: Any) -> Any:
    """Give a value that JSON can say; bytes as hexadecimal digits."""
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    if hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value.hex() if isinstance(value, bytes) else value


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """Give lines with aligned columns; numbers at the right."""
    given = [[visible(str(cell)) for cell in row] for row in rows]
    right = [all(_is_number(row[n]) for row in given) for n in range(len(headers))]
    widths = [max(map(len, column)) for column in zip(headers, *given, strict=True)]
    for row in [list(headers), *given]:
        cells = [
            cell.rjust(width) if at_right else cell.ljust(width)
            for cell, width, at_right in zip(row, widths, right, strict=True)
        ]
        line = "  ".join(cells).rstrip()
        yield click.style(line, dim=True) if row == list(headers) else line


def visible(text: str) -> str:
    """Give text whose control characters cannot move a terminal's cursor or change its colours."""
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def bytes_text(count: float) -> str:
    """Give a number of bytes with its unit."""
    for unit in ("B", "KiB", "MiB"):
        if count < _KIB:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= _KIB
    return f"{count:.1f} GiB"


def seconds_text(seconds: float) -> str:
    """Give a duration with its unit."""
    if seconds < 0.1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} d"


def time_text(unix_ns: int) -> str:
    """Give a time in the local zone, with its offset; "-" for 0."""
    if not unix_ns:
        return "-"
    return datetime.fromtimestamp(unix_ns / 1e9).astimezone().isoformat(sep=" ", timespec="seconds")


def parse_time(name: str, text: str, now_unix_s: float) -> float:
    """Read a time: ISO 8601 (local without an offset), unix seconds, or an age such as 30m, 2h, 7d.

    Raises:
        click.UsageError: It is none of these.
    """
    ago = _AGO.fullmatch(text.strip())
    if ago:
        return now_unix_s - float(ago[1]) * _UNITS[ago[2]]
    try:
        return float(text)
    except ValueError:
        pass
    try:
        given = text.strip().replace("Z", "+00:00") if text.strip().endswith("Z") else text.strip()
        return datetime.fromisoformat(given).astimezone(timezone.utc).timestamp()
    except ValueError:
        raise click.UsageError(
            f"{name} is {text!r}; expected a time such as 2026-05-04T13:30:00, unix seconds, or an "
            "age such as 30m, 2h or 7d."
        ) from None


def _is_number(cell: str) -> bool:
    return cell[:1].isdigit() or cell == "-"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
