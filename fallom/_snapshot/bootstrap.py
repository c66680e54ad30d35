"""The bootstrap: a snapshot that an application ships with, used for a kind of which nothing was published.

One JSON file, as ``fallom configs export`` writes it: the server's three listings in one object, every
version that is known, of each key the current one last::

    {"fallom_bootstrap": 1, "configs": [...], "prompts": [...], "prompt_ab_tests": [...]}

It is checked as strictly as an answer of the server's, and an item that cannot be served is an error here:
a person made this file, and can make it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from fallom._core.errors import ConfigurationError, PayloadError
from fallom._snapshot.entries import Compiled, Kind, decode_entry
from fallom._snapshot.history import History
from fallom._snapshot.payload import item_of
from fallom._snapshot.schema import LISTING_NAMES, parse_json, read_listing

__all__ = ["Bootstrap", "bootstrap_of", "read_bootstrap"]

Bootstrap: TypeAlias = "Mapping[tuple[Kind, str, int | None], Compiled]"

_FORMAT: Final = 1
_MARK: Final = "fallom_bootstrap"


def read_bootstrap(path: str) -> Bootstrap:
    """Read a bootstrap file.

    Raises:
        ConfigurationError: It is not there, or cannot be served.
    """
    expected = "expected a file that `fallom configs export` wrote"
    try:
        with open(path, "rb") as file:
            payload = parse_json(file.read(), path)
    except OSError as error:
        raise _refusal(path, f"{error.strerror}; {expected}") from None
    except PayloadError:
        raise _refusal(path, f"it is not JSON; {expected}") from None
    if not isinstance(payload, dict) or payload.get(_MARK) != _FORMAT:
        raise _refusal(path, f"it does not say {_MARK!r}: {_FORMAT}; {expected}")
    found: dict[tuple[Kind, str, int | None], Compiled] = {}
    for kind, name in LISTING_NAMES.items():
        try:
            listing = read_listing(kind, {name: payload.get(name, [])})
        except PayloadError as error:
            raise _refusal(path, str(error)) from None
        if listing.refused:
            raise _refusal(path, str(listing.refused[0]))
        for entry in listing.entries:
            compiled = decode_entry(entry.data)
            found[kind, entry.key, entry.version] = compiled
            found[kind, entry.key, None] = compiled
    return found


def bootstrap_of(history: History) -> dict[str, Any]:
    """Give the newest published state as a bootstrap's JSON object."""
    payload: dict[str, Any] = {_MARK: _FORMAT}
    manifest = history.at(None)
    for kind, name in LISTING_NAMES.items():
        payload[name] = items = []
        section = manifest.sections.get(kind, {}) if manifest is not None else {}
        for key, item in sorted(section.items()):
            if item.current is None:
                continue  # only pins are known of it: whoever pins asks for them again
            others = sorted(version for version in item.versions if version != item.current)
            assert manifest is not None
            *older, current = (
                history.data(manifest, kind, key, version) for version in (*others, item.current)
            )
            if current is not None:  # lost: without it an older one would be taken for it
                items += [item_of(data) for data in (*older, current) if data is not None]
    return payload


def _refusal(path: str, problem: str) -> ConfigurationError:
    return ConfigurationError(f"bootstrap {path!r} cannot be used: {problem}", "bootstrap")
