"""What is published on this host, as ``fallom configs`` and ``fallom prompts`` look at it."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fallom._core.errors import FallomError
from fallom.cli.host import open_host
from fallom.cli.screen import time_text

if TYPE_CHECKING:
    from fallom._snapshot.entries import Kind
    from fallom._snapshot.history import History

__all__ = ["keys_beginning", "known_items", "opened", "pairs_of", "shown_item"]


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


def shown_item(
    history: History, kind: Kind, what: str, key: str, version: int | None
) -> dict[str, Any]:
    """Give one version of a key, with the versions that are known.

    Raises:
        click.ClickException: It is not known; what is near is named.
    """
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
    published = time_text(manifest.published_unix_ns)
    versions = sorted(section[key].versions)
    return {**item_of(data), "versions": versions, "published_at": published}


def keys_beginning(
    kind: str,
) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Give what completes the keys of a kind (a name of ``Kind``) for the shell."""

    def complete(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
        from fallom._snapshot.entries import Kind

        where = context.params.get("state_dir"), context.params.get("namespace")
        # A shell that asks shows nothing then.
        with (
            contextlib.suppress(click.ClickException, FallomError, OSError),
            opened(*where) as history,
        ):
            keys = [item["key"] for item in known_items(history, Kind[kind])]
            return [key for key in keys if key.startswith(incomplete)]
        return []

    return complete


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
