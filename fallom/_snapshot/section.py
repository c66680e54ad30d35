"""A section: what is known of the keys of one kind, and what a listing of the server changes in it.

As bytes an item is ``[current version or nil, unix ns of its removal or 0, [version, hash, version,
hash, ...]]``, versions in the order in which they came. Elements may be added at the end; a reader
ignores those that it does not know.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

import msgpack

from fallom._snapshot.entries import VERSION_MAX, Entry

__all__ = [
    "MALFORMED",
    "Item",
    "having",
    "pack_item",
    "text",
    "unpack_item",
    "whole",
    "with_listed",
    "with_pinned",
]

VERSIONS_MAX = 64  # of one key; guess: pins older than that are asked for again (configs) or gone
REMOVED_MAX = 1000  # keys that are no longer listed; beyond, the longest removed one is forgotten

# What reading bytes raises that are no items, in whatever way.
MALFORMED: Final = (
    ValueError,
    TypeError,
    AttributeError,
    IndexError,
    RecursionError,
    msgpack.exceptions.UnpackException,
)


class Item(NamedTuple):
    """What is known of one key."""

    current: int | None  # None: only pinned versions are known
    removed_unix_ns: int  # since when the server does not list it, 0 while it does
    versions: Mapping[int, str]  # version -> hash, in the order in which they came

    def hash_of(self, version: int | None) -> str | None:
        """Give the hash of a version's entry; ``version`` None is the current one."""
        wanted = self.current if version is None else version
        return None if wanted is None else self.versions.get(wanted)


def pack_item(item: Item) -> list[Any]:
    """Give an item as msgpack packs it."""
    flat = [part for pair in item.versions.items() for part in pair]
    return [item.current, item.removed_unix_ns, flat]


def unpack_item(fields: Any) -> Item:
    """Read an item.

    Raises:
        TypeError, ValueError: It is none.
    """
    current, removed_unix_ns, flat = fields[:3]
    if type(fields) is not list or type(flat) is not list:
        raise TypeError
    versions = dict(zip(flat[0::2], flat[1::2], strict=True))
    for version, entry_hash in versions.items():
        whole(version)
        text(entry_hash)
    if current is not None:
        whole(current)
    return Item(current, whole(removed_unix_ns), versions)


def text(value: Any) -> str:
    """Give a value that has to be text; another is a ``TypeError``."""
    if type(value) is not str:
        raise TypeError
    return value


def whole(value: Any) -> int:
    """Give a value that has to be a version, a time or a count; another is a ``TypeError``."""
    if type(value) is not int or not 0 <= value <= VERSION_MAX:
        raise TypeError
    return value


def with_listed(
    section: Mapping[str, Item], entries: Iterable[Entry], listed: frozenset[str], unix_ns: int
) -> Mapping[str, Item]:
    """Give a section after the server's listing.

    Args:
        section: What was known.
        entries: The good items; of several of one key the last is its current version.
        listed: The keys that the server named, those of refused items too. None at all means that
            the answer was empty, which never counts as "all removed".
        unix_ns: Now.
    """
    after = dict(section)
    for entry in entries:
        _add(after, entry, is_current=True)
    if listed:
        for key, item in section.items():
            if key not in listed and item.current is not None and not item.removed_unix_ns:
                after[key] = item._replace(removed_unix_ns=unix_ns)
    removed = sorted((i.removed_unix_ns, key) for key, i in after.items() if i.removed_unix_ns)
    for _, key in removed[: max(0, len(removed) - REMOVED_MAX)]:
        del after[key]
    return after


def with_pinned(section: Mapping[str, Item], entry: Entry) -> Mapping[str, Item]:
    """Give a section with a version that is not the current one."""
    after = dict(section)
    _add(after, entry, is_current=False)
    return after


def _add(section: dict[str, Item], entry: Entry, is_current: bool) -> None:
    before = section.get(entry.key, Item(None, 0, {}))
    current = entry.version if is_current else before.current
    removed_unix_ns = 0 if is_current else before.removed_unix_ns
    if before.versions.get(entry.version) == entry.hash:  # keep the order in which they came
        if (before.current, before.removed_unix_ns) != (current, removed_unix_ns):
            section[entry.key] = before._replace(current=current, removed_unix_ns=removed_unix_ns)
        return
    versions = {v: h for v, h in before.versions.items() if v != entry.version}
    versions[entry.version] = entry.hash
    for version in list(versions)[: max(0, len(versions) - VERSIONS_MAX)]:
        if version != current:
            del versions[version]
    section[entry.key] = Item(current, removed_unix_ns, versions)


def having(section: Mapping[str, Item], hashes: set[str]) -> Iterator[tuple[str, Item]]:
    """Give the items of a section without the versions whose entry is not among ``hashes``."""
    for key, item in section.items():
        versions: Mapping[int, str] = item.versions
        if versions and hashes.issuperset(versions.values()):
            yield key, item
            continue
        versions = {v: h for v, h in versions.items() if h in hashes}
        if versions:
            current = item.current if item.current in versions else None
            yield key, Item(current, item.removed_unix_ns, versions)
