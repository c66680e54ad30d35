"""Looking into the spool beside whoever writes to it."""

from __future__ import annotations

import pytest

from fallom._host.files import File
from fallom._spool import inspection
from fallom._spool.inspection import check_segment, segments_of, waiting_of
from fallom._spool.survey import marks_of
from tests.support.records import make_span
from tests.support.spools import Segment


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
