"""The tick of the flusher: what its main thread does a few times a second, and when it leaves.

The main thread touches no network: it beats, carries counts to the control page, keeps the spool within
its quota, passes wishes on, and decides when to go. Lanes and the sync have threads of their own. Should
the main thread itself hang, a watchdog in C ends the process, and the next worker starts another.

The order that saves the last span: a worker writes its frame and then looks at the beat; a leaving
flusher sets the beat to 0 and then looks at the spool once more. Whoever is later sees the other.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import threading
import time
from collections.abc import Callable

from fallom._core.settings import Settings
from fallom._core.span import wish_of
from fallom._flusher.bounds import Bounds, clocks
from fallom._flusher.channels import channels_of
from fallom._flusher.dead import DeadLetters
from fallom._flusher.election import Election
from fallom._flusher.fan_out import FanOut
from fallom._flusher.http import Http
from fallom._flusher.ledger import Ledger
from fallom._flusher.on_disk import OnDisk
from fallom._flusher.ship import Lane
from fallom._flusher.ship_masks import ShipMasks
from fallom._flusher.syncing import SyncThread
from fallom._flusher.targets import target_hashes
from fallom._host.control import ControlPage
from fallom._host.counts import Drop, Tally
from fallom._host.directory import StateDirectory
from fallom._host.versions import pack_version
from fallom._spool.quota import Pressure
from fallom._spool.reader import Sharing, SpoolReader
from fallom._spool.segment import Destination, SegmentName
from fallom._spool.survey import marks_of, writers_of
from fallom._spool.watch import Watch
from fallom._version import __version__

__all__ = ["Flusher"]

TICK_S = 0.25
LOOK_EVERY_NS = 1_000_000_000  # at quota, writers, and whether the directory is still there
# Where for some seconds there was nothing to ship and nobody wished anything; each tick sees what grows.
QUIET_AFTER_NS = 5_000_000_000
QUIET_TICK_S = 0.5
QUIET_LOOK_EVERY_NS = 4_000_000_000
BEAT_EVERY_NS = 500_000_000
WATCHDOG_S = 30.0
WATCHDOG_EVERY_NS = 5_000_000_000  # each time is a thread that ends and another that begins, in C
LEAVE_WAIT_S = 12.0  # for the exchanges under way: a little more than one may take
STUCK_LEAVE_S = 600.0  # with no writer and a target that takes nothing: the data stays on disk
ONCE_PATIENCE_S = 30.0  # of a drain, without anything being accepted

_NOT_OURS = "the state directory is not the one it was"
_NOT_NEEDED = "no writer lives and nothing is left"

_logger = logging.getLogger("fallom")


class Flusher:
    """The elected process of one namespace."""

    def __init__(
        self,
        settings: Settings,
        directory: StateDirectory,
        page: ControlPage,
        election: Election,
        stop: threading.Event,
    ) -> None:
        """Make the lanes; nothing runs yet."""
        self._settings = settings
        self._directory = directory
        self._page = page
        self._election = election
        self._stop = stop
        self._ledger = Ledger()
        self._dead = DeadLetters(directory.dead, settings.dead_bytes_max, settings.dead_age_max_s)
        self._targets = target_hashes(settings)
        self._http = Http()
        self._masks = ShipMasks(directory.root, settings.ship_masks, self._mask_failed)
        started = clocks()
        self._fan_out = FanOut(settings, directory, page, self._targets, started)
        self._bounds = Bounds(
            settings, directory, page, self._targets, self._fan_out, self._ledger, started
        )
        self._lanes: list[Lane] = []  # of the main target
        self._all_lanes: list[Lane] = []
        self._sync = SyncThread(settings, self._http, directory, page, self._ledger)
        self._wishes = self._reader(Destination.WISHES)
        self._watch = Watch(directory.spool)
        self._writers = 0  # who held a segment for wishes at the last look, as each process does
        self._is_held_more = threading.Event()  # of what the main target has, for extra ones
        self._beat_ns = 0
        self._watchdog_ns = 0
        self._active_ns = 0  # when there last was something to do
        self._look_ns = 0
        self._minute_ns = 0
        self._busy_ns = time.monotonic_ns()  # when there last was a writer or something to ship

    def run(self, once: bool, lingers: bool) -> int:
        """Run until told to stop, superseded, or no longer needed.

        Args:
            once: Return when everything is delivered, or nothing has been for a while.
            lingers: Leave when no writer lives and nothing is left, ``linger_s`` later.

        Returns:
            0, or 1 when ``once`` had to leave something behind.
        """
        _logger.info("flusher %s leads %s", __version__, self._directory.path)
        self._ledger.tally(Tally.FLUSHER_STARTS)
        if self._settings.fsync == "interval":
            on_disk = OnDisk(self._directory.spool, self._say)
            self._thread(lambda: on_disk.run(self._stop), "fdatasync")
        why = ""
        while not why:
            why = self._serve(once, lingers)
            # Only now, with nothing left to wait for: whoever recorded before this saw a beat, and is
            # seen by the look that follows; whoever records after it sees that nobody beats.
            self._page.beat(0)
            if why == _NOT_NEEDED and self._is_needed():
                why = ""
        self._carry_over()
        self._wishes.tidy(time.monotonic_ns(), leaving=True)
        _logger.info("flusher leaves: %s", why)
        return 1 if once and self._is_left() else 0

    def _serve(self, once: bool, lingers: bool) -> str:
        """Run lanes and sync until there is a reason to leave; give it when their threads have ended."""
        settings, page = self._settings, self._page
        self._lanes = self._main_lanes()
        for lane in self._lanes if settings.extra_targets else ():
            lane.on_accept = self._is_held_more.set
        self._all_lanes = [*self._lanes, *self._fan_out.make_lanes(self._http, self._masks.current)]
        self._sync = SyncThread(settings, self._http, self._directory, page, self._ledger)
        self._beat_ns = 0
        self._active_ns = self._busy_ns = time.monotonic_ns()
        threads = [self._thread(lane.run, lane.name) for lane in self._all_lanes]
        if not once:
            threads.append(self._thread(self._sync.run, "sync"))
        ended, told = threading.Event(), []
        if settings.self_metrics == "otlp":
            told.append(self._thread(lambda: self._tell_metrics(ended), "metrics"))
        why = ""
        while not why:
            now_ns = time.monotonic_ns()
            try:
                has_looked = self._tick(now_ns)
                why = self._reason_to_leave(now_ns, once, lingers and has_looked, has_looked)
            except OSError as error:  # no descriptor left, an I/O error: due again at the next tick
                self._say(f"the spool cannot be looked after now: {error}; tried again")
                why = self._reason_to_leave(now_ns, False, False, looks=True)
                why = why or (self._reason_to_give_up_drain() if once else "")
            if not self._is_idle() or self._bounds.is_urgent:
                self._active_ns = now_ns
            if not why:
                # What the main target accepts is held for others from then on, and may not take its room:
                # it accepts more within a tick than a budget may have. A signal is seen at the next tick.
                event = self._is_held_more if settings.extra_targets else self._stop
                event.wait(QUIET_TICK_S if self._is_quiet(now_ns) else TICK_S)
        for lane in self._all_lanes:
            lane.stop()
        self._sync.stop()
        self._await(threads)
        self._carry_over()  # of what is told last
        ended.set()
        self._await(told)
        return why

    def _await(self, threads: list[threading.Thread]) -> None:
        """Wait until threads have ended, beating meanwhile."""
        give_up = time.monotonic() + LEAVE_WAIT_S
        for thread in threads:
            while thread.is_alive() and time.monotonic() < give_up:
                thread.join(0.1)
                self._beat(time.monotonic_ns())

    def _tell_metrics(self, ended: threading.Event) -> None:
        from fallom._flusher.self_metrics import SelfMetrics, look_at  # of those who ask for it

        namespace = os.path.basename(self._directory.path)
        where = self._page, self._directory.spool, self._targets, namespace
        SelfMetrics(self._settings, Http(), lambda: look_at(*where), self._say).run(ended)

    def _is_needed(self) -> bool:
        """Tell whether a writer lives or something is left."""
        spool = self._directory.spool
        return bool(marks_of(spool, self._targets) or writers_of(spool))

    def _is_left(self) -> bool:
        """Tell whether something is not with the target, or some target, that it is for."""
        return bool(marks_of(self._directory.spool, self._targets)) or self._fan_out.is_left()

    def _tick(self, now_ns: int) -> bool:
        """Do what is due; tell whether all was looked at that a tick does not look at."""
        self._beat(now_ns)
        look_every_ns = QUIET_LOOK_EVERY_NS if self._is_quiet(now_ns) else LOOK_EVERY_NS
        is_look = now_ns - self._look_ns >= look_every_ns
        has_changed = self._watch.has_changed()
        for lane in self._all_lanes if has_changed else ():
            lane.wake()
        if has_changed or is_look:
            self._grant_wishes(now_ns)
        if is_look or self._ledger.has_news:
            self._carry_over()
        if is_look:
            self._look_ns = now_ns
            self._count_writers(now_ns)
        is_urgent = self._bounds.is_urgent or self._is_held_more.is_set()
        self._is_held_more.clear()
        if is_look or is_urgent or self._page.pressure() != Pressure.FINE:
            self._bounds.keep_quota(self._all_lanes)
        if now_ns - self._minute_ns >= 60_000_000_000:
            self._minute_ns = now_ns
            self._bounds.drop_aged(self._all_lanes)
            self._ledger.drop(Drop.DEAD_EVICTED, self._dead.evict(time.time_ns()))
        return is_look

    def _count_writers(self, now_ns: int) -> None:
        writers = self._wishes.tidy(now_ns)
        if writers != self._writers:  # what a killed one left has not changed, and waits to be read
            self._writers = writers
            for lane in self._all_lanes:
                lane.wake()

    def _beat(self, now_ns: int) -> None:
        if now_ns - self._beat_ns >= BEAT_EVERY_NS:
            self._beat_ns = now_ns
            self._page.beat(now_ns)
        if now_ns - self._watchdog_ns >= WATCHDOG_EVERY_NS:
            self._watchdog_ns = now_ns
            # Works without the interpreter's lock, so also when that is what hangs.
            faulthandler.dump_traceback_later(WATCHDOG_S, exit=True, file=2)

    def _carry_over(self) -> None:
        """Write what the threads counted to the control page."""
        tallies, drops, error = self._ledger.take()
        self._page.add_tallies(tallies)
        if drops and not self._page.add_drops(self._directory.root, drops):
            self._ledger.give_back(drops)
        if error is not None:
            self._page.set_last_error(error)
        paused = max(lane.paused_until_unix_s for lane in self._lanes)
        self._page.set_paused(int(paused) if paused > time.time() else 0)
        wrong_since = [lane.wrong_since_unix_s for lane in self._all_lanes]
        wrong_since.append(self._sync.wrong_since_unix_s)
        self._page.set_wrong_since(int(min(filter(None, wrong_since), default=0)))
        self._fan_out.carry_over()

    def _grant_wishes(self, now_ns: int) -> None:
        self._wishes.refresh(now_ns)
        pieces = self._wishes.next_batch(1000, 1 << 20)
        if pieces:
            self._active_ns = now_ns
        for piece in pieces:
            for item in piece.items:
                try:
                    wish = wish_of(item.record)
                except (ValueError, TypeError):
                    self._ledger.drop(Drop.DAMAGED)
                else:
                    self._sync.wish(wish.config_key, wish.config_version)
        self._wishes.accept(pieces)

    def _reason_to_leave(self, now_ns: int, once: bool, lingers: bool, looks: bool) -> str:
        """Give why it is time to leave, "" if it is not; ``looks`` at the directory as well."""
        if self._stop.is_set():
            return "told to stop"
        if looks and not self._is_ours():
            return _NOT_OURS
        if self._page.successor() > pack_version(__version__):
            return "a higher version takes over"
        if once:
            return self._reason_to_end_drain()
        return self._reason_to_end_linger(now_ns) if lingers else ""

    def _is_ours(self) -> bool:
        is_there = self._directory.is_intact() and self._page.is_current(self._directory.root)
        return is_there and self._election.is_won()

    def _reason_to_end_drain(self) -> str:
        if self._is_idle() and not self._is_left():
            return "everything is delivered"
        return self._reason_to_give_up_drain()

    def _reason_to_give_up_drain(self) -> str:
        if self._is_without_progress(ONCE_PATIENCE_S):
            return f"nothing was accepted for {ONCE_PATIENCE_S:g} s; what is left stays on disk"
        return ""

    def _reason_to_end_linger(self, now_ns: int) -> str:
        spool = self._directory.spool
        is_stuck = self._is_without_progress(STUCK_LEAVE_S)
        if self._writers or writers_of(spool) or not (self._is_idle() or is_stuck):
            self._busy_ns = now_ns
            return ""
        if now_ns - self._busy_ns < self._settings.linger_s * 1e9:
            return ""
        if is_stuck:
            return "no writer lives and the server takes nothing; what is left stays on disk"
        return _NOT_NEEDED

    def _is_quiet(self, now_ns: int) -> bool:
        return now_ns - self._active_ns > QUIET_AFTER_NS

    def _is_idle(self) -> bool:
        return all(lane.is_idle for lane in self._all_lanes)

    def _is_without_progress(self, seconds: float) -> bool:
        newest = max(lane.progress_s for lane in self._all_lanes)
        return time.monotonic() - newest > seconds and not self._is_idle()

    def _main_lanes(self) -> list[Lane]:
        channels = channels_of(self._settings, self._http, self._masks.current, self._ledger)
        lanes = []
        for channel in channels:
            sharing = self._fan_out.sharing_of(channel.destination)
            reader = self._reader(channel.destination, sharing)
            lanes.append(Lane(channel, reader, self._dead, self._ledger))
        return lanes

    def _reader(self, destination: Destination, sharing: Sharing | None = None) -> SpoolReader:
        return SpoolReader(
            self._directory.spool,
            destination,
            self._targets[destination],
            on_damage=self._on_damage,
            on_error=self._say,
            sharing=sharing,
        )

    def _on_damage(self, name: SegmentName, offset: int, data: bytes) -> None:
        self._ledger.drop(Drop.DAMAGED)
        self._dead.keep_damaged(name, offset, data, time.time_ns())
        self._say(f"{len(data)} damaged bytes in {name.file_name()} at {offset}; kept in dead/")

    def _mask_failed(self, sentence: str) -> None:
        self._ledger.drop(Drop.INTERNAL)
        self._say(sentence)

    def _say(self, sentence: str) -> None:
        self._ledger.say(sentence, time.monotonic())

    @staticmethod
    def _thread(body: Callable[[], None], name: str) -> threading.Thread:
        thread = threading.Thread(target=body, name=f"fallom-{name}", daemon=True)
        thread.start()
        return thread
