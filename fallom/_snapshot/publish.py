"""Publishing: entries and their manifest, whole or not at all; in the flusher only.

One transaction writes the entries and shards that are new, the manifest that names them, and removes
what no kept manifest names. The generation is announced to workers after the commit, by the caller. An
unchanged set is one SELECT.

A database that is not there is built aside and renamed into place, so that nobody ever sees one without
a manifest. One that is broken, or that is not a plain file of ours, is set aside and built anew from what
the server says next; until then its generation says of each kind "not known", and workers keep what
they have.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from fallom._core.errors import PayloadError
from fallom._snapshot.aside import remove_entirely, set_aside
from fallom._snapshot.database import (
    DATABASE_NAME,
    SIDE_FILES,
    DatabaseBrokenError,
    DatabaseError,
    DatabaseMissingError,
    Rows,
    entry_key,
    manifest_key,
    reading,
    shard_key,
)
from fallom._snapshot.entries import Entry, hash_of
from fallom._snapshot.manifest import (
    Manifest,
    Root,
    Sections,
    assemble,
    decode_root,
    encode_root,
    root_of,
)
from fallom._snapshot.references import References
from fallom._snapshot.schema import Listing
from fallom._snapshot.section import Item, with_listed, with_pinned
from fallom._snapshot.shards import decode_shard

__all__ = ["MANIFESTS_KEPT", "PublishError", "Publisher"]

MANIFESTS_KEPT = 16  # to explain the past, and for readers that are a few generations behind
CHECK_EVERY = 20  # loads between two checks of every row; two a sync, so five minutes by default

_READ_TIMEOUT_S = 5.0
_BUILDING = "building"

_logger = logging.getLogger("fallom")


class PublishError(Exception):
    """Nothing was published; what was published before still is, and one may try again."""


class _Stored(NamedTuple):
    """What the database holds, but for what is damaged."""

    entries: set[str]
    shards: set[str]
    manifests: list[str]  # keys of rows


class Publisher:
    """The one writer of a snapshot. For one thread at a time."""

    def __init__(
        self,
        directory: Path,
        *,
        manifests_kept: int = MANIFESTS_KEPT,
        unix_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """Open nothing yet.

        Args:
            directory: The snapshot's own directory; made (0700) when it is missing.
            manifests_kept: How many generations stay.
            unix_ns: The wall clock.
        """
        self._directory = directory
        self._database = directory / DATABASE_NAME
        self._manifests_kept = manifests_kept
        self._unix_ns = unix_ns
        self._manifest = Manifest()
        self._root = Root()  # of the manifest
        self._data = b""  # of the root, to see that the database still has it
        self._generation_min = 1  # a rebuilt database goes on counting
        self._references = References()
        self._damaged: set[str] = set()  # hashes whose rows are to be written again
        self._loads_until_check = 0
        self._rebuilds = 0

    @property
    def rebuilds(self) -> int:
        """How often something published was lost: who remembers ETags must forget them then."""
        return self._rebuilds

    def manifest(self) -> Manifest:
        """Give what is published, looking at the database; generation 0 if nothing is.

        Raises:
            PublishError: The database cannot be read now.
        """
        with _as_publish_error():
            return self._load()

    def publish(self, listings: Iterable[Listing] = (), pinned: Iterable[Entry] = ()) -> int:
        """Publish what the server listed, and versions that somebody pinned.

        Args:
            listings: One for each kind whose answer was good. A kind without one stays as it is.
            pinned: Entries that are not their key's current version; left out where the kind itself is
                not known yet.

        Returns:
            The generation; that of before if nothing changed, 0 if nothing was ever published.

        Raises:
            PublishError: A full or read-only disk, or a reader that does not let go; nothing changed.
        """
        with _as_publish_error():
            before = self._load()
            sections = dict(before.sections)
            given: dict[str, bytes] = {}
            for listing in listings:
                known = sections.get(listing.kind, {})
                sections[listing.kind] = with_listed(
                    known, listing.entries, listing.listed, self._unix_ns()
                )
                given.update({entry.hash: entry.data for entry in listing.entries})
            for entry in pinned:
                if entry.kind in sections:
                    sections[entry.kind] = with_pinned(sections[entry.kind], entry)
                    given[entry.hash] = entry.data
            if sections != before.sections or self._damaged:
                try:
                    self._write(sections, given)
                except DatabaseError:
                    self._loads_until_check = 0  # the next load looks at everything
                    raise
            return self._manifest.generation

    def _load(self) -> Manifest:
        """Read the current manifest; set a broken database aside."""
        try:
            with reading(self._database, _READ_TIMEOUT_S) as rows:
                self._look(rows)
        except DatabaseMissingError:
            self._forget()
        except (DatabaseBrokenError, PayloadError) as error:
            place = set_aside(self._directory)
            _logger.warning(
                "the snapshot's database was broken (%s) and was %s; what it held is fetched anew, "
                "nothing needs to be done.",
                error,
                "removed" if place is None else f"set aside in {place}",
            )
            self._forget()
        return self._manifest

    def _look(self, rows: Rows) -> None:
        is_check_due = self._loads_until_check <= 0
        if is_check_due:
            rows.check()
        data = rows.manifest()
        if data is None:
            raise DatabaseBrokenError("it holds no manifest")
        if is_check_due:
            self._damaged = set()
        if data != self._data or is_check_due:
            self._read(rows, decode_root(data), data)
        if is_check_due:
            self._check_entries(rows)
        self._loads_until_check = CHECK_EVERY if is_check_due else self._loads_until_check - 1

    def _read(self, rows: Rows, root: Root, data: bytes) -> None:
        """Read all shards; what a lost or damaged one had counts as not known."""
        lost: set[str] = set()

        def items(shard: str) -> Mapping[str, Item]:
            try:
                return decode_shard(rows.shard(shard), shard)
            except PayloadError:
                lost.add(shard)
                return {}

        manifest = assemble(root, items)
        if lost:
            root = Root(root.generation)  # every shard is made anew
        self._hold(manifest, root, data)
        self._damaged |= lost
        if lost:
            self._tell_lost(len(lost), "shards")

    def _hold(self, manifest: Manifest, root: Root, data: bytes) -> None:
        self._manifest, self._root, self._data = manifest, root, data
        self._generation_min = max(self._generation_min, manifest.generation + 1)

    def _check_entries(self, rows: Rows) -> None:
        """Count versions whose entry is lost or damaged as not known, so that they are written anew."""
        named = set(self._manifest.hashes())
        damaged = {each for each in named if not _is_intact(rows.entry(each), each)}
        if damaged:
            self._damaged |= damaged
            self._manifest = self._manifest.having(named - damaged)
            self._root = Root(self._root.generation)
            self._tell_lost(len(damaged), f"of {len(named)} entries")

    def _tell_lost(self, count: int, what: str) -> None:
        _logger.warning(
            "%d %s of the snapshot are damaged or missing; they are fetched anew.", count, what
        )
        self._rebuilds += 1

    def _forget(self) -> None:
        if self._manifest.generation:
            self._rebuilds += 1
        self._manifest, self._root, self._data = Manifest(), Root(), b""
        self._references = References()
        self._damaged = set()
        self._loads_until_check = 0

    def _write(self, sections: Sections, given: dict[str, bytes]) -> None:
        now_ns = self._unix_ns()
        manifest = Manifest(max(self._generation_min, now_ns), now_ns, sections)
        if not self._manifest.generation:
            self._build(manifest, given)
            return
        with reading(self._database, _READ_TIMEOUT_S) as rows:
            stored = _Stored(
                rows.entry_hashes() - self._damaged,
                rows.shard_hashes() - self._damaged,
                rows.manifest_keys(),
            )
            self._references.look(rows, self._manifests_kept - 1)
        there = stored.entries | given.keys()
        lost = set(manifest.hashes()) - there  # since the check
        if lost:
            self._tell_lost(len(lost), "entries")
        self._commit(self._directory, manifest.having(there), given, stored)

    def _build(self, manifest: Manifest, given: dict[str, bytes]) -> None:
        """Make a whole database aside, and rename it into place."""
        _make_directory(self._directory)
        building = self._directory / _BUILDING
        if os.path.lexists(building):  # of a publisher that was killed here
            remove_entirely(building)
        os.mkdir(building, 0o700)
        # SQLite gives its journals the mode of the database, so this one decides for all.
        os.close(os.open(building / DATABASE_NAME, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        self._commit(building, manifest.having(set(given)), given, _Stored(set(), set(), []))
        if any(os.path.lexists(f"{self._database}{suffix}") for suffix in SIDE_FILES):
            set_aside(self._directory)  # they would be rolled back into a database not theirs
        os.rename(building / DATABASE_NAME, self._database)
        remove_entirely(building)

    def _commit(
        self, directory: Path, manifest: Manifest, given: dict[str, bytes], stored: _Stored
    ) -> None:
        from fallom._snapshot.store import opened  # diskcache, which only publishing needs

        root, made = root_of(manifest, self._manifest, self._root)
        data = encode_root(root)
        key = manifest_key(manifest.generation)
        references = self._references
        references.add(key, root)
        for shard, shard_data in made.items():
            references.learn(shard, shard_data)
        kept, kept_shards = references.entries(), references.shards()
        with opened(str(directory)) as cache, cache.transact():
            for damaged in self._damaged:  # what is not written now does not count as there later
                cache.delete(entry_key(damaged))
                cache.delete(shard_key(damaged))
            for entry_hash in set(manifest.hashes()) - stored.entries:
                cache.set(entry_key(entry_hash), given[entry_hash])
            for shard in made.keys() - stored.shards:
                cache.set(shard_key(shard), made[shard])
            cache.set(key, data)
            for old in set(stored.manifests) - references.manifests():
                cache.delete(old)
            for shard in stored.shards - kept_shards:
                cache.delete(shard_key(shard))
            for entry_hash in stored.entries - kept:
                cache.delete(entry_key(entry_hash))
        self._damaged = set()
        self._hold(manifest, root, data)


def _is_intact(data: bytes | None, entry_hash: str) -> bool:
    return data is not None and hash_of(data) == entry_hash


def _make_directory(path: Path) -> None:
    # Not its parents: a state directory that was removed is the workers' to make anew.
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise NotADirectoryError(20, "not a directory of this user", str(path))


@contextmanager
def _as_publish_error() -> Iterator[None]:
    try:
        yield
    except (DatabaseError, OSError) as error:
        raise PublishError(
            f"the snapshot could not be published ({error}); what was published before still "
            "serves, and it is tried again. See that its disk is writable and has space."
        ) from error
