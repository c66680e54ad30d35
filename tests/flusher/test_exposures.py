"""What the server has already: known as far as a bounded memory goes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fallom._flusher.exposures import ExposureFilter
from fallom._spool.frame import Kind
from tests.support.records import item_of, make_exposure


def exposures(*numbers: int) -> list:  # type: ignore[type-arg]
    return [item_of(make_exposure(number), Kind.EXPOSURE) for number in numbers]


def sessions(items: list) -> list[str]:  # type: ignore[type-arg]
    return [item.record[2] for item in items]


def test_what_is_remembered_is_left_out() -> None:
    known = ExposureFilter()
    known.remember(exposures(1, 2))
    assert sessions(known.select(exposures(1, 2, 3))) == ["session 3"]


def test_what_was_only_selected_is_not_known() -> None:
    known = ExposureFilter()
    known.select(exposures(1))
    assert sessions(known.select(exposures(1))) == ["session 1"]


def test_a_repeat_within_one_batch_is_left_out() -> None:
    assert sessions(ExposureFilter().select(exposures(1, 2, 1))) == ["session 1", "session 2"]


def test_another_version_or_config_is_another_exposure() -> None:
    known = ExposureFilter()
    first = make_exposure(1)
    known.remember([item_of(first, Kind.EXPOSURE)])
    others = [first._replace(config_version=2), first._replace(config_key="other")]
    assert len(known.select([item_of(other, Kind.EXPOSURE) for other in others])) == 2


def test_the_same_session_with_another_model_is_no_news() -> None:
    known = ExposureFilter()
    known.remember(exposures(1))
    other = make_exposure(1)._replace(model="other", unix_ns=5)
    assert known.select([item_of(other, Kind.EXPOSURE)]) == []


def test_what_cannot_be_read_is_passed_on() -> None:
    known = ExposureFilter()
    odd = [item_of("text"), item_of([1, 2]), item_of(["k", 1, ["list"], "m", 0])]
    known.remember(odd)
    assert known.select(odd) == odd


def test_a_record_of_another_kind_is_no_repeat_of_an_exposure() -> None:
    known = ExposureFilter()
    known.remember(exposures(1))
    later = [item_of(make_exposure(1), kind=77), item_of(make_exposure(2), kind=77)]
    assert known.select(later) == later
    known.remember(later)
    assert sessions(known.select(exposures(1, 2))) == ["session 2"]


@given(st.lists(st.integers(0, 300), max_size=200))
def test_the_newest_half_is_always_known_and_memory_is_bounded(numbers: list[int]) -> None:
    known = ExposureFilter(remembered_max=20)
    for number in numbers:
        known.remember(exposures(number))
    newest = list(dict.fromkeys(reversed(numbers)))[:9]
    assert known.select(exposures(*newest)) == []
    assert 301 - len(known.select(exposures(*range(301)))) <= 20
