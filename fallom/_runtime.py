"""The one owner of what is process-wide: settings, place, snapshot reader, spool writer.

Everything public asks the runtime; it is made by ``init`` and replaced by an ``init`` with other
settings. It starts no thread, opens no socket, and needs no hook: a fork is noticed by the pid.

Once a second, in the course of a call that records or reads, it *looks*: is the place still there, does
a flusher live, what was dropped. There is no other moment at which a worker does anything by itself.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fallom._assignments import Assignments
from fallom._core.limits import shed_content
from fallom._core.masking import guarded_mask
from fallom._core.sampling import is_kept
from fallom._core.settings import Settings
from fallom._core.span import Span, Wish
from fallom._drops import Drops
from fallom._host.control import GENERATION_WORD
from fallom._host.counts import Drop
from fallom._host.files import File
from fallom._host.forks import ForkGuard, ProcessLock, new_mark
from fallom._host.ids import Ids
from fallom._host.masks_in_force import write_masks
from fallom._host.place import Place
from fallom._metrics import MetricsPacking
from fallom._packing import Packing
from fallom._patience import Patience
from fallom._snapshot.reader import SnapshotReader
from fallom._spool.frame import Kind, RecordError
from fallom._spool.quota import segment_bytes_max
from fallom._spool.room import Room
from fallom._spool.segment import Destination
from fallom._spool.writer import SpoolWriter
from fallom._watch import FlusherWatch
from fallom._whereabouts import Whereabouts
from fallom._worker_resource import worker_resource

if TYPE_CHECKING:
    from fallom._snapshot.bootstrap import Bootstrap

__all__ = ["HOLDER", "Runtime", "current", "reset", "start"]

LOOK_EVERY_NS = 1_000_000_000

_logger = logging.getLogger("fallom")


class Runtime:
    """One ``init``. Its methods are called from any thread; none raises what it does not name."""

    def __init__(self, settings: Settings) -> None:
        """Take the settings over; nothing is opened yet."""
        self.settings = settings
        self.given_mask: Callable[[str], str] | None = None
        self.mask: Callable[[str], str] | None = None  # the same, but it does not raise
        self.ids = Ids()
        self._packing = Packing()
        self._forked = ProcessLock(threading.RLock)
        self._guard = ForkGuard(on_child=self.after_fork)
        self.snapshot = SnapshotReader(
            self._database, lambda: self.whereabouts.words[GENERATION_WORD], self._guard.held
        )
        self._writer = SpoolWriter(
            self._spool,
            lambda: worker_resource(settings, os.environ),
            segment_bytes_max(settings.segment_bytes_max, settings.spool_bytes_max),
            settings.fsync,
        )
        self._room = Room(settings.spool_bytes_max, settings.spool_segments_max)
        self.drops = Drops()
        self.whereabouts = Whereabouts(settings, self.drops.warn, self._found)
        self._reset_for_process()
        self.assignments = Assignments()
        self.tells_exposures = settings.tells_exposures
        self.metrics = MetricsPacking(self._packing, self.assignments)

    def _reset_for_process(self) -> None:
        """Drop what must not cross a fork. Only then the mark says so."""
        self._look_lock = threading.Lock()
        self._looked_ns = 0
        self._watch = FlusherWatch(self.settings, self.drops.warn)
        self.patience = Patience(self.settings.cold_start_timeout_s)
        self.drops.forget()
        self._room.forget()
        self._writer.forget()
        self._mark = new_mark()

    def after_fork(self) -> None:
        """Become the runtime of a forked child. Runs as a hook as well: no I/O that can block."""
        if not self._mark[0]:
            with self._forked.current():  # of its threads one does it, and the others wait
                if not self._mark[0]:
                    self._reset_for_process()

    # Recording.

    def record_span(self, span: Span) -> None:
        """Put a span into the spool; it is in the kernel when this returns. Never raises.

        A span of a session that is left out by sampling is counted instead.
        """
        if not is_kept(span, self.settings.sample_rate):
            self.count_drop(Drop.SAMPLED)
            return
        place = self.whereabouts.place
        if place is not None and self._room.is_near(place.page, time.monotonic_ns()):
            span = shed_content(span)
        self._writer.end(span.span_id, self.record_values(Destination.TRACES, Kind.SPAN, span))

    def record_start(self, span: Span) -> None:
        """Leave word that a call began, for the case that this process dies in it. Never raises.

        Where it cannot be written, or its session is left out by sampling, only the word is missing.
        """
        place, now_ns = self.whereabouts.place, time.monotonic_ns()
        if place is None or self._room.is_near(place.page, now_ns):
            return
        if not is_kept(span, self.settings.sample_rate):
            return
        try:
            self._writer.start(span.span_id, self._packing.packed(span), now_ns)
        except RecordError:
            return

    def record_values(
        self,
        destination: Destination,
        kind: Kind,
        record: Any,
        fields_of: Callable[..., Any] | None = None,
    ) -> bool:
        """Put a record into the spool, cleaned and cut as far as it has to be; as ``record``.

        Args:
            destination: Whose segment.
            kind: The frame's kind.
            record: Of ``_core.span``.
            fields_of: The record's class, where ``record`` is a plain tuple of its fields.
        """
        try:
            payload = self._packing.packed(record, fields_of)
        except RecordError:
            self.count_drop(Drop.NOT_ENCODABLE)
            return False
        return self.record(destination, kind, payload)

    def record(self, destination: Destination, kind: Kind, payload: bytes) -> bool:
        """Put a packed record into the spool; tell whether it is there. Never raises."""
        now_ns = time.monotonic_ns()
        if not self._mark[0]:  # a fork made in C ran no hook
            self.after_fork()
        place = self.whereabouts.place or self.whereabouts.find(now_ns)
        if place is None:
            self.count_drop(Drop.NO_DIRECTORY)
            return False
        page, drop = place.page, None
        if self._room.take(page, place.directory.spool, len(payload), now_ns):
            drop = self._writer.write_packed(destination, kind, payload, now_ns)
        else:
            drop = Drop.QUOTA
            if self.settings.spool_policy == "drop_oldest":
                self._writer.let_go(destination)  # the flusher deletes nothing that has a writer
        if drop is not None:
            self.count_drop(drop)
            self.drops.hand_over(page, place.directory.root)
        # First the frame, then the look at the beat: a flusher that leaves does it the other way
        # round, so that whoever is later sees the other.
        # The time is that of before the write; whether a beat is stale does not hang on microseconds.
        if now_ns - self._looked_ns >= LOOK_EVERY_NS or (
            self._watch.starts_flushers and not page.is_alive(now_ns)
        ):
            self._look(time.monotonic_ns())
        return drop is None

    def count_drop(self, drop: Drop, count: int = 1) -> None:
        """Count something that was given up; the page gets it at the next look."""
        self.after_fork()  # or what the parent counted would count as the child's too
        self.drops.count(drop, count)

    def warn(self, what: str, hint: str) -> None:
        """Log a warning, at most once a minute for the same thing."""
        self.drops.warn(what, hint)

    def gave_up(self, reason: str, error: BaseException) -> None:
        """Count and log that something of ours failed within a call of the application."""
        self.count_drop(Drop.INTERNAL)
        self.warn(f"gave up {reason}: {type(error).__name__}", "the application is not affected")
        _logger.debug("gave up %s", reason, exc_info=error)

    def use_mask(self, mask: Callable[[str], str]) -> None:
        """Have content go through a mask from now on."""
        self.given_mask = mask
        self.mask = guarded_mask(mask, self._mask_failed)

    def _mask_failed(self, error: BaseException) -> None:
        # Without the error's own text and traceback: they may hold what was to be masked.
        self.count_drop(Drop.INTERNAL)
        self.warn(f"the mask raised {type(error).__name__}", "the texts are not recorded")

    # Reading.

    def look_if_due(self) -> None:
        """Look, if the last look is a second ago; for calls that only read."""
        now_ns = time.monotonic_ns()
        if now_ns - self._looked_ns >= LOOK_EVERY_NS:
            self._look(now_ns)

    def known_model(self, config_key: str, session_id: str) -> str | None:
        """Give the model that a session got of a config, if nothing can have changed since.

        None where it is not known, a new snapshot was published, or a look is due.
        """
        made = self.assignments.find((config_key, session_id))
        if (
            made is not None
            and made.generation == self.whereabouts.words[GENERATION_WORD]
            and time.monotonic_ns() - self._looked_ns < LOOK_EVERY_NS
        ):
            return made.model
        return None

    def wish(self, config_key: str, version: int) -> float | None:
        """Ask the flusher for a pinned version.

        Returns:
            Until when (monotonic s) it is worth waiting for; None if it was asked for in vain lately.
        """
        until_s = self.patience.for_version(config_key, version, time.monotonic())
        if until_s is not None:
            self.record_values(Destination.WISHES, Kind.WISH, Wish(config_key, version))
        return until_s

    # The place, and the look.

    def look(self) -> None:
        """Look now: at the place, for a flusher, and at what was dropped. Never raises."""
        self._look(time.monotonic_ns())

    def seal(self) -> None:
        """Seal the segments of this process, and leave what it dropped in the page. Never raises."""
        self._writer.seal()
        place = self.whereabouts.place
        if place is not None and self.drops.pending():
            with contextlib.suppress(OSError):  # they stay in this process, whose end is near
                self.drops.pass_on(place.page, place.directory.root)

    def _look(self, now_ns: int) -> None:
        self.after_fork()
        look_lock = self._look_lock
        if not look_lock.acquire(blocking=False):
            return  # another thread is at it
        try:
            is_due = now_ns - self._looked_ns >= LOOK_EVERY_NS
            if is_due:
                self._looked_ns = now_ns
                self._check_place(now_ns)
            place = self.whereabouts.place
            if place is None:
                return
            if is_due:
                # An open segment is what tells the flusher that somebody lives who may need it:
                # also a process that so far only reads.
                self._writer.hold(Destination.WISHES, now_ns)
                self.drops.pass_on(place.page, place.directory.root)
                self._watch.tell(place.page)
            self._watch.ensure(place, now_ns, is_due)
        except OSError as error:
            self.drops.warn("the state directory cannot be used now", str(error))
        finally:
            look_lock.release()

    def _check_place(self, now_ns: int) -> None:
        place = self.whereabouts.place
        if place is not None and not place.is_good():
            # Not closed: other threads may be reading the page. The descriptors go with the object.
            self._writer.abandon()
            self.whereabouts.leave()
        if self.whereabouts.place is None:
            self.whereabouts.find(now_ns)

    def _found(self, place: Place) -> None:
        bytes_max = place.directory.spool_bytes_max(self.settings.spool_bytes_total)
        self._room = Room(bytes_max, self.settings.spool_segments_max)
        if self.settings.ship_masks:
            try:
                write_masks(place.directory.root, self.settings.ship_masks)
            except OSError as error:
                self.drops.warn("ship_masks is not known to a flusher that runs", str(error))

    def _spool(self) -> File | None:
        """Give the spool directory; asked when a segment is opened, so often enough for this check."""
        place = self.whereabouts.place
        if place is not None and place.directory.euid != os.geteuid():
            # Forked by root, then another user: gunicorn's --preload --user, say.
            self.whereabouts.leave()
            place = self.whereabouts.find()
        return place.directory.spool if place is not None else None

    def _database(self) -> str | None:
        place = self.whereabouts.place
        return place.directory.snapshot_path if place is not None else None


class _Holder:
    """The reference to the runtime: the one thing at module level that changes."""

    runtime: Runtime | None = None
    change: Callable[[Settings], Settings] | None = None  # of the settings of every ``start``


HOLDER = _Holder()


def start(
    settings: Settings,
    mask: Callable[[str], str] | None = None,
    shipped: Bootstrap | None = None,
) -> Runtime:
    """Make the runtime, or keep the one that has these settings already.

    A mask stays in force until another is given: an ``init`` that says nothing of it lifts no privacy.
    """
    if HOLDER.change is not None:
        settings = HOLDER.change(settings)
    before = runtime = HOLDER.runtime
    if runtime is None or runtime.settings != settings:
        runtime = Runtime(settings)
        if before is not None:
            before.seal()
            mask = mask or before.given_mask
    if mask is not None:
        runtime.use_mask(mask)
    if shipped is not None:
        runtime.snapshot.bootstrap = shipped
    HOLDER.runtime = runtime
    return runtime


def current() -> Runtime:
    """Give the runtime, made from the environment if ``init`` was never called. Never raises."""
    runtime = HOLDER.runtime
    if runtime is not None:
        return runtime
    from fallom._uninitialised import settings_here  # of those who leave init out

    settings, shipped = settings_here(os.environ)
    return start(settings, shipped=shipped)


def reset() -> None:
    """Forget the runtime; for tests."""
    if HOLDER.runtime is not None:
        HOLDER.runtime.seal()
    HOLDER.runtime = None
