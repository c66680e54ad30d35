"""Looking into the spool beside whoever writes to it."""

from __future__ import annotations

import os

import pytest

from fallom._host.files import File, open_file
from fallom._spool import inspection
from fallom._spool.inspection import check_segment, segments_of, waiting_of
from fallom._spool.segment import write_accepted
from fallom._spool.survey import marks_of
from tests.support.records import make_span
from tests.support.spools import TARGET, Segment


def test_a_segment_that_is_sealed_since_it_was_listed_is_looked_at(
    spool: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment = Segment(spool, {}).add(make_span(1), make_span(2))
    listed = segment.name
    marks = marks_of(spool, None)
    segment.seal()
    monkeypatch.setattr(inspection, "segment_names", lambda _: [listed])
    assert [state.records for state in segments_of(spool, None)] == [2]
    assert waiting_of(spool, marks, None).records == 2
    state = check_segment(spool, listed)
    assert state is not None
    assert state.records == 2


def test_what_was_accepted_or_went_since_it_was_marked_is_not_estimated(spool: File) -> None:
    accepted = Segment(spool, {}).add(make_span(1))
    gone = Segment(spool, {}).add(make_span(2))
    Segment(spool, {}).add(make_span(3), make_span(4))
    marks = marks_of(spool, None)
    accepted.add(*map(make_span, range(10, 60)))
    file = open_file(spool, accepted.name.file_name(), os.O_RDWR)
    write_accepted(file, accepted.name, TARGET, accepted.end)
    file.close()
    os.unlink(gone.leave().file_name(), dir_fd=spool.fd)
    assert waiting_of(spool, marks, None).records == 2


def test_what_is_not_counted_is_estimated_by_the_share_that_was(
    spool: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(4):
        Segment(spool, {}).add(*map(make_span, range(10)))
    monkeypatch.setattr(inspection, "COUNTED_BYTES_MAX", 1)
    assert waiting_of(spool, marks_of(spool, None), None).records == 40
