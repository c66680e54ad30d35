"""The watch over the spool: whatever may be of use to somebody is a change."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from fallom._host.files import File, entries_of, open_directory
from fallom._spool import watch as watch_module
from fallom._spool.watch import Watch
from tests.support.records import make_span
from tests.support.spools import Segment


def test_a_segment_that_comes_grows_is_sealed_or_goes_is_a_change(
    spool: File, spool_path: Path
) -> None:
    watch = Watch(spool)
    assert watch.has_changed(), "what was there before is new to whoever begins"
    assert not watch.has_changed()
    segment = Segment(spool)
    assert watch.has_changed()
    segment.add(make_span(1))
    assert watch.has_changed()
    assert not watch.has_changed()
    segment.seal()
    assert watch.has_changed()
    next(spool_path.iterdir()).unlink()
    assert watch.has_changed()
    assert not watch.has_changed()


@pytest.mark.parametrize("is_old", [True, False])
def test_the_time_of_the_directory_is_believed_only_where_it_is_old(
    spool: File, spool_path: Path, monkeypatch: pytest.MonkeyPatch, is_old: bool
) -> None:
    if is_old:
        os.utime(spool_path, ns=(1, 1))
    watch = Watch(spool)
    listed: list[File] = []

    def entries(directory: File) -> Any:
        listed.append(directory)
        return entries_of(directory)

    monkeypatch.setattr(watch_module, "entries_of", entries)
    watch.has_changed()
    watch.has_changed()
    assert len(listed) == (1 if is_old else 2)
    before = spool_path.stat().st_mtime_ns
    segment = Segment(spool)
    if not is_old:
        os.utime(spool_path, ns=(before, before))  # within one tick of the clock of files
    assert watch.has_changed()
    segment.file.close()


def test_what_is_sealed_is_not_looked_at_again(spool: File, spool_path: Path) -> None:
    segment = Segment(spool)
    segment.seal()
    watch = Watch(spool)
    watch.has_changed()
    assert watch._growing == []
    living = Segment(spool)
    assert watch.has_changed()
    assert watch._growing == [living.name.file_name()]
    living.file.close()


def test_where_there_is_too_much_to_look_at_something_has_changed(
    spool: File, spool_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "SEGMENTS_MAX", 1)
    segments = [Segment(spool), Segment(spool)]
    watch = Watch(spool)
    assert all(watch.has_changed() for _ in range(5))
    for segment in segments:
        (spool_path / segment.leave().file_name()).unlink()
    assert not all(watch.has_changed() for _ in range(50))


def test_a_directory_that_cannot_be_listed_has_changed(spool_path: Path) -> None:
    directory = open_directory(str(spool_path))
    watch = Watch(directory)
    watch.has_changed()
    directory.close()
    assert watch.has_changed()
