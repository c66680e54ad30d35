"""``fallom dead``: what a server refused for good, to look at, to send again, to take along, to delete."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from typing import Any, Final, TextIO

import click

from fallom._core.span import exposure_of, metrics_of, span_of
from fallom._flusher.dead_reading import Letter, damaged_of, letters_of, purge, replay
from fallom._spool.frame import Kind, RecordError, decode_record
from fallom.cli.exits import EXIT_CODES, EXIT_WRONG
from fallom.cli.host import Host, host_options, open_host
from fallom.cli.screen import (
    bytes_text,
    echo_json,
    json_option,
    parse_age,
    plain,
    reason_of,
    say,
    table,
    terminal_width,
    time_text,
    visible,
)

__all__ = ["dead"]

_READERS: Final[dict[int, Callable[[Any], Any]]] = {
    Kind.SPAN: span_of,
    Kind.METRICS: metrics_of,
    Kind.EXPOSURE: exposure_of,
}


@click.group()
def dead() -> None:
    """Look at what a server refused; send it again.

    It is kept until it is deleted, or too old or too much. A letter is named by its id, or by the
    first digits of it.
    """


@dead.command("ls", epilog=EXIT_CODES)
@host_options
@json_option
def dead_ls(as_json: bool, state_dir: str | None, namespace: str | None) -> None:
    """List the dead letters, oldest first, with the server's reason."""
    directory = open_host(state_dir, namespace).place.directory
    letters = list(letters_of(directory.dead))
    if as_json:
        echo_json([_summary(letter) for letter in letters])
        return
    rows = [
        (
            letter.id,
            time_text(letter.unix_ns),
            letter.destination.name.lower() + (f" to {letter.target}" if letter.target else ""),
            _name(letter),
            bytes_text(len(letter.payload)),
            letter.reason,
        )
        for letter in letters
    ]
    if rows:
        for line in table(
            ("id", "refused at", "kind", "what", "size", "reason"), rows, terminal_width()
        ):
            click.echo(line)
    click.echo(f"{len(letters)} dead letter(s) in {visible(directory.path)}/dead")
    damaged = len(damaged_of(directory.dead))
    if damaged:
        say(
            f"{damaged} file(s) there hold damaged bytes of the spool; `fallom dead purge` deletes "
            "them too."
        )
    if rows:
        say(
            "`fallom dead show ID` shows one; once the cause is mended, `fallom dead replay --all` "
            "sends them again."
        )


@dead.command("show", epilog=EXIT_CODES)
@host_options
@json_option
@click.argument("letter", metavar="ID")
def dead_show(letter: str, as_json: bool, state_dir: str | None, namespace: str | None) -> None:
    """Show one letter as JSON, with the whole record and its content."""
    del as_json  # as it is anyway
    (found,) = _chosen(open_host(state_dir, namespace), [letter])
    echo_json(_everything(found))


@dead.command("replay", epilog=EXIT_CODES)
@host_options
@json_option
@click.argument("letters", metavar="[ID]...", nargs=-1)
@click.option("--all", "take_all", is_flag=True, help="All there are.")
def dead_replay(
    letters: tuple[str, ...],
    take_all: bool,
    as_json: bool,
    state_dir: str | None,
    namespace: str | None,
) -> None:
    """Send letters again, with their old ids, once the cause is mended."""
    if bool(letters) == take_all:
        raise click.UsageError("Name the letters to replay, or give --all.")
    host = open_host(state_dir, namespace)
    directory = host.place.directory
    chosen = list(letters_of(directory.dead)) if take_all else _chosen(host, letters)
    targets = host.targets_by_name
    if targets is None:
        raise click.ClickException(
            "This application sends to extra targets, and a letter goes only to the one that refused "
            "it: replay with its settings (key, URLs, FALLOM_TRACES_EXTRA_...)."
        )
    count, error = replay(directory.dead, directory.spool, chosen, targets)
    # Where only the applications have the settings, a call of theirs starts a flusher.
    is_ours = host.targets is not None
    if count and is_ours:
        import fallom  # only here: it starts a flusher, which looking does not need

        fallom.init(state_dir=state_dir)
    why = reason_of(error) if error is not None else None
    if as_json:
        echo_json({"replayed": count, "left": len(chosen) - count, "error": why})
    else:
        then = "will be sent again" if is_ours else "are sent by the applications' next flusher"
        click.echo(f"{count} record(s) are back in the spool and {then}.")
        if why is not None:
            say(f"! {len(chosen) - count} stay dead letters: {why}", err=True)
    sys.exit(EXIT_WRONG if error is not None else 0)


