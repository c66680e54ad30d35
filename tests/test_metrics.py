"""The packed record of ``trace.span``: the same with a session's part kept as without."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallom._assignments import Assignments
from fallom._core.assignment import CompiledConfig
from fallom._core.span import Metrics, SessionContext, metrics_of
from fallom._metrics import FIELDS_BYTES_MAX, SESSIONS_MAX, MetricsPacking
from fallom._packing import Packing
from fallom._session_attributes import session_attributes
from fallom._spool.frame import RECORD_BYTES_MAX, decode_record

TRACE, SPAN, NOW = bytes(range(16)), bytes(range(8)), 1_700_000_000_000_000_000
CONFIG = CompiledConfig("app", 7, ("one", "two"), (500_000, 1_000_000))

scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.floats()
mappings = st.dictionaries(st.text(), scalars | st.lists(scalars, max_size=3), max_size=4)
sessions = st.builds(
    SessionContext,
    st.sampled_from(["app", "other"]),
    st.text(max_size=8),
    st.none() | st.text(),
    st.none() | mappings,
    st.lists(st.text(), max_size=3).map(tuple),
)


class World:
    def __init__(self) -> None:
        self.assignments = Assignments()
        self.packing = MetricsPacking(Packing(), self.assignments)

    def packed(self, session: SessionContext, data: Any, key: str = "app") -> Metrics:
        payload = self.packing.packed(TRACE, SPAN, NOW, key, session.session_id, session, data)
        return metrics_of(decode_record(payload))

    def attributes(self, session: SessionContext, metadata: Any) -> dict[str, Any]:
        """Pack a session three times with a change of its metadata before the last."""
        for _ in range(2):
            self.packed(session, {}, session.config_key)
        assert session.metadata is not None
        dict.update(session.metadata, metadata)
        return dict(self.packed(session, {}, session.config_key).attributes)


@given(st.lists(sessions, min_size=1, max_size=3), mappings, st.data())
def test_a_record_is_the_same_whether_its_session_was_packed_before(
    known: list[SessionContext], data: dict[str, Any], draw: st.DataObject
) -> None:
    world = World()
    for number in range(8):
        session = draw.draw(st.sampled_from(known))
        if draw.draw(st.booleans()):
            world.assignments.by_weight(CONFIG, session.session_id, number % 2, number, True)
        key = draw.draw(st.sampled_from(["app", "other"]))
        made = world.assignments.find((session.config_key, session.session_id))
        attributes = session_attributes(session) | dict(made.attributes if made else {})
        expected = Metrics(TRACE, SPAN, NOW, key, session.session_id, attributes, data)
        record = decode_record(Packing().packed(expected))
        assert repr(world.packed(session, data, key)) == repr(metrics_of(record))


@pytest.mark.parametrize(
    ("before", "after"), [(1, True), (1, 1.0), (["a"], ["b"]), ("a", "b"), ({"a": 1}, {"a": 2})]
)
def test_metadata_that_the_application_changes_is_recorded_as_it_is_now(
    before: Any, after: Any
) -> None:
    found = World().attributes(SessionContext("app", "s", metadata={"x": before}), {"x": after})
    assert repr(found["fallom.metadata.x"]) == repr(after)


def test_a_list_that_changes_within_the_metadata_is_recorded_as_it_is_now() -> None:
    world, inner = World(), ["a"]
    session = SessionContext("app", "s", metadata={"x": inner})
    world.packed(session, {})
    inner.append("b")
    assert world.packed(session, {}).attributes["fallom.metadata.x"] == ["a", "b"]


class Word:
    """A tag whose text changes."""

    said = "first"

    def __str__(self) -> str:
        return self.said


def test_a_tag_that_is_no_text_is_asked_for_its_text_each_time() -> None:
    world, word = World(), Word()
    session = SessionContext("app", "s", tags=(word,))  # type: ignore[arg-type]
    assert world.packed(session, {}).attributes["fallom.tags"] == ["first"]
    word.said = "second"
    assert world.packed(session, {}).attributes["fallom.tags"] == ["second"]


class Growing:
    """A value during whose reading another thread adds to the metadata."""

    def __init__(self, metadata: dict[str, Any]) -> None:
        self.metadata = metadata

    def __str__(self) -> str:
        self.metadata[f"more {len(self.metadata)}"] = 1
        return "said"


def test_metadata_that_changes_while_it_is_read_is_recorded_as_it_was() -> None:
    metadata: dict[str, Any] = {}
    metadata["x"] = Growing(metadata)
    found = session_attributes(SessionContext("app", "s", metadata=metadata))
    assert {name: found[name] for name in found if "metadata" in name} == {
        "fallom.metadata.x": "said"
    }


def test_what_cannot_be_packed_is_cleaned_with_the_session_s_attributes_beside_it() -> None:
    world = World()
    session = SessionContext("app", "s", "c", {"x": 1})
    for _ in range(2):
        found = world.packed(session, {"bad": object(), "lone": "\ud800", "good": 1})
        assert (found.data["good"], found.attributes["fallom.customer_id"]) == (1, "c")
        assert "object" in found.data["bad"]


def test_data_of_more_than_a_record_is_cut() -> None:
    world, session = World(), SessionContext("app", "s", metadata={"x": 1})
    for _ in range(2):
        size = RECORD_BYTES_MAX - 100  # fits alone, and not with the session's part
        found = world.packed(session, {"long": "a" * size})
        assert "[cut: " in found.data["long"]


def test_the_memory_of_sessions_is_bounded() -> None:
    world = World()
    for number in range(3 * SESSIONS_MAX):
        world.packed(SessionContext("app", f"s{number}"), {})
    large = SessionContext("app", "s", metadata={"x": "a" * FIELDS_BYTES_MAX})
    world.packed(large, {})
    kept = world.packing._kept
    assert len(kept._newer) + len(kept._older) <= SESSIONS_MAX
    assert kept.find(id(large)) is None
