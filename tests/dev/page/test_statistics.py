from __future__ import annotations

import math
from random import Random

import pytest

from fallom.dev.page.statistics import (
    MISMATCH_ALPHA,
    chi_square_p,
    mean_interval,
    median_interval,
    share_interval,
    share_mismatch,
)


def test_wilsons_interval_is_the_published_one() -> None:
    # Newcombe 1998, table I, method 3
    interval = share_interval(81, 263)
    assert (interval.low, interval.high) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    interval = share_interval(0, 20)
    assert (interval.low, interval.high) == pytest.approx((0.0, 0.1611), abs=5e-5)


@pytest.mark.parametrize(
    ("sample", "quantile"), [(5, 2.776), (10, 2.262), (30, 2.045), (200, 1.972)]
)
def test_the_interval_of_a_mean_uses_students_quantile(sample: int, quantile: float) -> None:
    values = [float(n % 7) for n in range(sample)]
    mean = sum(values) / sample
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / (sample - 1))
    interval = mean_interval(values)
    assert interval.high is not None
    found = (interval.high - mean) / (deviation / math.sqrt(sample))
    assert found == pytest.approx(quantile, rel=0.005)


@pytest.mark.parametrize(
    ("statistic", "freedom", "p"),
    [(3.841, 1, 0.05), (5.991, 2, 0.05), (9.488, 4, 0.05), (10.828, 1, 0.001), (0.0, 3, 1.0)],
)
def test_chi_square_is_the_tables(statistic: float, freedom: int, p: float) -> None:
    assert chi_square_p(statistic, freedom) == pytest.approx(p, rel=2e-3)


def test_the_interval_of_a_median_covers_it_in_95_of_100_runs() -> None:
    rng = Random(1)
    for sample in (6, 9, 40, 1200):
        covered = 0
        runs = 400
        for _ in range(runs):
            interval = median_interval([rng.expovariate(1) for _ in range(sample)])
            assert interval.low is not None
            assert interval.high is not None
            covered += interval.low <= math.log(2) <= interval.high
        assert covered / runs > 0.92, sample


def test_a_small_sample_has_no_interval() -> None:
    assert mean_interval([1.0, 2.0]).low is None
    assert median_interval([1.0, 2.0, 3.0]).low is None
    assert median_interval([]).sample == 0


def test_the_exact_test_is_that_of_the_binomial_distribution() -> None:
    # R: binom.test(8, 10, 0.5) and binom.test(15, 20, 0.3)
    assert share_mismatch([8, 2], [50, 50]).p_value == pytest.approx(0.109375)
    assert share_mismatch([15, 5], [30, 70]).p_value == pytest.approx(4.294e-05, rel=2e-3)


def test_a_weight_that_is_nearly_nothing_is_counted_with() -> None:
    assert share_mismatch([5, 0], [100, 1e-17]).p_value == pytest.approx(1)
    assert share_mismatch([5, 1], [100, 1e-17]).p_value == pytest.approx(6e-19)


def test_shares_that_cannot_be_chance_raise_the_alarm() -> None:
    assert share_mismatch([600, 400], [50, 50]).is_alarm
    assert share_mismatch([500, 330, 170], [50, 25, 25]).is_alarm
    assert share_mismatch([5, 1], [100, 0]).is_alarm
    assert not share_mismatch([510, 490], [50, 50]).is_alarm
    assert not share_mismatch([3, 0], [50, 50]).is_alarm
    assert not share_mismatch([0, 0], [50, 50]).is_alarm


def test_who_looks_after_every_session_is_not_misled() -> None:
    """A test for one look, looked at 30 times, alarms in many runs; this one in one of a thousand."""
    rng = Random(2)
    alarms = naive = 0
    runs = 40
    for _ in range(runs):
        counts = [0, 0]
        alarmed = small = False
        for look in range(1, 601):
            counts[rng.random() < 0.3] += 1
            if look % 20 == 0:
                found = share_mismatch(counts, [70, 30])
                alarmed = alarmed or found.is_alarm
                small = small or (found.p_value or 1) < 0.05
        alarms += alarmed
        naive += small
    assert alarms <= 1
    assert naive > runs * 0.15
    assert MISMATCH_ALPHA == 0.001
