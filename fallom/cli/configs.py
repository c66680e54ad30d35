"""``fallom configs``: what is served to the applications of this host, and who gets what, and why."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from fallom.cli.exits import EXIT_CODES, EXIT_WRONG
from fallom.cli.host import host_options
from fallom.cli.published import keys_beginning, known_items, opened, pairs_of, shown_item
from fallom.cli.screen import (
    echo_json,
    json_option,
    parse_time,
    say,
    table,
    terminal_width,
    time_text,
    visible,
)

if TYPE_CHECKING:
    from fallom._past import Past

__all__ = ["configs"]


@click.group()
def configs() -> None:
    """Look at the model configs on this host.

    Nothing is asked of a server.
    """


@configs.command("ls", epilog=EXIT_CODES)
@host_options
@json_option
def configs_ls(as_json: bool, state_dir: str | None, namespace: str | None) -> None:
    """List the configs with their variants and weights."""
    from fallom._snapshot.entries import Kind

    with opened(state_dir, namespace) as history:
        items = known_items(history, Kind.CONFIG)
    if as_json:
        echo_json(items)
        return
    rows = [
        (
            item["key"],
            item["version"],
            ", ".join(f"{each['model']} {each['weight']:g} %" for each in item["variants"]),
            _targeting_words(item["targeting"]),
            "no longer listed" if item["removed_at"] else "",
        )
        for item in items
    ]
    for line in table(("config", "version", "variants", "targeting", ""), rows, terminal_width()):
        click.echo(line)


@configs.command("show", epilog=EXIT_CODES)
@host_options
@json_option
@click.argument("key", shell_complete=keys_beginning("CONFIG"))
@click.option("--version", type=int, help="Another version than the current one.")
def configs_show(
    key: str, version: int | None, as_json: bool, state_dir: str | None, namespace: str | None
) -> None:
    """Show all of a config as JSON.

    Variants, targeting, and the versions that are known.
    """
    del as_json  # as it is anyway
    from fallom._snapshot.entries import Kind

    with opened(state_dir, namespace) as history:
        echo_json(shown_item(history, Kind.CONFIG, "config", key, version))


@configs.command("explain", epilog=EXIT_CODES)
@host_options
@json_option
@click.argument("key", shell_complete=keys_beginning("CONFIG"))
@click.argument("session_id", metavar="SESSION")
@click.option(
    "--at",
    metavar="TIME",
    help="As of then: 2026-05-04T13:30:00 (local), unix seconds, or an age such as 30m, 2h, 7d.",
)
@click.option("--context", "contexts", multiple=True, metavar="K=V", help="For targeting.")
@click.option("--customer", metavar="ID", help="The session's customer, for targeting.")
@click.option("--version", type=int, help="As if it was pinned to this version.")
def configs_explain(
    key: str,
    session_id: str,
    at: str | None,
    contexts: tuple[str, ...],
    customer: str | None,
    version: int | None,
    as_json: bool,
    state_dir: str | None,
    namespace: str | None,
) -> None:
    """Say which model a session gets, or got, and why.

    It is of the config KEY, and with --at as of a time. A value of --context is text, or JSON where
    it is a number, true, false or null.
    """
    from fallom._past import past_assignment

    context = {name: _value(text) for name, text in pairs_of("--context", contexts).items()}
    at_s = parse_time("--at", at, time.time()) if at is not None else None
    at_ns = None if at_s is None else int(at_s * 1e9)
    with opened(state_dir, namespace) as history:
        past = past_assignment(history, key, session_id, at_ns, version, customer, context)
    if as_json:
        echo_json(_explained(key, session_id, past))
    else:
        for line in _sentences(key, session_id, past, at_ns):
            say(line)
    sys.exit(EXIT_WRONG if past.assigned is None else 0)


@configs.command("export", epilog=EXIT_CODES)
@host_options
@click.argument("path", type=click.Path(dir_okay=False, allow_dash=True))
def configs_export(path: str, state_dir: str | None, namespace: str | None) -> None:
    """Write all to a file for init(bootstrap=PATH).

    Configs, prompts and A/B tests; "-" is the console.
    """
    from fallom._snapshot.bootstrap import bootstrap_of

    with opened(state_dir, namespace) as history:
        payload = bootstrap_of(history)
    text = json.dumps(payload, indent=2, ensure_ascii=False) + "\n"
    if path == "-":
        click.echo(text, nl=False)
    else:
        _write(path, text)
    counts = ", ".join(f"{len(v)} {k.replace('_', ' ')}" for k, v in payload.items() if v != 1)
    click.echo(f"{counts} exported.", err=True)


def _write(path: str, text: str) -> None:
    """Write a file, whole or not at all; a device or a pipe is written to, and not replaced by a file."""
    is_file = os.path.isfile(path) or not os.path.exists(path)
    try:
        with click.open_file(path, "w", encoding="utf-8", atomic=is_file) as file:
            file.write(text)
    except OSError as error:
        raise click.UsageError(f"{path!r} cannot be written: {error.strerror}.") from None


def _targeting_words(targeting: dict[str, Any] | None) -> str:
    if targeting is None:
        return "-"
    targets, rules = len(targeting["individualTargets"]), len(targeting["rules"])
    return f"{targets} target(s), {rules} rule(s)"


def _value(text: str) -> Any:
    try:
        found = json.loads(text)
    except ValueError:
        return text
    return text if isinstance(found, (dict, list, str)) else found


def _explained(key: str, session_id: str, past: Past) -> dict[str, Any]:
    assigned = past.assigned
    return {
        "config_key": key,
        "session_id": session_id,
        "model": assigned.model if assigned else None,
        "index": assigned.index if assigned else None,
        "bucket": past.bucket,
        "reason": past.reason,
        "config_version": past.version,
        "generation": past.generation,
        "published_at": time_text(past.published_unix_ns) if past.generation else None,
        "kept_since": time_text(past.kept_since_unix_ns) if past.kept_since_unix_ns else None,
    }


def _sentences(key: str, session_id: str, past: Past, at_ns: int | None) -> Iterator[str]:
    when = f" at {time_text(at_ns)}" if at_ns is not None else ""
    if past.assigned is None:
        why = {
            "fallback: not_kept": "what was published then is not kept any more; it is since "
            f"{time_text(past.kept_since_unix_ns)}",
            "fallback: config_not_found": "there was no such config"
            if at_ns is not None
            else "there is no such config; `fallom configs ls` lists them",
            "fallback: version_not_found": "that version is not known here",
        }.get(past.reason, past.reason)
        yield f"The fallback{when}: {why}."
        return
    made = past.assigned
    yield f"{click.style(visible(made.model), bold=True)} (variant {made.index}){when}"
    share = f"bucket {made.bucket:,} of 1,000,000"
    because = {
        "weight": f"by weight: {share}",
        "individual_target": "because the session's customer or context is an individual target",
    }.get(made.reason, f"because of targeting {made.reason.replace(':', ' ')}, counted from 0")
    yield f"  {because}"
    published = time_text(past.published_unix_ns)
    yield f"  config {visible(key)} version {past.version}, published {published}"
    yield f"  session {visible(session_id)}"
