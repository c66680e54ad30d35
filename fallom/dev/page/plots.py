"""``interval_plot``: values with their intervals as inline SVG, one row for each variant.

Presentation attributes only: the page's policy forbids styles within the markup, and colours come
from the style sheet by class. The same figures stand in a table below the plot, so that a screen
reader passes the drawing over.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import Final

from fallom.dev.page.statistics import Interval

__all__ = ["Drawing", "interval_plot", "share_plot"]

_WIDTH: Final = 560
_LEFT: Final = 8
_RIGHT: Final = 64  # for the value at the end of its row
_ROW: Final = 26
_AXIS: Final = 22
_TICKS: Final = 5
_CROWDED: Final = 1e-9  # means of one constant differ by rounding, and their axis has no ticks


class Drawing(str):
    """Markup that was made here, from numbers and escaped text; templates take it as it is."""

    __slots__ = ()

    def __html__(self) -> str:
        """Give the markup (the protocol of MarkupSafe, which need not be loaded for it)."""
        return str(self)


def interval_plot(bars: Sequence[Interval], shown: Callable[[float], str]) -> Drawing:
    """Draw dots with whiskers on one axis, a row and a colour for each variant."""
    ends = [
        end
        for interval in bars
        for end in (interval.low, interval.high, interval.value)
        if end is not None and interval.sample
    ]
    if not ends:
        return Drawing("")
    low, high = min(ends), max(ends)
    # An axis from zero tells how large a difference is, unless all values are crowded far from it.
    if 0 <= low < 0.6 * high:
        low = 0.0
    margin = (high - low) * 0.06
    if margin <= abs(high) * _CROWDED:
        margin = abs(high) * 0.1 or 1.0
    low, high = (low if low == 0 else low - margin), high + margin
    height = len(bars) * _ROW + _AXIS
    parts = [_axis(low, high, height, shown)]
    for row, interval in enumerate(bars):
        y = row * _ROW + _ROW // 2
        if not interval.sample:
            parts.append(f'<text class="faint" x="{_LEFT}" y="{y + 4}">no sessions</text>')
            continue
        at = _x(interval.value, low, high)
        end = at
        if interval.low is not None and interval.high is not None:
            start, end = _x(interval.low, low, high), _x(interval.high, low, high)
            parts.append(
                f'<line class="v{row % 6} whisker" x1="{start:.1f}" x2="{end:.1f}" '
                f'y1="{y}" y2="{y}"/>'
            )
        parts.append(f'<circle class="v{row % 6}" cx="{at:.1f}" cy="{y}" r="5"/>')
        parts.append(
            f'<text class="value" x="{end + 10:.1f}" y="{y + 4}">{escape(shown(interval.value))}</text>'
        )
    return _svg(height, parts)


def share_plot(bars: Sequence[tuple[Interval, float]]) -> Drawing:
    """Draw shares as bars with whiskers, each with a mark where its weight is.

    Args:
        bars: Interval and weight as a share, of each variant.
    """
    height = len(bars) * _ROW + _AXIS
    parts = [_axis(0.0, 1.0, height, lambda share: f"{share:.0%}")]
    for row, (interval, weight) in enumerate(bars):
        y = row * _ROW + _ROW // 2
        at = _x(interval.value, 0.0, 1.0)
        zero, mark = _x(0.0, 0.0, 1.0), _x(weight, 0.0, 1.0)
        parts.append(
            f'<rect class="v{row % 6} bar" x="{zero:.1f}" y="{y - 7}" height="14" rx="2" '
            f'width="{max(0.0, at - zero):.1f}"/>'
        )
        if interval.low is not None and interval.high is not None:
            start, end = _x(interval.low, 0.0, 1.0), _x(interval.high, 0.0, 1.0)
            parts.append(f'<line class="ink" x1="{start:.1f}" x2="{end:.1f}" y1="{y}" y2="{y}"/>')
        parts.append(
            f'<path class="weight" d="M{mark:.1f} {y - 11}V{y + 11}"/>'
            f'<text class="value" x="{_WIDTH - _RIGHT + 8}" y="{y + 4}">{interval.value:.1%}</text>'
        )
    return _svg(height, parts)


def _svg(height: int, parts: Sequence[str]) -> Drawing:
    return Drawing(
        f'<svg class="plot" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        f'aria-hidden="true" focusable="false">{"".join(parts)}</svg>'
    )


def _axis(low: float, high: float, height: int, shown: Callable[[float], str]) -> str:
    step = _step((high - low) / _TICKS)
    parts = []
    tick = math.ceil(low / step - 1e-9) * step
    while tick <= high + step * 1e-9:
        x = _x(tick, low, high)
        parts.append(
            f'<path class="grid" d="M{x:.1f} 0V{height - _AXIS + 4}"/>'
            f'<text class="tick" x="{x:.1f}" y="{height - 4}">{escape(shown(tick))}</text>'
        )
        tick += step
    return "".join(parts)


def _step(rough: float) -> float:
    """Give the round number (1, 2 or 5 times a power of ten) that is at least ``rough``."""
    power = 10.0 ** math.floor(math.log10(rough)) if rough > 0 else 1.0
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))


def _x(value: float, low: float, high: float) -> float:
    return _LEFT + 12 + (value - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT - 24)
