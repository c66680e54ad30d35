"""``fallom dead``: what a server refused for good, to look at, to send again, to take along, to delete."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from typing import Any, Final, TextIO

import click

from fallom._core.span import exposure_of, metrics_of, span_of
from fallom._flusher.dead_reading import Letter, damaged_of, letters_of, purge, replay
from fallom._host.place import Place
from fallom._spool.frame import Kind, RecordError, decode_record

__all__ = ["export_letters", "list_letters", "purge_letters", "replay_letters", "show_letter"]

_READERS: Final[dict[int, Callable[[Any], Any]]] = {
    Kind.SPAN: span_of,
    Kind.METRICS: metrics_of,
    Kind.EXPOSURE: exposure_of,
}
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def list_letters(as_json: bool) -> int:
    """List the dead letters, oldest first; give the exit code."""
    place = _place()
    letters = list(letters_of(place.directory.dead))
    if as_json:
        click.echo(json.dumps([_summary(letter) for letter in letters], indent=2))
        return 0
    for letter in letters:
        summary = _summary(letter)
        line = (summary["id"], summary["refused_at"], summary["destination"], summary["what"])
        click.echo("  ".join((*line, letter.reason)))
    damaged = len(damaged_of(place.directory.dead))
    click.echo(f"{len(letters)} dead letter(s) in {place.directory.path}/dead")
    if damaged:
        click.echo(f"{damaged} file(s) there hold damaged bytes of the spool.")
    return 0


def show_letter(wanted: str) -> int:
    """Show all of one letter as JSON; give the exit code."""
    (letter,) = _chosen(_place(), [wanted])
    click.echo(json.dumps(_everything(letter), indent=2))
    return 0


def replay_letters(ids: Sequence[str], take_all: bool) -> int:
    """Put letters back into the spool; give the exit code."""
    if bool(ids) == take_all:
        raise click.UsageError("Name the letters to replay, or give --all.")
    import fallom  # only here: it starts a flusher, which looking does not need

    place = _place()
    directory = place.directory
    letters = list(letters_of(directory.dead)) if take_all else _chosen(place, ids)
    count, error = replay(directory.dead, directory.spool, letters)
    if count:
        fallom.init()
    click.echo(f"{count} record(s) are back in the spool and will be sent again.")
    if error is not None:
        click.echo(f"! {len(letters) - count} stay dead letters: {error}", err=True)
    return 1 if error is not None else 0


def export_letters(path: str) -> int:
    """Write all letters as JSON lines to a new file, or to standard output; give the exit code."""
    count = 0
    with _opened(path) as file:
        for letter in letters_of(_place().directory.dead):
            file.write(json.dumps(_everything(letter)) + "\n")
            count += 1
    click.echo(f"{count} dead letter(s) exported.", err=True)
    return 0


def purge_letters(older_than: str | None, is_sure: bool) -> int:
    """Delete letters; give the exit code."""
    age_s = _seconds(older_than) if older_than is not None else 0.0
    if not is_sure:
        what = f"older than {older_than}" if older_than is not None else "there are"
        click.confirm(f"Delete all dead letters that {what}?", abort=True)
    directory = _place().directory
    count = purge(directory.dead, time.time_ns() - int(age_s * 1e9))
    click.echo(f"{count} dead letter(s) deleted.")
    return 0


def _place() -> Place:
    """Open the place that the environment's settings lead to, and start nothing."""
    from fallom._core.settings import resolve_settings  # with the command, not with --help

    settings = resolve_settings({}, os.environ)
    return Place.find(settings.state_dir, settings.namespace, os.environ)


def _chosen(place: Place, ids: Sequence[str]) -> list[Letter]:
    """Give the letters with these ids, or with ids that begin so."""
    known = list(letters_of(place.directory.dead))
    chosen: dict[str, Letter] = {}
    for wanted in ids:
        found = [letter for letter in known if wanted and letter.id.startswith(wanted)]
        if len(found) != 1:
            what = "There is no dead letter" if not found else f"{len(found)} dead letters are"
            raise click.UsageError(f"{what} {wanted!r}; `fallom dead ls` lists them.")
        chosen[found[0].id] = found[0]
    return list(chosen.values())


def _summary(letter: Letter) -> dict[str, Any]:
    refused_at = datetime.fromtimestamp(letter.unix_ns / 1e9, timezone.utc)
    return {
        "id": letter.id,
        "refused_at": refused_at.isoformat(timespec="seconds"),
        "destination": letter.destination.name.lower(),
        "what": _record(letter).get("name") or _record(letter).get("config_key") or "unreadable",
        "reason": letter.reason,
        "status": letter.status,
        "bytes": len(letter.payload),
    }


def _everything(letter: Letter) -> dict[str, Any]:
    parts = {"resource": letter.resource, "record": _record(letter)}
    return {**_summary(letter), **{name: _plain(part) for name, part in parts.items()}}


def _record(letter: Letter) -> dict[str, Any]:
    """Give the record's fields by name; one that cannot be read, as it is packed."""
    try:
        record = _READERS[letter.kind](decode_record(letter.payload))
    except (KeyError, ValueError, TypeError, RecordError):
        return {"packed": letter.payload}
    fields: dict[str, Any] = record._asdict()
    return fields


def _plain(value: Any) -> Any:
    """Give a value that JSON can say; bytes as hexadecimal digits."""
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value.hex() if isinstance(value, bytes) else value


@contextlib.contextmanager
def _opened(path: str) -> Iterator[TextIO]:
    """Open a new file that only this user can read: it holds what was recorded."""
    if path == "-":
        yield sys.stdout
        return
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise click.UsageError(f"{path!r} cannot be made: {error.strerror}.") from None
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        yield file


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text.strip())
    if found is None:
        raise click.UsageError(f"--older-than is {text!r}; expected, for example, 30m, 12h or 7d.")
    return float(found[1]) * _UNITS[found[2]]
