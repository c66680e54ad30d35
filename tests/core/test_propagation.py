"""Headers that carry a session and a trace: they say what was put in, and nothing in them raises."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallom._core.propagation import (
    SESSION_CHARACTERS_MAX,
    Carried,
    Parent,
    decode_session,
    encode_session,
    format_traceparent,
    parse_traceparent,
    parse_tracestate,
    read_headers,
    write_headers,
)
from fallom._core.span import SessionContext

# The example of W3C Trace Context, 3.2.
EXAMPLE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
PARENT = Parent(
    bytes.fromhex("4bf92f3577b34da6a3ce929d0e0e4736"), bytes.fromhex("00f067aa0ba902b7"), 1
)

some_text = st.text(max_size=40)
some_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | some_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(some_text, inner, max_size=3),
    max_leaves=5,
)
sessions = st.builds(
    SessionContext,
    config_key=some_text,
    session_id=st.text(min_size=1, max_size=40),
    customer_id=st.none() | st.text(min_size=1, max_size=40),
    metadata=st.none() | st.dictionaries(some_text, some_text, min_size=1, max_size=4),
    tags=st.lists(some_text, max_size=4).map(tuple),
)
parents = st.builds(
    Parent,
    st.binary(min_size=16, max_size=16).filter(any),
    st.binary(min_size=8, max_size=8).filter(any),
    st.integers(0, 3),
    st.sampled_from(["", "a=1", "vendor@x=00f067aa, other=b c"]),
)


@given(st.none() | sessions, st.none() | parents)
def test_what_is_written_is_read(session: SessionContext | None, parent: Parent | None) -> None:
    headers = write_headers(Carried(session, parent))
    assert all(value.isascii() and value.isprintable() for value in headers.values())
    assert read_headers(headers) == Carried(session, parent)
    shouted = {name.title(): value.encode() for name, value in headers.items()}
    assert read_headers(shouted) == Carried(session, parent)


def test_the_example_of_the_specification() -> None:
    assert parse_traceparent(EXAMPLE) == PARENT
    assert format_traceparent(PARENT) == EXAMPLE


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        EXAMPLE[:-1],
        EXAMPLE + "0",
        EXAMPLE + "-00",  # version 00 has no more fields
        EXAMPLE.upper(),
        EXAMPLE.replace("4b", "4g"),
        "ff" + EXAMPLE[2:],
        "00-" + "0" * 32 + EXAMPLE[35:],
        EXAMPLE[:36] + "0" * 16 + EXAMPLE[52:],
        EXAMPLE.replace("-", "_"),
        EXAMPLE + "\n",
        "01" + EXAMPLE[2:] + "x",
        "٠٠" + EXAMPLE[2:],  # digits, but not these
        "01" + EXAMPLE[2:] + "-" + "x" * 10_000,
    ],
)
def test_what_is_no_traceparent_is_none(text: str) -> None:
    assert parse_traceparent(text) is None


def test_a_later_version_is_read_as_far_as_it_is_known() -> None:
    assert parse_traceparent("cc" + EXAMPLE[2:-2] + "ff-what-comes") == PARENT._replace(flags=3)
    assert parse_traceparent("01" + EXAMPLE[2:]) == PARENT


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", True),
        (" a=1 , b=2 ", True),
        ("a=" + "x" * 256, True),
        ("a=1\r\nSet-Cookie: x=y", False),
        ("A=1", False),
        ("a", False),
        ("a=é", False),
        (",".join(f"k{n}={'x' * 60}" for n in range(9)), False),  # longer than 512
    ],
)
def test_a_tracestate_is_kept_as_it_is_or_not_at_all(text: str, kept: bool) -> None:
    assert parse_tracestate(text) == (text.strip() if kept else "")


@given(some_values)
def test_any_json_is_a_session_or_none(value: Any) -> None:
    decoded = decode_session(json.dumps(value))
    assert decoded is None or isinstance(decoded, SessionContext)


@given(st.text() | st.binary())
def test_any_value_of_a_header_is_read(value: Any) -> None:
    headers = {"fallom": value, "traceparent": value, "tracestate": value}
    assert read_headers(headers).parent is None


@pytest.mark.parametrize(
    "text",
    [
        "[" * 4000,
        '{"config_key": "a", "session_id": ""}',
        '{"config_key": "a", "session_id": 1}',
        '{"config_key": null, "session_id": "s"}',
        '{"session_id": "s"}',
        '{"config_key": "a", "session_id": "s", "customer_id": "' + "x" * 5000 + '"}',
    ],
)
def test_what_is_no_session_is_none(text: str) -> None:
    assert decode_session(text) is None


def test_fields_of_a_wrong_type_are_left_out() -> None:
    fields = {"config_key": "a", "session_id": "s", "customer_id": 1, "metadata": [], "later": 1}
    assert decode_session(json.dumps({**fields, "tags": ["t", 1]})) == SessionContext(
        "a", "s", None, None, ("t",)
    )


def test_what_is_too_long_is_left_out_from_its_end() -> None:
    long = "x" * SESSION_CHARACTERS_MAX
    session = SessionContext("a", "s", "c", {"m": 1}, ("t",))
    cases = [
        (session._replace(metadata={"m": long}), session._replace(metadata=None)),
        (session._replace(tags=(long,)), SessionContext("a", "s", "c")),
        (session._replace(customer_id=long), SessionContext("a", "s")),
    ]
    for given_session, expected in cases:
        text = encode_session(given_session)
        assert len(text) <= SESSION_CHARACTERS_MAX
        assert decode_session(text) == expected
    assert encode_session(session._replace(session_id=long)) == ""


def test_values_that_json_does_not_know_are_replaced() -> None:
    class Hostile:
        def __str__(self) -> str:
            raise RuntimeError("theirs")

    cycle: list[Any] = []
    cycle.append(cycle)
    metadata = {"a": Hostile(), "b": b"123", 3: {"x"}, "d": cycle, "none": None}
    decoded = decode_session(encode_session(SessionContext("a", "s", None, metadata)))
    assert decoded is not None
    assert decoded.metadata is not None
    assert decoded.metadata["a"] == "<Hostile>"
    assert decoded.metadata["3"] == ["x"]


class RaisingMapping(dict[str, Any]):
    def items(self) -> Any:
        raise RuntimeError("the application's own code")


@pytest.mark.parametrize("metadata", [["a", "list"], "text", 7, RaisingMapping(a=1)])
def test_metadata_that_are_no_mapping_are_left_out_alone(metadata: Any) -> None:
    session = SessionContext("app", "s", "c", metadata, ("t",))
    headers = write_headers(Carried(session, PARENT))
    assert read_headers(headers) == Carried(session._replace(metadata=None), PARENT)
