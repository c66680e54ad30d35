"""A lane: the thread that carries the records of one destination from the spool to its target.

While the target takes what it gets, and its time for it, a few batches are in flight (``window``); after
anything else one, until that is taken. A batch is accepted in the heads of its segments when every record
of it, and of those before it, is with the server, in ``dead/``, or counted; a flusher that dies before
sends those in flight again. A lane that has to wait holds back no other.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from fallom._core.outcome import PAUSE_S, Outcome, Verdict, backoff_s
from fallom._flusher.dead import DeadLetters
from fallom._flusher.dead_reading import remove_letters
from fallom._flusher.delivery import Delivery, Refused, Result
from fallom._flusher.doubt import AHEAD_READS, is_doubt, settle_doubt
from fallom._flusher.ledger import Ledger
from fallom._flusher.window import BATCHES_MAX, BYTES_MAX, Batch, Window
from fallom._host.counts import Drop, Tally
from fallom._spool.reader import Item, Piece, SpoolReader
from fallom._spool.segment import Destination

__all__ = ["Channel", "Lane", "LaneLimits", "RepeatFilter"]

TICK_S = 0.2
# Between two looks, unless woken, of a lane that had nothing to ship for a while. What grows, comes, goes
# or loses its writer is seen by the tick, which wakes it.
QUIET_TICK_S = 12.0
QUIET_AFTER_S = 5.0
TIDY_AFTER_S = 1.0

_UNREADABLE = Outcome(Verdict.SPLIT, "not a record that this version can read")
_LEAVING = Outcome(Verdict.RETRY, "the flusher leaves")


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
    batches_max: int = BATCHES_MAX  # in flight


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
        self.on_accept: Callable[[], None] = lambda: None  # told of each batch that was accepted
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._turned_off = False
        self._tidied_s = 0.0
        self._window = Window(lambda items: self._begin(items, 0), self.name)
        self._is_healthy = False  # the target took the whole of the last batch
        self._is_trusted = False  # the target took something, and since then refused no lone record
        self.progress_s = time.monotonic()  # when something was last accepted
        self.is_idle = False  # nothing was left at the last look
        self.paused_until_unix_s = 0.0
        self.wrong_since_unix_s = 0.0  # since when the target refuses what only people can mend
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
        while not self._stop.is_set() or self._window:
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
                self._window.clear()
                self._reader.rewind()
                self.in_flight = frozenset()
                self._stop.wait(1.0)
        with contextlib.suppress(OSError):
            self._reader.refresh(time.monotonic_ns())
            self._reader.tidy(time.monotonic_ns(), leaving=True)
        self._window.close()
        self._reader.close()

    def ship_once(self) -> bool:
        """Ship one batch, waiting as long as the target makes it.

        Returns:
            False when there was nothing to ship.
        """
        now_ns = time.monotonic_ns()
        if not self._stop.is_set():
            self._send_more(now_ns)
        if now_ns / 1e9 - self._tidied_s >= TIDY_AFTER_S:
            self._tidied_s = now_ns / 1e9
            self._reader.tidy(now_ns)
        if not self._window:
            self.is_idle = self._reader.is_drained()
            return False
        self.is_idle = False
        batch, result = self._window.answer()
        self._is_healthy = result.is_clean
        while self._window and not result.is_clean:
            later, its_result = self._window.answer()
            batch.add(later)
            result.add(its_result)
        if self._settle(batch, result):
            self._accept(batch.pieces)
        else:
            self._reader.rewind()
        self.in_flight = self._window.segments()
        return True

    def _send_more(self, now_ns: int) -> None:
        """Send what there is, as far as the window has room."""
        batches: list[Batch] = []
        is_many = self._is_healthy and self._window.pays
        room = (self._channel.batches_max if is_many else 1) - len(self._window)
        size = self._window.size()
        with self.gathering:
            self._reader.refresh(now_ns)
            while len(batches) < room and (size < BYTES_MAX or not (batches or self._window)):
                batch = self._read()
                if not batch.pieces:
                    break
                batches.append(batch)
                size += batch.size()
        if batches:
            self._window.send(batches)

    def _read(self) -> Batch:
        """Read the next batch, of which only what is new is to be sent; under ``gathering``."""
        pieces = self._reader.next_batch(self._limits.items_max, self._limits.bytes_max)
        self.in_flight |= {piece.tail.name.id for piece in pieces}
        items = [item for piece in pieces for item in piece.items]
        repeats = self._channel.repeats
        return Batch(pieces, items if repeats is None else repeats.select(items))

    def _settle(self, batch: Batch, result: Result) -> bool:
        """Send what is left of a batch until nothing of it is; False when it has to be read again.

        What more has to be read, to see whether the target takes that, becomes part of the batch.
        """
        guilty: list[Refused] = []
        pending: list[Item] = []
        attempt = taken = 0
        while True:
            self._count(result, attempt)
            taken += result.taken
            if result.suspects or is_doubt(result.outcome):
                result = self._without_doubt(batch, result, pending, attempt)
                taken += result.taken
            guilty += result.guilty
            guilty += [(item, _UNREADABLE) for item in result.unreadable]
            pending, outcome = [*result.unsent, *pending], result.outcome
            if not pending or self._turned_off:
                break
            if outcome is None:
                attempt = min(attempt, 1)
            else:
                if not self._waited(outcome, attempt) or (is_doubt(outcome) and not taken):
                    return False  # beside records that came since, the guilty ones will show
                pending = self._still_wanted(pending, batch.pieces)
                attempt += 1
            now, pending = self._cut(pending)
            result = self._begin(now, attempt)()
        self.paused_until_unix_s = self.wrong_since_unix_s = 0.0
        if not all(self._buried(item, outcome) for item, outcome in guilty):
            return False
        self._is_trusted = self._is_trusted and (taken > 0 or not guilty)
        self._ledger.drop(Drop.EXPOSURES_OFF, len(pending))
        items = sum(len(piece.items) for piece in batch.pieces)
        self._ledger.tally(Tally.EXPOSURES_REPEATED, items - len(batch.items))
        if self._channel.repeats is not None:
            self._channel.repeats.remember(batch.items)
        return True

    def _without_doubt(
        self, batch: Batch, result: Result, rest: list[Item], attempt: int
    ) -> Result:
        is_taking = False

        def deliver(items: list[Item]) -> Result:
            nonlocal is_taking
            if self._stop.is_set():
                return Result(unsent=items, outcome=_LEAVING)
            found = self._begin(items, attempt)()
            self._count(found, attempt)
            is_taking = is_taking or found.taken > 0
            if is_taking:  # to find the guilty is progress as well
                self.progress_s = time.monotonic()
            return found

        def read() -> list[Item] | None:
            with self.gathering:
                self._reader.refresh(time.monotonic_ns())
                ahead = self._read()
            batch.add(ahead)
            return ahead.items if ahead.pieces else None

        ahead_max = AHEAD_READS * self._limits.items_max
        return settle_doubt(result, rest, deliver, read, ahead_max, self._is_trusted)

    def _cut(self, items: list[Item]) -> tuple[list[Item], list[Item]]:
        """Give as many records as go into one request, and the rest."""
        size = 0
        for number, item in enumerate(items):
            size += len(item.payload)
            if number >= self._limits.items_max or (number and size > self._limits.bytes_max):
                return items[:number], items[number:]
        return items, []

    def _begin(self, items: list[Item], attempt: int) -> Callable[[], Result]:
        if not items or self._turned_off:
            return lambda: Result(unsent=items)
        return self._channel.deliver.begin(items, attempt, time.time())

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
        now_unix_s = time.time()
        self.paused_until_unix_s = now_unix_s + wait_s
        if outcome.is_wrong:
            self.wrong_since_unix_s = self.wrong_since_unix_s or now_unix_s
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
        self.on_accept()

    def _say(self, sentence: str) -> None:
        self._ledger.say(sentence, time.monotonic())
