"""Fan-out: the extra targets of one flusher, each with lanes, counts and dead letters of its own.

A lane of an extra target reads the same segments as the main one, and writes its offset into a slot of its
own. It shares nothing with others that could be held up: a target that hangs, refuses or is gone costs its
own budget on the disk, and after that its own records.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Container, Mapping
from dataclasses import dataclass, field

from fallom._core.extra_targets import ExtraTarget
from fallom._core.settings import Settings
from fallom._flusher.dead import DeadLetters
from fallom._flusher.delivery import MasksInForce, deliver_otlp
from fallom._flusher.http import Http
from fallom._flusher.ledger import Ledger
from fallom._flusher.ship import Channel, Lane
from fallom._flusher.targets import EXTRA_DESTINATIONS, extra_hash, hashes_of
from fallom._host.control import ControlPage
from fallom._host.counts import Drop, Tally
from fallom._host.directory import StateDirectory
from fallom._host.files import File
from fallom._host.target_board import TargetBoard, TargetCount
from fallom._spool.held import Held, count_lacking
from fallom._spool.quota import AgeLimit, OnDrop, Usage
from fallom._spool.reader import Sharing, SpoolReader
from fallom._spool.segment import Destination, SegmentName
from fallom._spool.survey import marks_of
from fallom._spool.tail import tails_allowed

__all__ = ["FanOut"]

_TALLIES = {
    Tally.SPANS_ACCEPTED: TargetCount.ACCEPTED,
    Tally.METRICS_ACCEPTED: TargetCount.ACCEPTED,
    Tally.BATCHES_SENT: TargetCount.BATCHES_SENT,
    Tally.BATCHES_RETRIED: TargetCount.BATCHES_RETRIED,
}
_DROPS = {Drop.REFUSED: TargetCount.REFUSED, Drop.REJECTED: TargetCount.REJECTED}


@dataclass(slots=True)
class _Extra:
    """One target and all that is its own."""

    number: int
    target: ExtraTarget
    held: Held
    dead: DeadLetters
    age: AgeLimit
    ledger: Ledger = field(default_factory=Ledger)
    counts: Counter[TargetCount] = field(default_factory=Counter)  # of the main thread
    lanes: list[Lane] = field(default_factory=list)


class FanOut:
    """What the flusher's main thread does about extra targets; it owns none of their threads."""

    def __init__(
        self,
        settings: Settings,
        directory: StateDirectory,
        page: ControlPage,
        main_of: Mapping[Destination, bytes],
        clocks: tuple[int, int],
    ) -> None:
        """Make what each target has of its own; ``clocks`` are those of ``AgeLimit``."""
        self._directory = directory
        self._board = TargetBoard(page)
        self._heads = threading.Lock()
        self._hashes = frozenset(extra_hash(each) for each in settings.extra_targets)
        self._extras: list[_Extra] = []
        for number, target in enumerate(settings.extra_targets):
            self._board.begin(number, target.name)
            held = Held(directory.spool, main_of, hashes_of(target), self._hashes, self._heads)
            dead = DeadLetters(
                directory.dead, settings.dead_bytes_max, settings.dead_age_max_s, target.name
            )
            age = AgeLimit(target.age_max_s, *clocks)
            self._extras.append(_Extra(number, target, held, dead, age))

    def sharing_of(self, destination: Destination) -> Sharing:
        """Give how the main target's reader of a destination shares its segments."""
        others = self._hashes if destination in EXTRA_DESTINATIONS else ()
        return Sharing(is_keeper=True, others=others, heads=self._heads)

    def make_lanes(self, http: Http, masks: MasksInForce) -> list[Lane]:
        """Make the lanes of all targets, anew at each turn of the flusher; ``masks`` hold for all."""
        for extra in self._extras:
            extra.lanes = [self._lane(extra, each, http, masks) for each in EXTRA_DESTINATIONS]
        return [lane for extra in self._extras for lane in extra.lanes]

    def carry_over(self) -> None:
        """Write what the lanes counted to the control page."""
        for extra in self._extras:
            tallies, drops, error = extra.ledger.take()
            counts, extra.counts = extra.counts, Counter()
            for tally, number in tallies.items():
                if tally in _TALLIES:
                    counts[_TALLIES[tally]] += number
            for drop, number in drops.items():
                if drop in _DROPS:
                    counts[_DROPS[drop]] += number
            self._board.add(extra.number, counts)
            if error is not None:
                self._board.set_last_error(extra.number, error)
            paused = max((lane.paused_until_unix_s for lane in extra.lanes), default=0.0)
            self._board.set_paused(extra.number, int(paused) if paused > time.time() else 0)

    def keep_budgets(self, usage: Usage, in_flight: Container[bytes]) -> None:
        """Give up what is held for a target beyond its budget."""
        for extra in self._extras:
            if usage.bytes > extra.target.bytes_max:  # else there cannot be as much
                lost = extra.held.give_up_beyond(extra.target.bytes_max, in_flight)
                self._gave_up(extra, TargetCount.BUDGET, lost, "its budget on the disk is used up")

    def make_room(self, in_flight: Container[bytes]) -> None:
        """Give up all that is held: the spool is full, and what the main target lacks comes first."""
        for extra in self._extras:
            lost = extra.held.give_up_beyond(0, in_flight)
            self._gave_up(extra, TargetCount.QUOTA, lost, "the spool is full")

    def drop_aged(self, unix_ns: int, since_boot_ns: int, in_flight: Container[bytes]) -> None:
        """Give up what is held for a target for longer than it wants; its dead letters as well."""
        for extra in self._extras:
            before_ns = extra.age.before_unix_ns(unix_ns, since_boot_ns)
            if before_ns is not None:
                lost = extra.held.give_up_before(before_ns, in_flight)
                self._gave_up(extra, TargetCount.AGED, lost, "they are older than its age_max")
            extra.counts[TargetCount.DEAD_EVICTED] += extra.dead.evict(unix_ns)

    def counter_of(self, reason: TargetCount) -> OnDrop:
        """Give what counts the records that targets lack of a segment that is about to be deleted."""

        def count(file: File, name: SegmentName) -> None:
            for extra in self._extras:
                extra.counts[reason] += count_lacking(file, name, extra.held.extra_of)

        return count

    def is_left(self) -> bool:
        """Tell whether some target lacks something."""
        spool = self._directory.spool
        return any(marks_of(spool, extra.held.extra_of) for extra in self._extras)

    def least_budget(self) -> float:
        """Give the least of the budgets; more than any disk has where there is no extra target."""
        return min((extra.target.bytes_max for extra in self._extras), default=float("inf"))

    @staticmethod
    def _gave_up(extra: _Extra, reason: TargetCount, lost: int, why: str) -> None:
        if lost:
            extra.counts[reason] += lost
            name = extra.target.name
            extra.ledger.say(f"{lost} records are given up for {name}: {why}", time.monotonic())

    def _lane(
        self, extra: _Extra, destination: Destination, http: Http, masks: MasksInForce
    ) -> Lane:
        target, ledger = extra.target, extra.ledger
        is_spans = destination is Destination.TRACES
        channel = Channel(
            destination,
            deliver_otlp(target.headers, http, target.endpoint, masks),
            Tally.SPANS_ACCEPTED if is_spans else Tally.METRICS_ACCEPTED,
            target=target.name,
        )
        reader = SpoolReader(
            self._directory.spool,
            destination,
            extra_hash(target),
            on_damage=lambda *_: None,  # the main target's reader tells it
            on_error=lambda sentence: ledger.say(sentence, time.monotonic()),
            # Of six targets with a backlog the segments would be all that a process may open.
            tails_max=max(2, tails_allowed() // len(self._extras)),
            sharing=Sharing(is_keeper=False, heads=self._heads),
        )
        return Lane(channel, reader, extra.dead, ledger)
