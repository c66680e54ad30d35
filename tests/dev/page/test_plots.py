from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallom.dev.page.plots import interval_plot
from fallom.dev.page.shown import shown_number
from fallom.dev.page.statistics import mean_interval

VALUES = st.floats(-1e100, 1e100)


@pytest.mark.parametrize("value", [0.1, 0.7, -0.1, 1e17])
def test_means_that_differ_by_rounding_alone_are_drawn(value: float) -> None:
    means = [mean_interval([value] * sample) for sample in (1, 3, 7)]
    means.append(mean_interval([value * (1 + 2e-16)]))
    assert len({mean.value for mean in means}) > 1
    assert 1 <= interval_plot(means, shown_number).count('class="tick"') <= 12


@given(st.lists(st.lists(VALUES, max_size=8), min_size=1, max_size=4))
def test_an_axis_has_few_ticks_whatever_was_measured(samples: list[list[float]]) -> None:
    plot = interval_plot([mean_interval(sample) for sample in samples], shown_number)
    assert plot.count('class="tick"') <= 12
    assert "nan" not in plot
    assert "inf" not in plot


def test_a_number_is_short_however_large_it_is() -> None:
    shown = [shown_number(number) for number in (0.7, 1234, -2_000_000, 123456789012345678)]
    assert shown == ["0.7", "1,234", "-2,000,000", "1.23e+17"]
