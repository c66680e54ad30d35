"""``fallom doctor``: everything on a host that decides whether records arrive, and how to mend it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

import click

from fallom._core.errors import StateDirectoryError
from fallom._core.settings import Settings, resolve_settings
from fallom.cli.exits import EXIT_WRONG
from fallom.cli.finding import Finding, Level, bad
from fallom.cli.host import Host, find_host
from fallom.cli.premises import (
    look_at_directory,
    look_at_election,
    look_at_space,
    look_at_versions,
)
from fallom.cli.reach import look_at_servers
from fallom.cli.screen import echo_json, reason_of, terminal_width, under, visible

__all__ = ["examine"]

_MARKS: Final = {
    Level.GOOD: ("ok", "green"),
    Level.WARNING: ("warning", "yellow"),
    Level.BAD: ("BAD", "red"),
}


def examine(
    as_json: bool, timeout_s: float | None, state_dir: str | None, namespace: str | None
) -> int:
    """Look at everything and print it; give the exit code. ``timeout_s`` None asks no server."""
    settings = resolve_settings({"state_dir": state_dir}, os.environ)
    found: list[Finding] = []
    for finding in _findings(settings, timeout_s, state_dir, namespace):
        found.append(finding)
        if not as_json:  # as they come: a server may take its time
            _print(finding)
    if as_json:
        echo_json(
            [
                {
                    "subject": f.subject,
                    "level": f.level.value,
                    "what": f.what,
                    "mend": f.mend or None,
                }
                for f in found
            ]
        )
    is_bad = any(finding.level is Level.BAD for finding in found)
    if not as_json:
        counts = {level: sum(f.level is level for f in found) for level in Level}
        click.echo(
            f"\n{len(found)} checks: {counts[Level.BAD]} bad, {counts[Level.WARNING]} warning(s)"
        )
    return EXIT_WRONG if is_bad else 0


def _findings(
    settings: Settings, timeout_s: float | None, state_dir: str | None, namespace: str | None
) -> Iterator[Finding]:
    try:
        host = find_host(state_dir, namespace) or _made(settings)
    except (StateDirectoryError, OSError) as error:
        yield bad("directory", reason_of(error), "See above; then run `fallom doctor` again.")
    else:
        place = host.place
        yield from look_at_directory(place, settings.state_dir is not None)
        yield from look_at_space(place, settings)
        yield from look_at_election(place, settings, _waiting(host))
    yield from look_at_versions()
    if timeout_s is not None:
        yield from look_at_servers(settings, timeout_s)


def _made(settings: Settings) -> Host:
    """Make the place as an application would: whether that is possible is what is asked."""
    from fallom._host.place import Place

    place = Place.find(settings.state_dir, settings.namespace, os.environ)
    return Host(settings, settings.namespace, place)


def _waiting(host: Host) -> int:
    from fallom._spool.inspection import waiting_of
    from fallom._spool.survey import marks_of

    spool = host.place.directory.spool
    return waiting_of(spool, marks_of(spool, host.targets), host.targets).records


def _print(finding: Finding) -> None:
    word, colour = _MARKS[finding.level]
    mark = click.style(f"{word:<8}", fg=colour)
    width, indent = terminal_width(), 21
    prefix = f"{mark}{finding.subject:<13}"
    click.echo(under(prefix, indent, visible(finding.what), width))
    if finding.mend:
        click.echo(under(f"{'':<{indent}}-> ", indent + 3, visible(finding.mend), width))
