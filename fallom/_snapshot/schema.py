"""From what the server answers to entries, item by item.

A good item serves whatever its neighbours are. A bad one is refused with a ``PayloadError`` that names
the item and the field, what was found, what was expected and how to mend it; what was known under its
key stays. Fields that are not known are ignored: the server may be newer. What is legal but hardly
meant (weights that sum to 1) serves, and gives a note.

No message holds a prompt's text or a targeting value: the first is secret, the second may name a person.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fallom._core.errors import PayloadError
from fallom._snapshot.entries import Entry, Kind, Record, encode_entry
from fallom._snapshot.items import ab_test_record, config_record, prompt_record
from fallom._snapshot.location import Location, shown

__all__ = ["LISTING_NAMES", "Listing", "parse_json", "read_config", "read_listing"]


@dataclass(frozen=True, slots=True)
class Listing:
    """What the server lists of one kind.

    Attributes:
        kind: Of all its items.
        entries: The good items, in order; of several of one key the last is its current version.
        listed: Every key that was named, those of refused items too; empty if nothing was listed.
        refused: One error for each item that cannot be served.
        notes: One sentence for each finding that serves, but is hardly meant.
    """

    kind: Kind
    entries: tuple[Entry, ...] = ()
    listed: frozenset[str] = frozenset()
    refused: tuple[PayloadError, ...] = ()
    notes: tuple[str, ...] = ()


_DIGITS_MAX = 600  # Python's own limit can be set down to 640, and refuses the whole answer
_Read = Callable[[Any, Location, list[str]], Record]

LISTING_NAMES: Mapping[Kind, str] = {  # what the server calls a list of them
    Kind.CONFIG: "configs",
    Kind.PROMPT: "prompts",
    Kind.AB_TEST: "prompt_ab_tests",
}
_READERS: Mapping[Kind, _Read] = {
    Kind.CONFIG: config_record,
    Kind.PROMPT: prompt_record,
    Kind.AB_TEST: ab_test_record,
}


def parse_json(body: bytes, source: str) -> Any:
    """Parse an answer's body.

    Args:
        body: The bytes.
        source: Where they are from, for the message.

    Raises:
        PayloadError: They are not JSON.
    """
    try:
        return json.loads(body, parse_int=_whole)
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise PayloadError(
            f"{source} answered with {len(body)} bytes that are not JSON ({why}); expected a JSON "
            "object. See that the URL is that of the API and not of a page or proxy.",
            source,
        ) from None


def _whole(digits: str) -> int:
    """Give a number; one with more digits than Python reads as one that no field takes either."""
    return int(digits) if len(digits) <= _DIGITS_MAX else 1 << 64


def read_listing(kind: Kind, payload: Any) -> Listing:
    """Check a listing, item by item.

    Raises:
        PayloadError: It is not ``{"configs": [...]}``, or what its kind has instead.
    """
    name, read = LISTING_NAMES[kind], _READERS[kind]
    items = payload.get(name) if type(payload) is dict else None
    if type(items) is not list:
        found = shown(payload) if type(payload) is not dict else f"an object whose {name} is "
        found += "" if type(payload) is not dict else shown(items) if name in payload else "missing"
        raise PayloadError(
            f'the listing of {name} is {found}; expected {{"{name}": [...]}}. See that the URL is '
            "that of the API; what was known before is served.",
            name,
        )
    entries: dict[tuple[str, int], Entry] = {}
    served: dict[str, int] = {}
    refused: list[PayloadError] = []
    notes: list[str] = []
    for position, item in enumerate(items):
        location = Location(_item_name(name, position, item))
        try:
            entry = _encoded(read, item, location, notes)
            _check_unique(entries, entry, location)
        except PayloadError as error:
            refused.append(error)
            continue
        # Of prompts the server lists every version that may be pinned; of the others only the current.
        is_odd = kind is not Kind.PROMPT
        if served.setdefault(entry.key, entry.version) != entry.version and is_odd:
            notes.append(
                location.note(f"is listed again; version {entry.version} is its current one.")
            )
        entries.pop((entry.key, entry.version), None)  # the last of a key is its current version
        entries[entry.key, entry.version] = entry
    listed = frozenset(k for item in items if type(k := _key_of(item)) is str)
    return Listing(kind, tuple(entries.values()), listed, tuple(refused), tuple(notes))


def read_config(payload: Any, key: str, version: int) -> Entry:
    """Check a bare config, the answer to a question for one version.

    Raises:
        PayloadError: It cannot be served, or is not the one that was asked for.
    """
    location = Location(f"config {shown(key)} version {version}")
    if type(payload) is dict:
        payload = {"key": key, "version": version, **payload}
    entry = _encoded(config_record, payload, location, [])
    if (entry.key, entry.version) != (key, version):
        raise location.refusal(f"{shown(entry.key)} version {entry.version}", "what was asked for")
    return entry


def _encoded(read: _Read, item: Any, location: Location, notes: list[str]) -> Entry:
    record = read(item, location, notes)
    try:
        return encode_entry(record)
    except PayloadError as error:
        raise PayloadError(f"{location.item}: {error}", location.item) from None


def _check_unique(
    entries: Mapping[tuple[str, int], Entry], entry: Entry, location: Location
) -> None:
    earlier = entries.get((entry.key, entry.version))
    if earlier is not None and earlier.hash != entry.hash:
        raise location.refusal(
            f"listed before as version {entry.version} with other content",
            "one content for a version",
        )


def _item_name(name: str, position: int, item: Any) -> str:
    key = _key_of(item)
    return f"{name}[{position}]" + (f" {shown(key)}" if type(key) is str else "")


def _key_of(item: Any) -> Any:
    return item.get("key") if type(item) is dict else None
