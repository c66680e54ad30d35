"""``fallom configs``: what is served to the applications of this host, and who gets what, and why."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fallom._core.errors import FallomError
from fallom.cli.exits import EXIT_CODES, EXIT_WRONG
from fallom.cli.host import host_options, open_host
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
    from fallom._snapshot.entries import Kind
    from fallom._snapshot.history import History
    from fallom._snapshot.manifest import Manifest

__all__ = ["complete_config", "configs", "known_items", "opened", "pairs_of"]


@click.group()
def configs() -> None:
    """Look at the model configs on this host.

    Nothing is asked of a server.
    """


@contextlib.contextmanager
def opened(state_dir: str | None, namespace: str | None) -> Iterator[History]:
    """Open what is published on this host.

    Raises:
        click.ClickException: It cannot be read, or nothing was ever published.
    """
    from fallom._snapshot.database import DatabaseError
    from fallom._snapshot.history import opened_history

    host = open_host(state_dir, namespace)
    try:
        with opened_history(Path(host.place.directory.snapshot_path)) as history:
            if not history.manifests:
                raise click.ClickException(
                    f"Nothing was ever fetched into {host.path}. The settings here (key, URLs, headers, "
                    "FALLOM_STATE_DIR) must be those of the application; `fallom status` lists what "
                    "else is on this host, `fallom doctor` says what is wrong."
                )
            yield history
    except DatabaseError as error:
        raise click.ClickException(f"The snapshot cannot be read: {error}") from None


def known_items(history: History, kind: Kind) -> list[dict[str, Any]]:
    """Give the current version of each key as the server lists it, with what is known beside."""
    from fallom._snapshot.payload import item_of

    manifest = history.at(None)
    assert manifest is not None
    found = []
    for key, item in sorted(manifest.sections.get(kind, {}).items()):
        data = history.data(manifest, kind, key, None)
        if data is not None:
            versions = sorted(item.versions)
            removed = time_text(item.removed_unix_ns) if item.removed_unix_ns else None
            found.append({**item_of(data), "versions": versions, "removed_at": removed})
    return found


def complete_config(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[str]:
    """Give the keys of configs that begin so, for the shell."""
    del parameter
    from fallom._snapshot.entries import Kind

    where = context.params.get("state_dir"), context.params.get("namespace")
    # A shell that asks shows nothing then.
    with contextlib.suppress(click.ClickException, FallomError, OSError), opened(*where) as history:
        keys = [item["key"] for item in known_items(history, Kind.CONFIG)]
        return [key for key in keys if key.startswith(incomplete)]
    return []


def pairs_of(name: str, given: tuple[str, ...]) -> dict[str, str]:
    """Read ``name=value`` options.

    Raises:
        click.UsageError: One is none.
    """
    found = {}
    for each in given:
        key, equals, value = each.partition("=")
        if not equals or not key:
            raise click.UsageError(f"{name} is {each!r}; expected name=value.")
        found[key] = value
    return found


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
@click.argument("key", shell_complete=complete_config)
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
        echo_json(_shown(history, Kind.CONFIG, "config", key, version))


@configs.command("explain", epilog=EXIT_CODES)
@host_options
@json_option
@click.argument("key", shell_complete=complete_config)
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
    try:
        with click.open_file(path, "w", encoding="utf-8", atomic=path != "-") as file:
            file.write(text)
    except OSError as error:
        raise click.UsageError(f"{path!r} cannot be written: {error.strerror}.") from None
    counts = ", ".join(f"{len(v)} {k.replace('_', ' ')}" for k, v in payload.items() if v != 1)
    click.echo(f"{counts} exported.", err=True)


def shown_item(
    history: History, kind: Kind, what: str, key: str, version: int | None
) -> dict[str, Any]:
    """Give one version of a key, with the versions that are known.

    Raises:
        click.ClickException: It is not known; what is near is named.
    """
    return _shown(history, kind, what, key, version)


def _shown(
    history: History, kind: Kind, what: str, key: str, version: int | None
) -> dict[str, Any]:
    import difflib

    from fallom._snapshot.payload import item_of

    manifest = history.at(None)
    assert manifest is not None
    data = history.data(manifest, kind, key, version)
    section = manifest.sections.get(kind, {})
    if data is None:
        if key in section and version is not None:
            known = ", ".join(map(str, sorted(section[key].versions)))
            raise click.ClickException(
                f"There is no version {version} of {what} {key!r} here; there are {known}."
            )
        near = difflib.get_close_matches(key, section, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise click.ClickException(f"There is no {what} {key!r} on this host.{hint}")
    return {**item_of(data), "versions": sorted(section[key].versions), **_since(manifest)}


def _since(manifest: Manifest) -> dict[str, Any]:
    return {"published_at": time_text(manifest.published_unix_ns)}


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
