"""The place: good as long as its names lead to what is open."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from fallom._host.place import Place
from tests.support.descriptors import nothing_left_open


def find(path: Path) -> Place:
    return Place.find(str(path), "0123456789abcdef", {})


def test_a_place_is_good_until_it_is_removed(tmp_path: Path) -> None:
    place = find(tmp_path / "state")
    assert place.is_good()
    shutil.rmtree(tmp_path / "state")
    assert not place.is_good()


def test_a_place_made_anew_by_another_is_not_the_old_one(tmp_path: Path) -> None:
    place = find(tmp_path / "state")
    shutil.rmtree(tmp_path / "state")
    other = find(tmp_path / "state")
    assert not place.is_good()
    assert other.is_good()


def test_a_place_whose_page_was_replaced_is_not_good(tmp_path: Path) -> None:
    place = find(tmp_path / "state")
    os.unlink("control", dir_fd=place.directory.root.fd)
    find(tmp_path / "state")
    assert not place.is_good()


def test_a_place_that_was_given_up_leaves_no_descriptor(tmp_path: Path) -> None:
    with nothing_left_open():
        for _ in range(3):
            place = find(tmp_path / "state")
            shutil.rmtree(tmp_path / "state")
            assert not place.is_good()
        del place


def test_a_place_without_a_page_leaves_no_descriptor(tmp_path: Path) -> None:
    find(tmp_path / "state").page.close()
    control = tmp_path / "state" / "v1" / "0123456789abcdef" / "control"
    control.unlink()
    control.mkdir()
    with nothing_left_open(), pytest.raises(OSError, match="control"):
        find(tmp_path / "state")
