"""``fallom status``: one screen about a namespace of this host, and what to do about what is wrong."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from fallom.cli.exits import EXIT_WRONG
from fallom.cli.host import Host, Other, find_host, nothing_kept, others_of
from fallom.cli.screen import (
    bytes_text,
    echo_json,
    say,
    seconds_text,
    terminal_width,
    under,
    visible,
)

if TYPE_CHECKING:
    from fallom._snapshot.reader import SnapshotInfo

__all__ = ["host_status", "show_status", "status_lines", "troubles"]

_WIDTH: Final = 11
# Reasons for which a record is not where it should be, and what helps; the others are in the log.
_REMEDIES: Final = {
    "disk": "The disk was full or read-only; free space, recording resumes by itself.",
    "quota": "The spool was full; raise FALLOM_SPOOL_BYTES_MAX or see why nothing is delivered.",
    "oldest": "The spool was full; raise FALLOM_SPOOL_BYTES_MAX or see why nothing is delivered.",
    "refused": "The server refused these; `fallom dead ls` says why.",
    "no_directory": "No state directory could be used; `fallom doctor` says why.",
}


def show_status(
    as_json: bool, as_prometheus: bool, state_dir: str | None, namespace: str | None
) -> int:
    """Print the status of a namespace; give the exit code."""
    import os

    from fallom._core.settings import resolve_settings

    host = find_host(state_dir, namespace)
    settings = host.settings if host else resolve_settings({"state_dir": state_dir}, os.environ)
    others = others_of(settings, host.namespace if host else settings.namespace)
    status = host_status(host, settings)
    if as_prometheus:
        from fallom.cli.prometheus import prometheus_text

        click.echo(prometheus_text(status), nl=False)
        return 0
    wrong = list(troubles(status))
    if as_json:
        status["others"] = [_other(each) for each in others]
        status["troubles"] = wrong
        echo_json(status)
        return EXIT_WRONG if wrong else 0
    if host is None:
        click.echo(nothing_kept([]))
        if others:
            click.echo("With others there is something; `fallom status --namespace ID` shows it:")
    else:
        for line in status_lines(status, terminal_width()):
            click.echo(line)
    for each in others:
        click.echo(f"{'other':<{_WIDTH}} {_other_line(each)}")
    for line in wrong:
        say(f"! {line}", fg="red")
    return EXIT_WRONG if wrong else 0


def host_status(host: Host | None, settings: Any) -> dict[str, Any]:
    """Give the status of a namespace as ``fallom.status`` has it, and start nothing."""
    from fallom._status import status_of

    if host is None:
        return status_of(settings, settings.namespace, None, _snapshot_info(None), None, {})
    place = host.place
    info = _snapshot_info(place.directory.snapshot_path)
    return status_of(settings, host.namespace, place, info, host.targets, {})


def troubles(status: Mapping[str, Any]) -> Iterator[str]:
    """Give what is wrong now, with what to do; past drops are facts, not troubles."""
    flusher, waiting = status["flusher"], status["spool"].get("waiting_records", 0)
    if waiting and not flusher["is_alive"]:
        yield (
            f"{waiting} record(s) wait and no flusher lives. The next call of an application starts "
            "one; `fallom flusher --once` delivers now."
        )
    if flusher.get("paused_s"):
        reason = status.get("last_error") or "see the flusher's log"
        yield f"Delivery is paused for {seconds_text(flusher['paused_s'])}: {reason}"


def status_lines(status: Mapping[str, Any], width: int | None = None) -> Iterator[str]:
    """Give a status as the lines of a screen, which is so wide."""
    yield f"{click.style('fallom', bold=True)} {status['version']}, {visible(status['state_dir'])}"
    for name, text in _facts(status):
        yield under(f"{click.style(f'{name:<{_WIDTH}}', dim=True)} ", _WIDTH + 1, text, width)


def _facts(status: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    flusher, spool, sent = status["flusher"], status["spool"], status["sent"]
    if flusher["is_alive"]:
        pid, version, beat = flusher["pid"], flusher["version"], flusher["beat_age_s"]
        yield "flusher", f"alive: pid {pid}, version {version}, beat {seconds_text(beat)} ago"
    else:
        yield "flusher", "none lives"
    waits = "nothing waits"
    if spool["waiting_records"]:
        age = spool["oldest_age_s"]
        since = f", the oldest for {seconds_text(age)}" if age is not None else ""
        waits = f"{spool['waiting_records']} record(s) wait{since}"
    used = f"{bytes_text(spool['allocated_bytes'])} of {bytes_text(spool['limit_bytes'])}"
    yield "spool", f"{waits}; {used} in {spool['segments']} file(s)"
    kinds = ("spans", "metrics", "exposures")
    took = flusher.get("batch_mean_s")
    pace = f"; {seconds_text(took)} a batch" if took is not None else ""
    yield "delivered", ", ".join(f"{sent[f'{kind}_accepted']} {kind}" for kind in kinds) + pace
    for target in status["targets"]:
        yield f"to {target['name']}", _target(target)
    yield "recorded", str(status["recorded"])
    yield "dropped", _counts(status["dropped"])
    for reason, remedy in _REMEDIES.items():
        if status["dropped"].get(reason):
            yield "", f"{reason}: {remedy}"
    if status["sampled_out"]:
        yield "sampled out", str(status["sampled_out"])
    dead = status["dead"]
    yield "dead", f"{bytes_text(dead['bytes'])}: `fallom dead ls`" if dead["files"] else "none"
    yield "snapshot", _snapshot(status["snapshot"])
    yield "last error", visible(status["last_error"]) or "-"


def _target(target: Mapping[str, Any]) -> str:
    """Give what an extra target has and lacks, in a line."""
    parts = [f"{target['accepted']} delivered"]
    if target.get("waiting_records"):
        held = f"{bytes_text(target['unaccepted_bytes'])} of {bytes_text(target['limit_bytes'])}"
        parts.append(f"{target['waiting_records']} wait ({held})")
    if target["dropped"]:
        parts.append(f"dropped: {_counts(target['dropped'])}")
    if target["paused_s"]:
        parts.append(f"paused for {seconds_text(target['paused_s'])}")
    if target["last_error"]:
        parts.append(visible(target["last_error"]))
    return "; ".join(parts)


def _snapshot(snapshot: Mapping[str, Any]) -> str:
    if not snapshot["generation"]:
        return "nothing was ever fetched"
    checked = snapshot["checked_age_s"]
    fetched = f", fetched {seconds_text(checked)} ago" if checked is not None else ""
    changed = seconds_text(snapshot["age_s"])
    return f"changed {changed} ago{fetched}"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in counts.items()) or "none"


def _snapshot_info(path: str | None) -> SnapshotInfo:
    from fallom._snapshot.database import DatabaseError
    from fallom._snapshot.history import opened_history
    from fallom._snapshot.reader import SnapshotInfo

    if path is None:
        return SnapshotInfo(0, 0, {}, (), None)
    try:
        with opened_history(Path(path)) as history:
            newest = history.at(None)
    except DatabaseError as error:
        return SnapshotInfo(0, 0, {}, (), str(error))
    if newest is None:
        return SnapshotInfo(0, 0, {}, (), None)
    counts = {kind.name.lower(): len(section) for kind, section in newest.sections.items()}
    return SnapshotInfo(newest.generation, newest.published_unix_ns, counts, (), None)


def _other(other: Other) -> dict[str, Any]:
    """Give what can be said of a namespace whose settings are not known."""
    import time

    from fallom._host.control import ControlPage
    from fallom._host.directory import StateDirectory
    from fallom._spool.survey import marks_of

    found: dict[str, Any] = {"namespace": other.namespace, "base": other.base}
    with contextlib.suppress(OSError, ValueError):
        directory = StateDirectory(other.base, other.namespace)
        try:
            page = ControlPage.open(directory.root)
            found["is_alive"] = page.is_alive(time.monotonic_ns())
            marks = marks_of(directory.spool, None)
            found["unaccepted_bytes"] = sum(mark.end - mark.start for mark in marks)
            page.close()
        finally:
            directory.close()
    return found


def _other_line(other: Other) -> str:
    found = _other(other)
    if "is_alive" not in found:
        return f"--namespace {other.namespace}: cannot be opened"
    alive = "flusher alive" if found["is_alive"] else "no flusher"
    waits = found["unaccepted_bytes"]
    return f"--namespace {other.namespace}: {alive}, {bytes_text(waits)} unsent"
