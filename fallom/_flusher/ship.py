"""A lane: the thread that carries the records of one destination from the spool to its target.

One batch is in flight at a time. It is accepted in the heads of its segments when every record of it
is with the server, in ``dead/``, or counted; a flusher that dies before sends that one batch again. A
lane that has to wait holds back no other.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from fallom._core.outcome import PAUSE_S, Outcome, Verdict, backoff_s
from fallom._flusher.dead import DeadLetters
from fallom._flusher.dead_reading import remove_letters
from fallom._flusher.delivery import Delivery, Result
from fallom._flusher.ledger import Ledger
from fallom._host.control import Drop, Tally
from fallom._spool.reader import Item, Piece, SpoolReader
from fallom._spool.segment import Destination

__all__ = ["Channel", "Lane", "LaneLimits", "RepeatFilter"]

TICK_S = 0.2
QUIET_TICK_S = 3.0  # between two looks, unless woken, of a lane that had nothing to ship for:
QUIET_AFTER_S = 5.0
TIDY_AFTER_S = 1.0

AHEAD_READS = 4  # batches; two records of each are tried, so that doubt costs a few requests

_UNREADABLE = Outcome(Verdict.SPLIT, "not a record that this version can read")
_LEAVING = Outcome(Verdict.RETRY, "the flusher leaves")

Refused: TypeAlias = "tuple[Item, Outcome]"


@dataclass(frozen=True, slots=True)
class LaneLimits:
    """How much goes into one batch."""

    items_max: int = 2000
    bytes_max: int = 4 << 20  # before compression; OTLP asks for less than 64 MiB


class RepeatFilter(Protocol):
    """Leaves out records that the target has already."""

    def select(self, items: list[Item]) -> list[Item]:
        """Give those that are new."""

    def remember(self, items: list[Item]) -> None:
        """Take these for known: the target has them."""


@dataclass(frozen=True, slots=True)
class Channel:
    """What is particular to one destination."""

    destination: Destination
    deliver: Delivery
    tally: Tally  # what an accepted record counts as
    repeats: RepeatFilter | None = None
    is_optional: bool = False  # a server that has no such path is not asked again
    target: str = ""  # name of an extra target


class Lane:
    """Ships one destination; ``run`` is the body of its thread."""

    def __init__(
        self,
        channel: Channel,
        reader: SpoolReader,
        dead: DeadLetters,
        ledger: Ledger,
        limits: LaneLimits | None = None,
    ) -> None:
        """Make a lane; ``reader`` is used by this lane's thread alone."""
        self._channel = channel
        self._reader = reader
        self._dead = dead
        self._ledger = ledger
        self._limits = limits or LaneLimits()
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._turned_off = False
        self._tidied_s = 0.0
        self._is_trusted = False  # the target took something, and since then refused no lone record
        self.progress_s = time.monotonic()  # when something was last accepted
        self.is_idle = False  # nothing was left at the last look
        self.paused_until_unix_s = 0.0
        self.in_flight: frozenset[bytes] = frozenset()  # ids of segments with records in a batch
        self.gathering = threading.Lock()  # held while a batch is read: nobody deletes under it

    @property
    def name(self) -> str:
        """The destination, for people."""
        channel = self._channel
        word = channel.destination.name.lower()
        return f"{word} to {channel.target}" if channel.target else word

    def stop(self) -> None:
        """Ask the thread to end after the exchange that is under way; does not block."""
        self._stop.set()
        self._wake.set()

    def wake(self) -> None:
        """Say that there may be something to ship; does not block."""
        self._wake.set()

    def run(self) -> None:
        """Ship until told to stop. The guard of this thread: a fault costs a turn, not the lane."""
        busy_s = time.monotonic()
        while not self._stop.is_set():
            try:
                self._wake.clear()  # before the look: who wakes it after that has something new
                if self.ship_once():
                    busy_s = time.monotonic()
                elif time.monotonic() - busy_s <= QUIET_AFTER_S:
                    self._stop.wait(TICK_S)
                elif not self._stop.is_set():  # it is set before ``_wake`` is
                    self._wake.wait(QUIET_TICK_S)
            except Exception as error:  # noqa: BLE001 - the edge of this thread
                self._say(f"{self.name}: {type(error).__name__}: {error}; trying again")
                self._reader.rewind()
                self.in_flight = frozenset()
                self._stop.wait(1.0)
        with contextlib.suppress(OSError):
            self._reader.refresh(time.monotonic_ns())
            self._reader.tidy(time.monotonic_ns(), leaving=True)
        self._reader.close()

    def ship_once(self) -> bool:
        """Ship one batch, waiting as long as the target makes it.

        Returns:
            False when there was nothing to ship.
        """
        now_ns = time.monotonic_ns()
        with self.gathering:
            self._reader.refresh(now_ns)
            pieces = self._reader.next_batch(self._limits.items_max, self._limits.bytes_max)
            self.in_flight = frozenset(piece.tail.name.id for piece in pieces)
        if now_ns / 1e9 - self._tidied_s >= TIDY_AFTER_S:
            self._tidied_s = now_ns / 1e9
            self._reader.tidy(now_ns)
        if not pieces:
            self.is_idle = self._reader.is_drained()
            return False
        self.is_idle = False
        if self._ship(pieces):
            self._accept(pieces)
        else:
            self._reader.rewind()
        self.in_flight = frozenset()
        return True

    def _ship(self, pieces: list[Piece]) -> bool:
        """Send a batch until nothing of it is left; False when it has to be read again.

        What more has to be read, to see whether the target takes that, is added to ``pieces``.
        """
        sent = pending = self._new(pieces)
        guilty: list[Refused] = []
        refused: list[Refused] = []  # not judged yet
        attempt = accepted = 0
        is_asked_again = False
        while pending and not self._turned_off:
            result = self._deliver(pending, attempt)
            accepted += result.accepted + result.rejected
            guilty += [(item, _UNREADABLE) for item in result.unreadable]
            refused += result.guilty
            pending, outcome = result.unsent, result.outcome
            if not pending and self._is_doubtful(len(refused), len(sent)):
                first = refused[0][1]
                reason = f"{first.reason} for most of a batch"
                outcome = Outcome(Verdict.DOUBT, reason, first.status)
                pending, refused = [item for item, _ in refused], []
            if outcome is not None and outcome.verdict is Verdict.DOUBT:
                more: list[Item] = []
                if not accepted:
                    accepted, more = self._look_ahead(pieces, attempt)
                    if not accepted:  # beside records that came since, the guilty ones will show
                        self._waited(outcome, attempt)
                        return False
                    sent = [*sent, *more]
                    is_asked_again = True
                if is_asked_again:
                    found = self._ask_each(pending, attempt)
                    guilty += found.guilty
                    pending, outcome = [*found.unsent, *more], found.outcome
                is_asked_again = True
            if pending and outcome is not None:
                if not self._waited(outcome, attempt):
                    return False
                pending = self._still_wanted(pending, pieces)
            attempt += 1
        self.paused_until_unix_s = 0.0
        guilty += refused
        if not all(self._buried(item, outcome) for item, outcome in guilty):
            return False
        self._is_trusted = self._is_trusted and (accepted > 0 or not guilty)
        self._ledger.drop(Drop.EXPOSURES_OFF, len(pending))
        items = sum(len(piece.items) for piece in pieces)
        self._ledger.tally(Tally.EXPOSURES_REPEATED, items - len(sent))
        if self._channel.repeats is not None:
            self._channel.repeats.remember(sent)
        return True

    def _is_doubtful(self, refused: int, first_size: int) -> bool:
        """Tell whether what was refused may say more about the target than about the records.

        More than half of a batch may. A lone record is believed to be guilty if the target took something
        since the last one that was.
        """
        if first_size == 1:
            return refused == 1 and not self._is_trusted
        return refused * 2 > first_size

    def _look_ahead(self, pieces: list[Piece], attempt: int) -> tuple[int, list[Item]]:
        """See whether the target takes anything of what comes after a batch that it refused.

        Returns:
            How many it took, 0 or 1, and what else was read for that; it is part of the batch now.
        """
        read: list[Item] = []
        for _ in range(AHEAD_READS):
            with self.gathering:
                ahead = self._reader.next_batch(self._limits.items_max, self._limits.bytes_max)
                self.in_flight |= {piece.tail.name.id for piece in ahead}
            pieces += ahead
            new = self._new(ahead)
            read += new
            for item in {id(item): item for item in (*new[:1], *new[-1:])}.values():
                result = self._deliver([item], attempt)
                if result.accepted:
                    return 1, [other for other in read if other is not item]
                if result.outcome is not None:
                    return 0, []
            if not ahead:
                break
        return 0, []

    def _ask_each(self, items: list[Item], attempt: int) -> Result:
        """Post records one by one: the target takes others, so that what it refuses now is guilty."""
        found = Result()
        for number, item in enumerate(items):
            if self._stop.is_set():
                found.outcome, found.unsent = _LEAVING, items[number:]
                break
            if item.is_erased():
                continue
            result = self._deliver([item], attempt)
            if result.outcome is not None:
                found.outcome, found.unsent = result.outcome, items[number:]
                break
            found.guilty += result.guilty + [(each, _UNREADABLE) for each in result.unreadable]
            self.progress_s = time.monotonic()
        return found

    def _new(self, pieces: list[Piece]) -> list[Item]:
        """Give the records of some pieces that the target does not have yet."""
        items = [item for piece in pieces for item in piece.items]
        repeats = self._channel.repeats
        return items if repeats is None else repeats.select(items)

    def _deliver(self, items: list[Item], attempt: int) -> Result:
        result = self._channel.deliver(items, attempt, time.time())
        self._count(result, attempt)
        return result

    def _count(self, result: Result, attempt: int) -> None:
        self._ledger.tally(Tally.BATCHES_SENT, result.requests)
        if attempt:
            self._ledger.tally(Tally.BATCHES_RETRIED, result.requests)
        if result.accepted:
            self._ledger.tally(self._channel.tally, result.accepted)
            self._is_trusted = True
            self.progress_s = time.monotonic()
            if attempt:
                self._ledger.clear_error()
        if result.rejected:
            self._ledger.drop(Drop.REJECTED, result.rejected)
            self._say(
                f"{self.name}: the server accepted a batch and rejected {result.rejected} of its "
                f"records: {result.message or 'it did not say why'}"
            )
        elif result.message:
            self._say(f"{self.name}: the server says: {result.message}")

    def _waited(self, outcome: Outcome, attempt: int) -> bool:
        """Wait as long as an outcome asks for; False when told to stop meanwhile."""
        if self._channel.is_optional and outcome.status in (404, 405):
            self._turned_off = True
            self._say(f"{self.name}: {outcome.reason}; nothing more is sent until the next start")
            return True
        wait_s = backoff_s(attempt, random.random())  # noqa: S311 - jitter, not a secret
        if outcome.verdict in (Verdict.PAUSE, Verdict.DOUBT):
            wait_s = PAUSE_S * (0.5 + random.random() / 2)  # noqa: S311
        if outcome.wait_s is not None:
            wait_s = max(wait_s, outcome.wait_s)
        self.paused_until_unix_s = time.time() + wait_s
        self._say(f"{self.name}: {outcome.reason}; everything is kept and sent later")
        # Nothing is in flight meanwhile: where the spool is full, the quota may take these as well.
        in_flight, self.in_flight = self.in_flight, frozenset()
        is_stopped = self._stop.wait(wait_s)
        with self.gathering:
            self.in_flight = in_flight
        return not is_stopped

    def _still_wanted(self, items: list[Item], pieces: list[Piece]) -> list[Item]:
        """Leave out what was erased, and what the quota deleted or gave up: both are counted."""
        gone = [piece for piece in pieces if not self._reader.is_wanted(piece)]
        dropped = {id(item) for piece in gone for item in piece.items}
        return [item for item in items if not (id(item) in dropped or item.is_erased())]

    def _buried(self, item: Item, outcome: Outcome) -> bool:
        """Put a record into ``dead/``, waiting for room; False when told to stop meanwhile."""
        while True:
            try:
                unix_ns = time.time_ns()
                if item.is_erased():
                    return True
                destination = self._channel.destination
                letter = self._dead.add(item, destination, outcome.reason, outcome.status, unix_ns)
                if (
                    item.is_erased()
                ):  # while it was added: whoever erased may have been there before
                    remove_letters(self._dead.directory, {letter})
                    return True
            except OSError as error:  # it must not leave the spool then
                self._say(f"{self.name}: dead/ cannot be written: {error}; trying again")
                if self._stop.wait(PAUSE_S):
                    return False
            else:
                self._ledger.drop(Drop.REFUSED)
                self._say(f"{self.name}: refused for good ({outcome.reason}); it is in dead/")
                return True

    def _accept(self, pieces: list[Piece]) -> None:
        try:
            self._reader.accept(pieces)
        except OSError as error:
            # Not written down, but delivered: at worst a later flusher sends them again.
            self._say(f"{self.name}: an offset cannot be written: {error}")

    def _say(self, sentence: str) -> None:
        self._ledger.say(sentence, time.monotonic())
