"""What is done about an answer: every status has its row."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallom._core.outcome import (
    BACKOFF_MAX_S,
    RETRY_AFTER_MAX_S,
    TRIES_BEFORE_SPLIT,
    Verdict,
    backoff_s,
    judge,
    retry_after_s,
)

NOW_S = 1_700_000_000.0


@pytest.mark.parametrize(
    ("statuses", "verdict"),
    [
        (range(200, 300), Verdict.ACCEPTED),
        ((408, 425, 429, 502, 503, 504), Verdict.RETRY),
        ((400, 413, 422), Verdict.SPLIT),
        ((500, 501, 505, 507, 511, 520, 599), Verdict.RETRY),
        ((301, 302, 303, 304, 307, 308), Verdict.PAUSE),
        (
            (401, 402, 403, 404, 405, 406, 407, 410, 411, 414, 415, 418, 421, 431, 451),
            Verdict.PAUSE,
        ),
        ((0, 100, 101, 199), Verdict.PAUSE),
    ],
)
def test_each_status_has_its_verdict(statuses: tuple[int, ...], verdict: Verdict) -> None:
    for status in statuses:
        outcome = judge(status, {}, 0, NOW_S)
        assert (outcome.verdict, outcome.status) == (verdict, status)
        assert str(status) in outcome.reason


@given(st.integers(-1000, 2000), st.text(), st.integers(0, 100))
def test_no_answer_is_without_a_verdict(status: int, retry_after: str, attempt: int) -> None:
    outcome = judge(status, {"retry-after": retry_after}, attempt, NOW_S)
    assert (outcome.verdict is Verdict.ACCEPTED) == (200 <= status < 300)
    assert outcome.wait_s is None or 0 <= outcome.wait_s <= RETRY_AFTER_MAX_S


@pytest.mark.parametrize("status", [500, 501, 599])
def test_a_batch_that_the_server_cannot_digest_is_split_after_some_tries(status: int) -> None:
    verdicts = [judge(status, {}, attempt, NOW_S).verdict for attempt in range(8)]
    assert verdicts == [Verdict.RETRY] * TRIES_BEFORE_SPLIT + [Verdict.SPLIT] * (
        8 - TRIES_BEFORE_SPLIT
    )


@pytest.mark.parametrize("status", [429, 502, 503, 504, 401])
def test_an_overloaded_server_is_never_taken_for_a_guilty_batch(status: int) -> None:
    assert judge(status, {}, 1000, NOW_S).verdict is not Verdict.SPLIT


@pytest.mark.parametrize(
    ("status", "hint"),
    [
        (401, "FALLOM_API_KEY"),
        (401, "of an extra target"),
        (403, "account"),
        (404, "URL"),
        (302, "final URL"),
        (418, "URL"),
    ],
)
def test_a_pause_says_how_to_mend_it(status: int, hint: str) -> None:
    assert hint in judge(status, {}, 0, NOW_S).reason


@pytest.mark.parametrize("status", [429, 503, 500, 401])
def test_the_time_that_the_server_names_is_part_of_the_outcome(status: int) -> None:
    assert judge(status, {"retry-after": "7"}, 0, NOW_S).wait_s == 7.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 5 ", 5.0),
        ("99999999", RETRY_AFTER_MAX_S),
        ("9" * 5000, RETRY_AFTER_MAX_S),
        (formatdate(NOW_S + 90, usegmt=True), 90.0),
        (formatdate(NOW_S - 90, usegmt=True), 0.0),
        (formatdate(NOW_S + 10**6, usegmt=True), RETRY_AFTER_MAX_S),
        ("Tue, 14 Nov 2023 22:13:25 -0000", 5.0),
        ("Wed, 14 Nov 2023 23:13:25 +0100", 5.0),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("٣", None),
        ("Tue, 99 Nov 2023 22:13:25 GMT", None),
        ("Mon, 01 Jan 0001 00:00:00 +2359", 0.0),
    ],
)
def test_both_forms_of_retry_after_are_read(value: str, seconds: float | None) -> None:
    assert retry_after_s(value, NOW_S) == seconds


@given(st.text())
def test_any_retry_after_is_a_bounded_time_or_none(value: str) -> None:
    seconds = retry_after_s(value, NOW_S)
    assert seconds is None or 0 <= seconds <= RETRY_AFTER_MAX_S


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_the_backoff_grows_to_a_bound_and_has_full_jitter(attempt: int, uniform: float) -> None:
    pause_s = backoff_s(attempt, uniform)
    assert 0.05 <= pause_s <= BACKOFF_MAX_S
    assert pause_s <= max(0.05, 2.0 ** min(attempt, 16))
    assert backoff_s(attempt, 1.0) <= backoff_s(attempt + 1, 1.0)
    assert backoff_s(attempt, 0.0) == 0.05
