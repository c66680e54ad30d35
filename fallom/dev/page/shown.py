"""How figures are written on the page: three digits that matter, units that fit. Pure."""

from __future__ import annotations

from datetime import datetime, timezone

__all__ = [
    "shown_age",
    "shown_bytes",
    "shown_clock",
    "shown_count",
    "shown_ms",
    "shown_ns",
    "shown_number",
    "shown_share",
    "shown_time",
]


def shown_ns(nanoseconds: float) -> str:
    """Give a duration."""
    return shown_ms(nanoseconds / 1e6)


def shown_ms(milliseconds: float) -> str:
    """Give a duration."""
    if milliseconds < 0.01:
        return "<0.01 ms" if milliseconds > 0 else "0 ms"
    if milliseconds < 10:
        return f"{milliseconds:.2g} ms"
    if milliseconds < 999.5:
        return f"{milliseconds:.0f} ms"
    seconds = milliseconds / 1000
    if seconds < 9.995:
        return f"{seconds:.2f} s"
    if seconds < 119.5:
        return f"{seconds:.1f} s"
    return shown_age(seconds)


def shown_age(seconds: float) -> str:
    """Give a long duration in one unit."""
    if seconds < 119.5:
        return f"{max(0.0, seconds):.0f} s"
    if seconds < 7_170:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} d"


def shown_count(count: float) -> str:
    """Give a number of things."""
    if count >= 99_950_000:
        return f"{count / 1e6:.0f} M"
    if count >= 999_500:
        return f"{count / 1e6:.1f} M"
    if count >= 10_000:
        return f"{count / 1e3:.1f} k"
    return f"{count:,.0f}"


def shown_number(number: float) -> str:
    """Give a metric of unknown meaning."""
    return shown_count(number) if 1000 <= abs(number) < 1e10 else f"{number:.3g}"


def shown_share(share: float) -> str:
    """Give a share as a percentage."""
    return f"{share:.1%}" if share < 0.9995 else "100%"


def shown_bytes(count: float) -> str:
    """Give a number of bytes."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def shown_clock(unix_ns: int) -> str:
    """Give a time of day of this machine."""
    return _local(unix_ns).strftime("%H:%M:%S")


def shown_time(unix_ns: int) -> str:
    """Give a date and time of this machine, to the millisecond."""
    return _local(unix_ns).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def _local(unix_ns: int) -> datetime:
    # Times come from outside: what no calendar has is shown as the epoch.
    try:
        return datetime.fromtimestamp(unix_ns / 1e9, tz=timezone.utc).astimezone()
    except (OverflowError, ValueError, OSError):
        return datetime.fromtimestamp(0, tz=timezone.utc)
