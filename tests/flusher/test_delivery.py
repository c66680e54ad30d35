"""One batch to one target: the guilty are found, the rest arrives, nothing is forgotten."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallom._core.outcome import TRIES_BEFORE_SPLIT, Verdict
from fallom._core.span import Span
from fallom._flusher.delivery import (
    EXCHANGE_DEADLINE_S,
    PROBES,
    Result,
    deliver_json,
    deliver_otlp,
    exposure_body,
    metrics_body,
    withhold,
)
from fallom._flusher.http import NetworkError, Request
from fallom._spool.frame import Kind
from fallom._spool.reader import Item
from tests.support.records import item_of, make_exposure, make_metrics, make_span
from tests.support.targets import FakeHttp, partial, posted_json, span_numbers

URL = "http://127.0.0.1:1/v1/traces"
WHO = {"Authorization": "Bearer key"}
Make = Callable[[Callable[[Request], Any]], Any]


def spans(*numbers: int) -> list[Item]:
    return [item_of(make_span(number)) for number in numbers]


def numbers_of(items: list[Item]) -> list[int]:
    return [int.from_bytes(item.record[1], "big") for item in items]


def test_spans_go_out_in_one_compressed_request_with_who_we_are(fake_http: Make) -> None:
    http = fake_http(lambda _: 200)
    result = deliver_otlp(WHO, http, URL)(spans(1, 2, 3), 0, 0.0)
    [request] = http.requests
    assert (request.method, request.url) == ("POST", URL)
    assert request.headers["Content-Type"] == "application/x-protobuf"
    assert request.headers["Content-Encoding"] == "gzip"
    assert request.headers["Authorization"] == "Bearer key"
    assert request.deadline_s == EXCHANGE_DEADLINE_S
    assert span_numbers(request) == [1, 2, 3]
    assert result == Result(accepted=3, requests=1)


def test_metrics_go_out_as_spans(fake_http: Make) -> None:
    http = fake_http(lambda _: 200)
    items = [item_of(make_metrics(4), Kind.METRICS)]
    assert deliver_otlp(WHO, http, URL)(items, 0, 0.0).accepted == 1
    assert span_numbers(http.requests[0]) == [4]


def test_what_the_server_rejected_of_a_batch_is_counted_and_not_sent_again(fake_http: Make) -> None:
    http = fake_http(lambda _: partial(2, "too old"))
    result = deliver_otlp(WHO, http, URL)(spans(1, 2, 3), 0, 0.0)
    assert (result.accepted, result.rejected, result.message) == (1, 2, "too old")
    assert result.unsent == result.guilty == []


def test_a_server_that_rejects_more_than_it_got_rejected_what_it_got(fake_http: Make) -> None:
    http = fake_http(lambda _: partial(99, "odd"))
    result = deliver_otlp(WHO, http, URL)(spans(1, 2), 0, 0.0)
    assert (result.accepted, result.rejected) == (0, 2)


def test_a_span_nested_too_deeply_for_the_masks_is_unreadable_and_the_others_arrive(
    fake_http: Make,
) -> None:
    def masked(span: Span) -> Span:
        if span.name == "span 2":  # 500 levels of lists, say, which a frame can hold
            raise RecursionError
        return span

    sound, odd = spans(1, 2)
    result = deliver_otlp(WHO, fake_http(lambda _: 200), URL, lambda: masked)([sound, odd], 0, 0.0)
    assert (result.accepted, result.unreadable) == (1, [odd])


@given(
    st.lists(st.integers(1, 200), unique=True, min_size=1, max_size=40),
    st.sets(st.integers(1, 200), max_size=10),
    st.sampled_from([400, 413, 422]),
)
def test_exactly_the_guilty_are_found_and_all_others_arrive_once(
    sent: list[int], poison: set[int], status: int
) -> None:
    arrived: list[int] = []

    def reply(request: Request) -> int:
        found = span_numbers(request)
        if poison.intersection(found):
            return status
        arrived.extend(found)
        return 200

    http = FakeHttp(reply)
    result = deliver_otlp(WHO, http, URL)(spans(*sent), 0, 0.0)  # type: ignore[arg-type]
    refused = [item for item, _ in (*result.guilty, *result.suspects)]
    assert set(numbers_of(refused)) == poison.intersection(sent)
    assert sorted(arrived) == sorted(set(sent) - poison)
    assert result.accepted == len(arrived) == len(sent) - len(refused)
    if not {sent[0], sent[-1]} <= poison:
        assert len(result.suspects) <= 1, "one of the ends was taken: only the last can be in doubt"
    assert result.unsent == []
    assert result.requests == len(http.requests)
    guilty = len(refused)
    assert result.requests <= 3 + guilty + 2 * guilty * max(1, len(sent).bit_length())


def test_what_is_refused_is_guilty_only_if_the_server_took_something_since(fake_http: Make) -> None:
    """It breaks down in the middle of the batch that is halved because of span 2."""
    taken: list[int] = []

    def reply(request: Request) -> int:
        found = span_numbers(request)
        if 2 in found or len(taken) >= 4:
            return 400
        taken.extend(found)
        return 200

    result = deliver_otlp(WHO, fake_http(reply), URL)(spans(*range(1, 21)), 0, 0.0)
    suspects = numbers_of([item for item, _ in result.suspects])
    assert sorted(suspects) == sorted(set(range(1, 21)) - {2, *taken})
    assert numbers_of([item for item, _ in result.guilty]) == [2]


def test_what_a_server_refused_for_a_moment_is_asked_about_again_and_arrives(
    fake_http: Make,
) -> None:
    taken: list[int] = []

    def reply(request: Request) -> int:
        found = span_numbers(request)
        if len(http.requests) <= 8:
            return 400
        taken.extend(found)
        return 200

    http = fake_http(reply)
    result = deliver_otlp(WHO, http, URL)(spans(*range(1, 21)), 0, 0.0)
    assert sorted(taken) == list(range(1, 21))
    assert result.is_clean


def test_a_batch_that_is_too_large_is_halved_until_it_fits(fake_http: Make) -> None:
    http = fake_http(lambda request: 413 if len(span_numbers(request)) > 2 else 200)
    result = deliver_otlp(WHO, http, URL)(spans(*range(1, 9)), 0, 0.0)
    assert (result.accepted, result.guilty, result.requests) == (8, [], 9)


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        (503, Verdict.RETRY),
        (401, Verdict.PAUSE),
        (302, Verdict.PAUSE),
        (NetworkError("timeout", "no whole answer"), Verdict.RETRY),
        (NetworkError("too_large", "the answer is too long", 401), Verdict.PAUSE),
    ],
)
def test_when_the_target_is_in_trouble_everything_is_unsent_after_one_request(
    fake_http: Make, reply: Any, verdict: Verdict
) -> None:
    http = fake_http(lambda _: reply)
    items = spans(1, 2, 3)
    result = deliver_otlp(WHO, http, URL)(items, 0, 0.0)
    assert result.unsent == items
    assert result.outcome is not None
    assert result.outcome.verdict is verdict
    assert len(http.requests) == 1


def test_an_accepted_batch_whose_answer_cannot_be_read_is_accepted(fake_http: Make) -> None:
    http = fake_http(lambda _: NetworkError("garbled", "no gzip", 200))
    assert deliver_otlp(WHO, http, URL)(spans(1, 2), 0, 0.0).accepted == 2


def test_trouble_in_the_middle_of_a_split_leaves_exactly_the_rest_unsent(fake_http: Make) -> None:
    def reply(request: Request) -> int:
        found = span_numbers(request)
        if 2 in found:
            return 400
        return 503 if 3 in found else 200

    http = fake_http(reply)
    result = deliver_otlp(WHO, http, URL)(spans(*range(1, 9)), 0, 0.0)
    assert numbers_of([item for item, _ in result.suspects]) == [2]
    assert sorted(numbers_of(result.unsent)) == [1, 3, 4, 5, 6, 7, 8]
    assert result.guilty == []


def test_the_span_that_breaks_the_server_is_found_after_some_tries(fake_http: Make) -> None:
    http = fake_http(lambda request: 500 if 3 in span_numbers(request) else 200)
    deliver = deliver_otlp(WHO, http, URL)
    assert numbers_of(deliver(spans(1, 2, 3, 4), 0, 0.0).unsent) == [1, 2, 3, 4]
    result = deliver(spans(1, 2, 3, 4), TRIES_BEFORE_SPLIT, 0.0)
    assert numbers_of([item for item, _ in result.guilty]) == [3]
    assert result.accepted == 3


@pytest.mark.parametrize(
    "bad",
    [
        item_of("text"),
        item_of([b"short"]),
        item_of(tuple(make_span())[:9]),
        item_of(make_span(), kind=77),
        item_of(make_span(), kind=Kind.EXPOSURE),
        item_of(make_span(events=[["x"]])),
        item_of(make_span(events=[["when", "name", {}]])),
    ],
)
def test_a_record_that_cannot_be_read_is_told_apart_and_the_others_are_sent(
    fake_http: Make, bad: Item
) -> None:
    http = fake_http(lambda _: 200)
    result = deliver_otlp(WHO, http, URL)([*spans(1), bad, *spans(2)], 0, 0.0)
    assert result.unreadable == [bad]
    assert span_numbers(http.requests[0]) == [1, 2]


def test_nothing_is_sent_for_nothing(fake_http: Make) -> None:
    http = fake_http(lambda _: 200)
    result = deliver_otlp(WHO, http, URL)([item_of("text")], 0, 0.0)
    assert http.requests == []
    assert result.accepted == 0


# One record a request.


def exposures(*numbers: int) -> list[Item]:
    return [item_of(make_exposure(number), Kind.EXPOSURE) for number in numbers]


def test_an_exposure_is_posted_as_the_published_sdks_do(fake_http: Make) -> None:
    http = fake_http(lambda _: 200)
    result = deliver_json(WHO, http, "http://x/sessions", exposure_body)(exposures(1), 0, 0.0)
    [request] = http.requests
    assert posted_json(request) == {
        "config_key": "config",
        "config_version": 1,
        "session_id": "session 1",
        "assigned_model": "model",
    }
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["Authorization"] == "Bearer key"
    assert result.accepted == 1


def test_metrics_are_posted_as_the_published_sdks_do(fake_http: Make) -> None:
    http = fake_http(lambda _: 200)
    items = [item_of(make_metrics(1, score=0.5), Kind.METRICS)]
    deliver_json(WHO, http, "http://x/spans", metrics_body)(items, 0, 0.0)
    assert posted_json(http.requests[0]) == {
        "config_key": "config",
        "session_id": "session 1",
        "data": {"score": 0.5},
    }


def test_only_those_that_failed_are_unsent(fake_http: Make) -> None:
    failing = {"session 2", "session 3"}
    http = fake_http(lambda r: 503 if posted_json(r)["session_id"] in failing else 200)
    deliver = deliver_json(WHO, http, "http://x", exposure_body)
    result = deliver(exposures(*range(1, 11)), 0, 0.0)
    # Those of a round that is under way are finished; then no more is sent until the wait is over.
    assert [item.record[2] for item in result.unsent[:2]] == ["session 2", "session 3"]
    assert result.accepted == 2
    assert [item.record[2] for item in result.unsent[2:]] == [f"session {n}" for n in range(5, 11)]
    assert result.outcome is not None


def test_a_guilty_one_does_not_hold_back_the_others(fake_http: Make) -> None:
    http = fake_http(lambda r: 400 if posted_json(r)["session_id"] == "session 2" else 200)
    result = deliver_json(WHO, http, "http://x", exposure_body)(exposures(*range(1, 11)), 0, 0.0)
    assert [item.record[2] for item, _ in result.guilty] == ["session 2"]
    assert (result.accepted, result.unsent) == (9, [])


@pytest.mark.parametrize(
    "bad",
    [
        item_of("text", Kind.METRICS),
        item_of(make_metrics(1, x=1)._replace(data={b"k": 1}), Kind.METRICS),
        item_of(make_metrics(1, x=1), kind=77),
    ],
)
def test_a_record_that_cannot_be_posted_is_told_apart(fake_http: Make, bad: Item) -> None:
    http = fake_http(lambda _: 200)
    good = item_of(make_metrics(1), Kind.METRICS)
    result = deliver_json(WHO, http, "http://x", metrics_body)([bad, good], 0, 0.0)
    assert (result.unreadable, result.accepted) == ([bad], 1)


def test_a_record_of_another_kind_is_posted_as_no_exposure(fake_http: Make) -> None:
    http = fake_http(lambda _: 200)
    later = item_of(make_exposure(1), kind=77)
    result = deliver_json(WHO, http, "http://x", exposure_body)([later, *exposures(2)], 0, 0.0)
    assert (result.unreadable, result.accepted) == ([later], 1)
    assert [posted_json(request)["session_id"] for request in http.requests] == ["session 2"]


def test_several_connections_are_used_at_once(fake_http: Make) -> None:
    barrier = threading.Barrier(4)

    def reply(_: Request) -> int:
        barrier.wait(timeout=20)
        return 200

    http = fake_http(reply)
    result = deliver_json(WHO, http, "http://x", exposure_body)(exposures(1, 2, 3, 4), 0, 0.0)
    assert result.accepted == 4


def test_withholding_keeps_everything_and_says_why() -> None:
    items = spans(1, 2)
    result = withhold("there is no key")(items, 0, 0.0)
    assert result.unsent == items
    assert result.outcome is not None
    assert result.outcome.verdict is Verdict.PAUSE
    assert result.outcome.reason == "there is no key"


def test_a_server_that_refuses_everything_is_found_out_by_a_few_requests(fake_http: Make) -> None:
    http = fake_http(lambda request: 400)
    items = spans(*range(1, 2001))
    result = deliver_otlp(WHO, http, URL)(items, 0, 0.0)
    assert result.outcome is not None
    assert result.outcome.verdict is Verdict.DOUBT
    assert result.unsent == items
    assert result.guilty == []
    assert result.requests == 1 + PROBES


@pytest.mark.parametrize("poison", [range(1, 2001, 250), range(3, 2001, 3), [1000]])
def test_the_guilty_of_a_large_batch_are_found_wherever_they_stand(
    poison: Any, fake_http: Make
) -> None:
    """The first of these are just the ones that are probed, but for one."""
    refused = set(poison) - {251}
    arrived: list[int] = []

    def reply(request: Request) -> int:
        found = span_numbers(request)
        if refused.intersection(found):
            return 400
        arrived.extend(found)
        return 200

    result = deliver_otlp(WHO, fake_http(reply), URL)(spans(*range(1, 2001)), 0, 0.0)
    assert sorted(arrived) == sorted(set(range(1, 2001)) - refused)
    assert set(numbers_of([item for item, _ in result.guilty])) == refused
    assert result.unsent == []
