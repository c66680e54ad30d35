"""One cycle of a worker and one of a flusher, each in one process and one thread, and what came of them.

For the sweep that kills or fails each of their system calls in turn.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import fallom
from fallom import trace
from fallom._core.errors import StateDirectoryError
from fallom._core.outcome import Outcome, Verdict
from fallom._core.settings import Settings, resolve_settings
from fallom._core.span import metrics_of
from fallom._flusher import ship
from fallom._flusher.dead import DeadLetters
from fallom._flusher.delivery import Delivery, Result
from fallom._flusher.election import Election
from fallom._flusher.ledger import Ledger
from fallom._flusher.ship import Channel, Lane, LaneLimits
from fallom._flusher.targets import target_hashes
from fallom._host.control import ControlPage, remove_asides
from fallom._host.counts import Tally
from fallom._host.directory import StateDirectory
from fallom._host.files import make_directory
from fallom._snapshot.entries import Kind as EntryKind
from fallom._snapshot.publish import Publisher, PublishError
from fallom._snapshot.reader import SnapshotReader
from fallom._snapshot.schema import Listing, read_listing
from fallom._spool import writer
from fallom._spool.reader import Item, SpoolReader
from fallom._spool.segment import Destination
from fallom._spool.survey import marks_of

__all__ = ["SPANS", "Left", "flusher_cycle", "left_in", "settings_of", "worker_cycle"]

SPANS = 12
BATCH = 5
GUILTY = "s3"  # refused by the server
_TURNS_MAX = 40


def settings_of(base: Path) -> Settings:
    """Give the settings of all cycles in a state directory."""
    given = {"state_dir": str(base), "segment_bytes_max": 4096, "flusher": "external"}
    return resolve_settings({**given, "traces_url": "http://127.0.0.1:9"}, {})


def worker_cycle(base: Path) -> Callable[[Callable[[str], None]], None]:
    """Give a worker: it records over several segments, seals, and says what it recorded and dropped."""

    def cycle(say: Callable[[str], None]) -> None:
        writer.RETRY_AFTER_NS = 0  # a disk that refused is asked again by the next record
        for name in [name for name in os.environ if name.startswith("FALLOM_")]:
            del os.environ[name]
        settings = settings_of(base)
        try:
            fallom.init(
                state_dir=settings.state_dir,
                segment_bytes_max=settings.segment_bytes_max,
                flusher=settings.flusher,
                traces_url=settings.traces_url,
                auto_instrument=False,
            )
        except StateDirectoryError as error:  # as documented: its directories cannot be made
            say(f"refused: {error}")
            return
        for number in range(SPANS):
            trace.span({"text": "x" * 1000}, config_key="app", session_id=f"s{number}")
            say(f"s{number}")
        fallom.shutdown()
        say(f"dropped {sum(fallom.status()['dropped'].values())}")

    return cycle


def flusher_cycle(base: Path) -> Callable[[Callable[[str], None]], None]:
    """Give a flusher: it is elected, delivers all but one span, publishes twice, and leaves."""

    def cycle(say: Callable[[str], None]) -> None:
        ship.PAUSE_S = 0.0  # dead/ is tried again at once
        settings = settings_of(base)
        try:
            directory = StateDirectory(str(base), settings.namespace)
            page = ControlPage.open(directory.root)
            election = Election(directory.path)
            assert election.win(0.0)
            page.take_over(1, os.getpid(), 1)
        except OSError as error:  # the process ends then, and a worker starts another
            say(f"did not start: {error}")
            return
        remove_asides(directory.root, time.time())
        ledger = Ledger()
        dead = DeadLetters(directory.dead, settings.dead_bytes_max, settings.dead_age_max_s)
        lane = _lane(settings, directory, dead, ledger, say)
        _ship(lane, settings, directory)
        publisher = Publisher(Path(directory.snapshot_path))
        for version in (1, 2):
            for _ in range(3):  # the next sync tries again what one fault prevented
                with contextlib.suppress(PublishError, OSError):
                    page.set_generation(publisher.publish([_listing(version)]))
                    say(f"published {version}")
                    break
        tallies, drops, _ = ledger.take()
        with contextlib.suppress(OSError):
            page.add_tallies(tallies)
        page.add_drops(directory.root, drops)
        with contextlib.suppress(OSError):
            page.beat(0)
        election.resign()

    return cycle


@dataclass
class Left:
    """What a state directory holds."""

    spool: Counter[str] = field(default_factory=Counter)  # not accepted, by session
    dead: str = ""  # the dead letters' bytes, as text
    model: str = ""  # of the config that is published, "" for none
    strange: list[str] = field(default_factory=list)  # files that nobody knows


def left_in(base: Path) -> Left:
    """Read a state directory as the next flusher and the next worker would; nothing is accepted."""
    settings = settings_of(base)
    make_directory(str(base))
    directory = StateDirectory(str(base), settings.namespace)
    page = ControlPage.open(directory.root)
    found = Left()
    reader = _reader(settings, directory)
    try:
        reader.refresh(1)
        while pieces := reader.next_batch(100, 1 << 20):
            found.spool.update(_session(item) for piece in pieces for item in piece.items)
        for name in os.listdir(directory.dead.fd):
            found.dead += Path(directory.path, "dead", name).read_bytes().decode("latin-1")
        snapshot = SnapshotReader(
            lambda: Path(directory.snapshot_path), page.generation, contextlib.nullcontext
        )
        config = snapshot.config("app")
        found.model = "" if config is None else config.models[0]
        found.strange = [name for name in os.listdir(directory.root.fd) if name not in _KNOWN]
    finally:
        reader.close()
        page.close()
        directory.close()
    return found


_KNOWN = (
    "control leader.lock leader.alive spawn.lock flusher.log snapshot spool dead".split()
)  # in the namespace's directory


def _listing(version: int) -> Listing:
    variants = [{"model": f"m{version}", "weight": 100}]
    item = {"key": "app", "version": version, "variants": variants}
    return read_listing(EntryKind.CONFIG, {"configs": [item]})


def _lane(
    settings: Settings,
    directory: StateDirectory,
    dead: DeadLetters,
    ledger: Ledger,
    say: Callable[[str], None],
) -> Lane:
    def deliver(items: list[Item], attempt: int, now_unix_s: float) -> Callable[[], Result]:
        refused = Outcome(Verdict.SPLIT, "bad span", 400)
        good = [item for item in items if _session(item) != GUILTY]
        for item in good:
            say(f"got {_session(item)}")
        guilty = [(item, refused) for item in items if _session(item) == GUILTY]
        return lambda: Result(accepted=len(good), guilty=guilty, requests=1)

    # One at a time: the sweep counts the system calls of one thread.
    channel = Channel(Destination.METRICS, Delivery(deliver), Tally.METRICS_ACCEPTED, batches_max=1)
    reader = _reader(settings, directory)
    return Lane(channel, reader, dead, ledger, LaneLimits(items_max=BATCH))


def _ship(lane: Lane, settings: Settings, directory: StateDirectory) -> None:
    """Do what the lane's thread does, until everything is accepted."""
    for _ in range(_TURNS_MAX):
        try:
            shipped = lane.ship_once()
        except OSError:
            lane._reader.rewind()  # as the guard of its thread does
            continue
        if not shipped and not marks_of(directory.spool, target_hashes(settings)):
            break
    lane.stop()
    lane.run()


def _reader(settings: Settings, directory: StateDirectory) -> SpoolReader:
    return SpoolReader(
        directory.spool,
        Destination.METRICS,
        target_hashes(settings)[Destination.METRICS],
        on_damage=lambda *_: None,
        on_error=lambda _: None,
    )


def _session(item: Item) -> str:
    return metrics_of(item.record).session_id
