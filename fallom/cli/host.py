"""Where a command looks: the state directory and the namespace, found without making anything.

The namespace is a hash of key, URLs and headers. An operator whose environment has not the settings of the
application (a key that stands in its code only) names it by ``--namespace``, as ``fallom status`` lists it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from fallom._core.settings import Settings, resolve_settings
from fallom._flusher.targets import hashes_of, target_hashes
from fallom._host.control import ControlPage
from fallom._host.directory import StateDirectory, namespaces_of, state_bases
from fallom._host.files import open_directory
from fallom._host.place import Place
from fallom._host.target_board import TargetBoard
from fallom._spool.segment import Destination

__all__ = ["Host", "Other", "find_host", "host_options", "open_host", "others_of"]

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Host:
    """One namespace of this host, open."""

    settings: Settings
    namespace: str
    place: Place

    @property
    def targets(self) -> Mapping[Destination, bytes] | None:
        """Where its records go; None where only the applications know."""
        is_ours = self.namespace == self.settings.namespace
        return target_hashes(self.settings) if is_ours else None

    @property
    def targets_by_name(self) -> dict[str, Mapping[Destination, bytes]] | None:
        """The hashes of the main target ("") and of each extra one; None where nobody knows them.

        Where only the applications know, and there are no extra targets, it is the main one with none.
        """
        if self.targets is None:
            has_extra = bool(TargetBoard(self.place.page).states())
            return None if has_extra else {"": dict.fromkeys(Destination, b"")}
        extra = {each.name: hashes_of(each) for each in self.settings.extra_targets}
        return {"": self.targets, **extra}

    @property
    def path(self) -> str:
        """Its directory."""
        return self.place.directory.path


@dataclass(frozen=True, slots=True)
class Other:
    """A namespace that is on this host."""

    base: str
    namespace: str


def host_options(command: F) -> F:
    """Give a command the options that say where it looks."""
    for option in (
        click.option(
            "--namespace",
            metavar="ID",
            help="Of which application, by the first digits of what `fallom status` lists.",
        ),
        click.option(
            "--state-dir", metavar="PATH", help="Where to look, instead of FALLOM_STATE_DIR."
        ),
    ):
        command = option(command)
    return command


def find_host(state_dir: str | None, namespace: str | None) -> Host | None:
    """Open the namespace that is meant; None if nothing was ever kept for it.

    Raises:
        ConfigurationError: A setting or the directory cannot be used.
        click.UsageError: There is not one namespace that begins so.
    """
    settings = resolve_settings({"state_dir": state_dir}, os.environ)
    if settings.state_dir is not None and os.path.lexists(settings.state_dir):
        open_directory(settings.state_dir, follow=True).close()  # told now if it cannot be used
    known = _known(settings)
    if namespace is None:
        found = [each for each in known if each.namespace == settings.namespace]
    else:
        found = [each for each in known if each.namespace.startswith(namespace)]
        if len(found) != 1:
            names = ", ".join(each.namespace for each in known) or "none"
            many = f"{len(found)} namespaces begin with" if found else "no namespace begins with"
            raise click.UsageError(f"--namespace: {many} {namespace!r}; there are: {names}.")
    if not found:
        return None
    directory = StateDirectory(found[0].base, found[0].namespace)
    place = Place(directory, ControlPage.open(directory.root))
    return Host(settings, found[0].namespace, place)


def open_host(state_dir: str | None, namespace: str | None) -> Host:
    """Open the namespace that is meant.

    Raises:
        ConfigurationError: A setting or the directory cannot be used.
        click.ClickException: Nothing was ever kept for it; what is there is named.
    """
    host = find_host(state_dir, namespace)
    if host is None:
        settings = resolve_settings({"state_dir": state_dir}, os.environ)
        raise click.ClickException(nothing_kept(others_of(settings, settings.namespace)))
    return host


def others_of(settings: Settings, namespace: str) -> list[Other]:
    """List the other namespaces of this user on this host."""
    return [each for each in _known(settings) if each.namespace != namespace]


def nothing_kept(others: list[Other]) -> str:
    """Say that there is nothing here, and where there is something."""
    sentence = (
        "Nothing was recorded or fetched here yet with the settings of this environment: key, URLs and "
        "FALLOM_STATE_DIR decide the place."
    )
    if others:
        listed = "".join(f"\n  --namespace {each.namespace}  in {each.base}" for each in others)
        sentence += f" With others there is something; to look at it, give{listed}"
    return sentence


def _known(settings: Settings) -> list[Other]:
    bases = state_bases(settings.state_dir, os.environ)
    return [Other(base, name) for base in bases for name in namespaces_of(base)]
