"""The bounds of the spool, as the flusher's main thread keeps them: bytes, files, age, budgets.

What nobody but an extra target lacks goes before anything that the main target lacks; what goes is counted.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence

from fallom._core.settings import Settings
from fallom._flusher.fan_out import FanOut
from fallom._flusher.ledger import Ledger
from fallom._flusher.ship import Lane
from fallom._host.control import ControlPage
from fallom._host.counts import Drop
from fallom._host.directory import StateDirectory
from fallom._host.target_board import TargetCount
from fallom._spool.quota import (
    RELIEF,
    AgeLimit,
    Pressure,
    drop_aged,
    drop_oldest,
    pressure_of,
    usage_of,
)
from fallom._spool.segment import Destination

__all__ = ["Bounds", "clocks", "since_boot_ns"]


class Bounds:
    """Keeps one spool within its bounds; for the main thread."""

    def __init__(
        self,
        settings: Settings,
        directory: StateDirectory,
        page: ControlPage,
        targets: Mapping[Destination, bytes],
        fan_out: FanOut,
        ledger: Ledger,
        started: tuple[int, int],
    ) -> None:
        """Look at nothing yet; ``started`` is what ``clocks`` gave."""
        self._settings = settings
        self._directory = directory
        self._page = page
        self._targets = targets
        self._fan_out = fan_out
        self._ledger = ledger
        self._limit = directory.spool_bytes_max(settings.spool_bytes_total)
        self._age = AgeLimit(settings.spool_age_max_s, *started)
        self.is_urgent = False  # near a budget: to be kept at each tick, not each second

    def keep_quota(self, lanes: Sequence[Lane]) -> None:
        """Delete what is too much, and tell the workers how near the limit is.

        Raises:
            OSError: The directory cannot be read.
        """
        spool, limit = self._directory.spool, self._limit
        usage = usage_of(spool)
        self.is_urgent = usage.bytes > self._fan_out.least_budget() / 2
        if self.is_urgent:
            with _nothing_gathered(lanes) as in_flight:
                self._fan_out.keep_budgets(usage, in_flight)
                if self._is_full(usage.bytes, usage.segments):
                    self._fan_out.make_room(in_flight)
            usage = usage_of(spool)
        used, surplus = usage.bytes, usage.segments - self._settings.spool_segments_max
        is_full = self._is_full(used, usage.segments)
        if is_full and self._settings.spool_policy == "drop_oldest":
            with _nothing_gathered(lanes) as in_flight:
                used, lost = drop_oldest(
                    spool,
                    used,
                    limit,
                    self._targets,
                    in_flight,
                    surplus,
                    on_drop=self._fan_out.counter_of(TargetCount.QUOTA),
                )
            if lost:
                self._ledger.drop(Drop.OLDEST, lost)
                self._say(f"the spool reached its limit: its {lost} oldest records are gone")
            surplus = usage_of(spool).segments - self._settings.spool_segments_max
        self._page.set_spool(used, pressure_of(used, limit) if surplus <= 0 else Pressure.REFUSE)

    def drop_aged(self, lanes: Sequence[Lane]) -> None:
        """Delete what has waited for too long."""
        unix_ns, boot_ns = clocks()
        before_ns = self._age.before_unix_ns(unix_ns, boot_ns)
        with _nothing_gathered(lanes) as in_flight:
            self._fan_out.drop_aged(unix_ns, boot_ns, in_flight)
            if before_ns is None:
                return
            lost = drop_aged(
                self._directory.spool,
                before_ns,
                self._targets,
                in_flight,
                on_drop=self._fan_out.counter_of(TargetCount.AGED),
            )
        if lost:
            self._ledger.drop(Drop.AGED, lost)
            self._say(f"{lost} records are gone that were unsent for longer than spool_age_max")

    def _is_full(self, used: int, segments: int) -> bool:
        # Above the mark that deleting goes down to, not only above the limit: workers, which look for
        # themselves, stop at the limit, and what they record meanwhile would be refused.
        return used > self._limit * RELIEF or segments > self._settings.spool_segments_max

    def _say(self, sentence: str) -> None:
        self._ledger.say(sentence, time.monotonic())


def clocks() -> tuple[int, int]:
    """Give the two clocks of an ``AgeLimit``."""
    return time.time_ns(), since_boot_ns()


def since_boot_ns() -> int:
    """Give the time since boot, in which a suspended host counts too; elsewhere monotonic time."""
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@contextlib.contextmanager
def _nothing_gathered(lanes: Sequence[Lane]) -> Iterator[frozenset[bytes]]:
    """Keep the lanes from reading batches; give the segments that those under way are from."""
    with contextlib.ExitStack() as held:
        for lane in lanes:
            held.enter_context(lane.gathering)
        yield frozenset().union(*(lane.in_flight for lane in lanes))