@dead.command("export", epilog=EXIT_CODES)
@host_options
@json_option
@click.argument("path", type=click.Path(dir_okay=False, allow_dash=True))
def dead_export(path: str, as_json: bool, state_dir: str | None, namespace: str | None) -> None:
    """Write all letters as JSON lines to PATH, or "-" for the console.

    It is a new file that only you can read. With --json, how many there were is told as JSON, too.
    """
    directory = open_host(state_dir, namespace).place.directory
    count = 0
    with _opened(path) as file:
        for letter in letters_of(directory.dead):
            file.write(json.dumps(_everything(letter)) + "\n")
            count += 1
    if as_json:
        click.echo(json.dumps({"exported": count, "path": path}), err=path == "-")
    else:
        click.echo(f"{count} dead letter(s) exported.", err=True)


@dead.command("purge", epilog=EXIT_CODES)
@host_options
@json_option
@click.option("--older-than", metavar="AGE", help="Only those, for example 30m, 12h or 7d.")
@click.option("--yes", "is_sure", is_flag=True, help="Do not ask.")
def dead_purge(
    older_than: str | None,
    is_sure: bool,
    as_json: bool,
    state_dir: str | None,
    namespace: str | None,
) -> None:
    """Delete letters for good.

    So are the damaged bytes of the spool that are kept beside them.
    """
    age_s = _seconds(older_than) if older_than is not None else 0.0
    directory = open_host(state_dir, namespace).place.directory
    before_ns = time.time_ns() - int(age_s * 1e9)
    if not is_sure:
        if not (sys.stdin and sys.stdin.isatty()):  # None where it was closed
            raise click.UsageError("Nothing was deleted: nobody can be asked here; give --yes.")
        count = sum(letter.unix_ns < before_ns for letter in letters_of(directory.dead))
        what = f" older than {older_than}" if older_than is not None else ""
        if count or damaged_of(directory.dead):
            click.confirm(f"Delete {count} dead letter(s){what} for good?", abort=True, err=True)
    count = purge(directory.dead, before_ns)
    if as_json:
        echo_json({"deleted": count})
    else:
        click.echo(f"{count} dead letter(s) deleted.")


def _chosen(host: Host, ids: Sequence[str]) -> list[Letter]:
    """Give the letters with these ids, or with ids that begin so.

    Raises:
        click.ClickException: There is none, or more than one.
    """
    known = list(letters_of(host.place.directory.dead))
    chosen: dict[str, Letter] = {}
    for wanted in ids:
        found = [letter for letter in known if wanted and letter.id.startswith(wanted)]
        if len(found) != 1:
            what = (
                f"The ids of {len(found)} dead letters begin with {wanted!r}; give more digits."
                if found
                else f"There is no dead letter {wanted!r}; `fallom dead ls` lists them."
            )
            raise click.ClickException(what)
        chosen[found[0].id] = found[0]
    return list(chosen.values())


def _summary(letter: Letter) -> dict[str, Any]:
    refused_at = datetime.fromtimestamp(letter.unix_ns / 1e9, timezone.utc)
    return {
        "id": letter.id,
        "refused_at": refused_at.isoformat(timespec="seconds"),
        "destination": letter.destination.name.lower(),
        "target": letter.target or None,
        "what": _name(letter),
        "reason": letter.reason,
        "status": letter.status,
        "bytes": len(letter.payload),
    }


def _name(letter: Letter) -> str:
    record = _record(letter)
    return str(record.get("name") or record.get("config_key") or "unreadable")


def _everything(letter: Letter) -> dict[str, Any]:
    parts = {"resource": letter.resource, "record": _record(letter)}
    return {**_summary(letter), **{name: plain(part) for name, part in parts.items()}}


def _record(letter: Letter) -> dict[str, Any]:
    """Give the record's fields by name; one that cannot be read, as it is packed."""
    try:
        record = _READERS[letter.kind](decode_record(letter.payload))
    except (KeyError, ValueError, TypeError, RecordError):
        return {"packed": letter.payload}
    fields: dict[str, Any] = record._asdict()
    return fields


@contextlib.contextmanager
def _opened(path: str) -> Iterator[TextIO]:
    """Open a new file that only this user can read: it holds what was recorded."""
    if path == "-":
        yield sys.stdout
        sys.stdout.flush()  # before it is told how many there were
        return
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise click.UsageError(f"{path!r} cannot be made: {error.strerror}.") from None
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        yield file


def _seconds(text: str) -> float:
    age_s = parse_age(text)
    if age_s is None:
        raise click.UsageError(f"--older-than is {text!r}; expected, for example, 30m, 12h or 7d.")
    return age_s
