"""What programs against 0.2.7 do with its records and sessions: compare, change, copy, pickle, derive."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any

import pytest

from fallom import FallomSession, trace
from fallom.prompts import PromptResult

TIMES = ("2026-01-02T03:04:05+00:00", "2026-01-02T03:04:06+00:00")
# With the field that is changed.
RECORDS = [
    (trace.SessionContext("agent", "s-1", tags=["t"]), "session_id"),
    (trace.SessionOptions("agent", "s-1"), "session_id"),
    (trace.TraceContext("ab" * 16), "trace_id"),
    (trace.WaterfallTimings(), "request_end"),
    (trace.TraceData("agent", "s-1", "ab" * 16, "cd" * 8, "n", *TIMES, 1000, "OK"), "name"),
    (PromptResult("onboarding", 1, "Be brief.", "Hello"), "system"),
]


@pytest.mark.parametrize(("record", "field"), RECORDS, ids=lambda each: type(each).__name__)
def test_a_record_is_compared_copied_pickled_and_changed(record: Any, field: str) -> None:
    assert copy.deepcopy(record) == record
    assert pickle.loads(pickle.dumps(record)) == record
    assert dataclasses.asdict(record)[field] == getattr(record, field)
    other = dataclasses.replace(record, **{field: "other"})
    assert other != record
    setattr(other, field, getattr(record, field))
    assert other == record


def test_a_derived_session_is_one() -> None:
    class Conversation(FallomSession):
        pass

    session = Conversation("agent", "s-1", "customer-1")
    assert session.get_context() == trace.SessionContext("agent", "s-1", "customer-1")
