"""What commands show: tables, units, times, JSON; plain in a pipe, where a script reads it."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, Final, TextIO

import click

from fallom._core.errors import StateDirectoryError

__all__ = [
    "Seconds",
    "bytes_text",
    "echo_json",
    "give_up_output",
    "json_option",
    "parse_age",
    "parse_time",
    "plain",
    "reason_of",
    "say",
    "seconds_text",
    "table",
    "terminal_width",
    "time_text",
    "under",
    "visible",
]

_KIB: Final = 1024
_WRAPPED_MIN: Final = 16  # narrower, text is read worse than a line that the terminal breaks
_WORD_MAX: Final = 28  # a longer word is broken, so that the other columns have room
_NUMBER: Final = re.compile(r"\d[\d,.]*( ([KMG]i)?B| m?s| min| h| d| %)?|-")
_AGE: Final = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


class Seconds(click.FloatRange):
    """Seconds within bounds; NaN, which no comparison finds outside of any, is none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Give the number, or refuse it as click does."""
        seconds = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail(f"{value!r} is not a valid number of seconds.", param, ctx)
        return seconds


json_option = click.option("--json", "as_json", is_flag=True, help="For scripts.")


def echo_json(value: Any, *, indent: int | None = 2) -> None:
    """Print a value as JSON; bytes as hexadecimal digits."""
    click.echo(json.dumps(plain(value), indent=indent))


def plain(value: Any) -> Any:
    """Give a value that JSON can say; bytes as hexadecimal digits, what is no finite number by its name."""
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    if hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value.hex() if isinstance(value, bytes) else value


def terminal_width(*, err: bool = False) -> int | None:
    """Give the columns of the terminal that is written to; None for a pipe or a file."""
    stream: TextIO | None = sys.stderr if err else sys.stdout  # None where it was closed
    return shutil.get_terminal_size().columns if stream and stream.isatty() else None


def under(prefix: str, indent: int, text: str, width: int | None) -> str:
    """Give a line whose text, where it does not fit, goes on below its own beginning.

    Args:
        prefix: What stands before it; it may hold colours.
        indent: How wide that is.
        text: The text.
        width: Of the terminal; None leaves the line whole.
    """
    parts = _wrapped(text, width - indent) if width is not None else [text]
    return prefix + f"\n{'':<{indent}}".join(parts)


def say(text: str, *, err: bool = False, fg: str | None = None) -> None:
    """Print a sentence, broken between words where a terminal is too narrow for it."""
    indent = 2 if text.startswith("! ") else 0
    shown = under(text[:indent], indent, text[indent:], terminal_width(err=err))
    click.secho(shown, err=err, fg=fg)


def table(
    headers: Sequence[str], rows: Iterable[Sequence[object]], width: int | None = None
) -> Iterator[str]:
    """Give lines with aligned columns, numbers at the right; the widest text is broken to fit ``width``."""
    given = [[visible(str(cell)) for cell in row] for row in rows]
    columns = list(zip(headers, *given, strict=True))
    right = [all(_NUMBER.fullmatch(cell) for cell in column[1:]) for column in columns]
    widths = [max(map(len, column)) for column in columns]
    if width is not None:
        texts = [n for n, at_right in enumerate(right) if not at_right]
        _narrow(widths, {n: _narrowest(columns[n]) for n in texts}, width)
    for row in [list(headers), *given]:
        broken = [
            _wrapped(cell, room, cut=True) if len(cell) > room else [cell]
            for cell, room in zip(row, widths, strict=True)
        ]
        for cells in itertools.zip_longest(*broken, fillvalue=""):
            aligned = [
                cell.rjust(room) if at_right else cell.ljust(room)
                for cell, room, at_right in zip(cells, widths, right, strict=True)
            ]
            line = "  ".join(aligned).rstrip()
            yield click.style(line, dim=True) if row == list(headers) else line


def _narrowest(column: Sequence[str]) -> int:
    return min(_WORD_MAX, max((len(word) for cell in column for word in cell.split()), default=0))


def _narrow(widths: list[int], narrowest: dict[int, int], width: int) -> None:
    """Take from the widest texts, as long as one can give, until the columns fit."""
    for _ in range(sum(widths) + 2 * (len(widths) - 1) - width):
        giving = [n for n, least in narrowest.items() if widths[n] > least]
        if not giving:
            return
        widths[max(giving, key=widths.__getitem__)] -= 1


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
        return f"{seconds * 1000:.{0 if seconds >= 0.01 or not seconds else 1}f} ms"
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


def reason_of(error: OSError) -> str:
    """Give an error of the disk as words, without its number."""
    if isinstance(
        error, StateDirectoryError
    ):  # a whole sentence, and OSError's fields hold no errno
        return str(error)
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"


def give_up_output() -> None:
    """Pass over what cannot be written: the interpreter would try once more at its end, and say so."""
    try:
        sys.stdout.flush()
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
    except (AttributeError, ValueError):  # it was closed
        return


def parse_age(text: str) -> float | None:
    """Read an age such as 30m, 2h or 7d, in seconds; None for anything else."""
    found = _AGE.fullmatch(text.strip())
    return float(found[1]) * _UNITS[found[2]] if found else None


def parse_time(name: str, text: str, now_unix_s: float) -> float:
    """Read a time: ISO 8601 (local without an offset), unix seconds, or an age such as 30m, 2h, 7d.

    Raises:
        click.UsageError: It is none of these.
    """
    age_s = parse_age(text)
    try:
        at_s = now_unix_s - age_s if age_s is not None else _unix_s(text.strip())
        datetime.fromtimestamp(at_s).astimezone()  # what no calendar has is no time
        return at_s
    except (ValueError, OverflowError, OSError):
        raise click.UsageError(
            f"{name} is {text!r}; expected a time such as 2026-05-04T13:30:00, unix seconds, or an "
            "age such as 30m, 2h or 7d."
        ) from None


def _unix_s(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        given = f"{text[:-1]}+00:00" if text.endswith("Z") else text
        return datetime.fromisoformat(given).timestamp()


def _wrapped(text: str, width: int, *, cut: bool = False) -> list[str]:
    """Break text between words; a longer word, such as a path, only where it has to stay in a column."""
    room = width if cut else max(width, _WRAPPED_MIN)
    wrapper = textwrap.TextWrapper(room, break_long_words=cut, break_on_hyphens=False)
    return wrapper.wrap(text) or [""]


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
