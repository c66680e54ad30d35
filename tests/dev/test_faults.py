from __future__ import annotations

from typing import Any

import pytest

from fallom._core.errors import ConfigurationError
from fallom.dev.fault_injection import FaultInjection, _Exchange
from fallom.dev.faults import KINDS, Fault, parse_fault, parse_faults


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ("503", Fault("status", status=503)),
        (
            "503, path=/v1/traces, times=3, method=post",
            Fault("status", status=503, path="/v1/traces", times=3, method="POST"),
        ),
        ("429,retry_after=2", Fault("status", status=429, retry_after="2")),
        ("429,retry_after=date:2", Fault("status", status=429, retry_after="date:2")),
        ("413,above=1000", Fault("status", status=413, above=1000)),
        ("400,attribute=a=b", Fault("status", status=400, attribute="a=b")),
        ("partial,rejected=2", Fault("partial", rejected=2)),
        ("redirect,to=http://x/", Fault("redirect", status=307, to="http://x/")),
        ("drip", Fault("drip", seconds=0.5, bytes=64)),
        ({"kind": "bomb", "bytes": 5}, Fault("bomb", bytes=5)),
        ({"status": 500}, Fault("status", status=500)),
        ({"kind": 404}, Fault("status", status=404)),
    ],
)
def test_specification_is_read(spec: Any, fault: Fault) -> None:
    assert parse_fault(spec) == fault


def test_what_is_shown_can_be_read_again() -> None:
    for kind in KINDS:
        fault = parse_fault(
            {"kind": kind, "status": 500, "to": "http://x/", "times": 1, "path": "/a*"}
        )
        assert parse_faults([fault.to_dict()]) == [fault]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("", "kind '' is not known"),
        ("rest", "did you mean 'reset'"),
        ("99", "from 200 to 599"),
        ("503,time=2", "did you mean 'times'"),
        ("503,times", "name=value"),
        ("503,times=-1", "not negative"),
        ("503,times=x", "not negative"),
        ("delay,seconds=nan", "not negative"),
        ("429,retry_after=soon", "not negative"),
        ("redirect", "needs to=URL"),
        (5, "expected text"),
        ({"kind": "status"}, "from 200 to 599"),
        ({"kind": "delay", "seconds": True}, "not negative"),
    ],
)
def test_mistake_names_the_specification_and_what_was_expected(spec: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^fault ") as caught:
        parse_fault(spec)
    assert words in str(caught.value)


def test_path_is_exact_unless_it_ends_in_a_star() -> None:
    exact, prefix = parse_fault("503,path=/configs"), parse_fault("503,path=/configs*")
    assert exact.covers("GET", "/configs")
    assert not exact.covers("GET", "/configs/a/version/1")
    assert prefix.covers("GET", "/configs/a/version/1")
    assert not prefix.covers("GET", "/prompts")
    assert parse_fault("503").covers("PUT", "/anything")


def test_every_kind_can_be_carried_out() -> None:
    assert FaultInjection.__module__ == _Exchange.__module__
    assert [kind for kind in KINDS if not callable(getattr(_Exchange, kind, None))] == []
