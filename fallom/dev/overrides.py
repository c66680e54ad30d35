"""``Overrides``: weights that were changed on the page, in memory, above what the files say.

The files are their author's, with comments and an order of their own, so the page never writes them. A
changed weight is a new version above all that the file has: assignments of before and after stay apart.
Whoever edits the entry's file takes it back into their own hands, and the override is gone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from fallom._folder.documents import Document, FileError
from fallom._folder.folder import Catalogue
from fallom._folder.shapes import SHAPES, Check

__all__ = ["WEIGHTED_KINDS", "OverrideError", "Overrides"]

WEIGHTED_KINDS: Final = ("configs", "prompt_ab_tests")


class OverrideError(ValueError):
    """Weights that cannot be served; the message says why."""


class _Override(NamedTuple):
    of: dict[int, dict[str, Any]]  # the versions in the file when it was made
    entry: dict[str, Any]


class Overrides:
    """What was changed on the page. Not safe for two threads at once."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, str], _Override] = {}
        self._highest: dict[tuple[str, str], int] = {}

    def keys(self) -> set[tuple[str, str]]:
        """Give (kind, key) of all that is overridden."""
        return set(self._made)

    def applied(self, catalogue: Catalogue) -> Catalogue:
        """Give the catalogue with the overrides; drop those whose file was edited meanwhile."""
        for place, override in list(self._made.items()):
            kind, key = place
            if catalogue.entries[kind].get(key) != override.of:
                del self._made[place]
        if not self._made:
            return catalogue
        entries = {kind: dict(keys) for kind, keys in catalogue.entries.items()}
        for (kind, key), override in self._made.items():
            entries[kind][key] = {**entries[kind][key], override.entry["version"]: override.entry}
        return Catalogue(entries, catalogue.problems)

    def set_weights(
        self, catalogue: Catalogue, kind: str, key: str, weights: Sequence[str]
    ) -> dict[str, Any]:
        """Serve ``key`` with these weights from now on; give the new version.

        Args:
            catalogue: What the files say, without overrides.
            kind: One of ``WEIGHTED_KINDS``.
            key: Of the config or test.
            weights: One text for each variant of its current version.

        Raises:
            OverrideError: There is no such entry, or these are no weights for it.
        """
        versions = catalogue.entries[kind].get(key) if kind in WEIGHTED_KINDS else None
        if not versions:
            raise OverrideError(f"{key!r} is not served.")
        place = (kind, key)
        current = self._made[place].entry if place in self._made else versions[max(versions)]
        if len(weights) != len(current["variants"]):
            raise OverrideError(f"{len(current['variants'])} variants need as many weights.")
        highest = max(*versions, self._highest.get(place, 0))
        variants = [
            {**variant, "weight": weight}
            for variant, weight in zip(current["variants"], weights, strict=True)
        ]
        entry = _checked(kind, {**current, "version": highest + 1, "variants": variants})
        self._made[place] = _Override(versions, entry)
        self._highest[place] = highest + 1
        return entry

    def drop(self, kind: str, key: str) -> None:
        """Serve what the file says again; nothing happens where it is served already."""
        self._made.pop((kind, key), None)


def _checked(kind: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    check = Check(Document(None, None))
    try:
        checked = SHAPES[kind](check, dict(entry), (), str(entry["key"]), 1)
    except FileError as error:
        raise OverrideError(f"{error}.") from None
    if check.warnings:
        raise OverrideError("".join(message for message, _ in check.warnings) + ".")
    return checked
