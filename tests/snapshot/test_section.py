"""What a listing of the server changes in what is known, and what it never takes away."""

from __future__ import annotations

from fallom._snapshot.schema import read_config
from fallom._snapshot.section import REMOVED_MAX, VERSIONS_MAX, Item, with_listed, with_pinned
from tests.snapshot.builders import config, configs


def test_the_last_listed_version_is_current_and_the_earlier_ones_stay() -> None:
    one = configs(config("k", 1))
    two = configs(config("k", 2))
    section = with_listed({}, one.entries, one.listed, 5)
    section = with_listed(section, two.entries, two.listed, 6)
    assert section["k"].current == 2
    assert set(section["k"].versions) == {1, 2}


def test_a_key_that_is_not_listed_any_more_stays_and_is_flagged_once() -> None:
    both, one = configs(config("a"), config("b")), configs(config("a"))
    section = with_listed({}, both.entries, both.listed, 5)
    section = with_listed(section, one.entries, one.listed, 6)
    later = with_listed(section, one.entries, one.listed, 7)
    assert later["b"].current == 1
    assert later["b"].removed_unix_ns == 6
    back = with_listed(later, both.entries, both.listed, 8)
    assert back["b"].removed_unix_ns == 0


def test_a_key_whose_item_is_refused_is_not_flagged_as_removed() -> None:
    good, bad = configs(config("a")), configs({"key": "a"})
    section = with_listed({}, good.entries, good.listed, 5)
    assert with_listed(section, bad.entries, bad.listed, 6) == section


def test_an_empty_listing_removes_nothing() -> None:
    good, empty = configs(config("a")), configs()
    section = with_listed({}, good.entries, good.listed, 5)
    assert with_listed(section, empty.entries, empty.listed, 6) == section


def test_a_pinned_version_is_not_current() -> None:
    listing = configs(config("k", 5))
    section = with_listed({}, listing.entries, listing.listed, 5)
    section = with_pinned(section, read_config(config("k", 2), "k", 2))
    section = with_pinned(section, read_config(config("other", 2), "other", 2))
    assert section["k"].current == 5
    assert set(section["k"].versions) == {2, 5}
    assert section["other"].current is None
    again = with_listed(section, listing.entries, listing.listed, 9)
    assert again["other"].removed_unix_ns == 0


def test_versions_and_removed_keys_are_bounded() -> None:
    section = {}
    for version in range(1, VERSIONS_MAX + 10):
        listing = configs(config("k", version))
        section = dict(with_listed(section, listing.entries, listing.listed, 5))
    assert len(section["k"].versions) == VERSIONS_MAX
    assert section["k"].current in section["k"].versions
    for number in range(REMOVED_MAX + 10):
        section[f"old{number}"] = Item(1, 10 + number, {1: "h"})
    listing = configs(config("k", 1))
    bounded = with_listed(section, listing.entries, listing.listed, 99_999)
    assert "old0" not in bounded
    assert f"old{REMOVED_MAX + 9}" in bounded
    assert len(bounded) == REMOVED_MAX + 1


def test_a_current_version_is_kept_however_many_pins_come() -> None:
    listing = configs(config("k", 1))
    section = with_listed({}, listing.entries, listing.listed, 5)
    for version in range(2, VERSIONS_MAX + 10):
        section = with_pinned(section, read_config(config("k", version), "k", version))
    assert section["k"].current == 1
    assert 1 in section["k"].versions
