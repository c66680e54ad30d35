"""Following the spool as it grows, for people who look on."""

from __future__ import annotations

import os

import pytest

from fallom._host.files import File
from fallom._spool import follow
from fallom._spool.follow import Follower
from fallom._spool.frame import Kind
from tests.support.records import make_span
from tests.support.spools import Segment


def names(follower: Follower) -> list[str]:
    return [found.record[3] for found in follower.new()]


def test_a_header_that_is_no_mapping_costs_no_record(spool: File) -> None:
    segment = Segment(spool, 5).add(make_span(1))
    segment.add({"service.name": "s"}, kind=Kind.HEADER).add(make_span(2))
    follower = Follower(spool)
    assert [(each.record[3], each.resource) for each in follower.new()] == [
        ("span 1", {}),
        ("span 2", {"service.name": "s"}),
    ]
    follower.close()


def test_of_what_is_gone_nothing_is_remembered(
    spool: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "OPEN_MAX", 2)
    segments = [Segment(spool, {}).add(make_span(number)) for number in range(5)]
    follower = Follower(spool)
    assert sorted(names(follower)) == [f"span {number}" for number in range(5)]
    for segment in segments:
        os.unlink(segment.leave().file_name(), dir_fd=spool.fd)
    assert names(follower) == []
    assert follower._positions == follower._resources == {}
    follower.close()
