"""A run of benchmarks: how much of each, where files go, and how contestants are matched."""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.contestant import Contestant, ContestantError
from benchmarks.environments import MissingPeerError, interpreter_of
from benchmarks.receiver import Receiver
from benchmarks.table import Table, distribution, summarised

__all__ = ["Bench", "Entry", "WrongResultError", "expect"]

NOWHERE = "http://127.0.0.1:9"
TIMED = ("us", "x cal", "CPU us", "CPU x cal", "x floor", "p50", "p99", "p99.9")


class WrongResultError(AssertionError):
    """An answer or a count is wrong: then no figure of the run means anything."""


@dataclass(frozen=True)
class Entry:
    """Who takes part, and how it is started."""

    name: str
    peer: str
    adapter: str
    path: str
    share: float = 1.0  # of the calls; less for those that are slow
    environ: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Bench:
    """What the benchmarks have in common."""

    folder: Path
    receiver: Receiver
    is_quick: bool
    repeats: int = 7
    missing: list[str] = field(default_factory=list)

    def sized(self, full: int, quick: int) -> int:
        """Give how much of something this run does."""
        return quick if self.is_quick else full

    def ours(self, flusher: str = "external", url: str = NOWHERE, **more: str) -> dict[str, str]:
        """Give the variables of a fallom with a state directory of its own."""
        return {
            "FALLOM_STATE_DIR": tempfile.mkdtemp(prefix="state-", dir=self.folder),
            "FALLOM_FLUSHER": flusher,
            "FALLOM_CONFIGS_URL": NOWHERE,
            "FALLOM_PROMPTS_URL": NOWHERE,
            "FALLOM_TRACES_URL": url,
            "FALLOM_AUTO_INSTRUMENT": "false",
            "FALLOM_LINGER": "1",
            **more,
        }

    @contextmanager
    def contestants(self, entries: list[Entry]) -> Iterator[list[tuple[Entry, Contestant]]]:
        """Start the contestants; those that cannot be installed are named as missing."""
        started: list[tuple[Entry, Contestant]] = []
        installed = [entry for entry in entries if self._is_installed(entry.peer)]
        with ExitStack() as stack, ThreadPoolExecutor(os.cpu_count()) as pool:
            for entry, starting in [(each, pool.submit(self._start, each)) for each in installed]:
                try:
                    contestant = starting.result()
                except ContestantError as error:
                    if entry.peer == "fallom":
                        raise
                    self.miss(f"{entry.name} did not start: {str(error).strip().splitlines()[-1]}")
                    continue
                stack.callback(contestant.close)
                started.append((entry, contestant))
            yield started

    def _is_installed(self, peer: str) -> bool:
        try:
            interpreter_of(peer)
        except MissingPeerError as error:
            self.miss(str(error))
            return False
        return True

    def _start(self, entry: Entry) -> Contestant:
        options = {
            "url": self.receiver.url,
            "file": tempfile.mktemp(prefix="file-", dir=self.folder),
            **entry.options,
        }
        return Contestant(entry.name, entry.peer, entry.adapter, entry.path, options, entry.environ)

    def miss(self, what: str) -> None:
        """Name a peer that is not in the results."""
        if what not in self.missing:
            self.missing.append(what)
        print(f"missing: {what}", file=sys.stderr, flush=True)

    def match(
        self, pairs: list[tuple[Entry, Contestant]], calls: int, singles: int
    ) -> dict[str, list[dict[str, Any]]]:
        """Run rounds of all contestants in turns, so that what else the machine does hits all of them."""
        rounds: dict[str, list[dict[str, Any]]] = {entry.name: [] for entry, _ in pairs}
        for entry, contestant in pairs:
            contestant.order("warm", calls=max(20, int(calls * entry.share) // 20))
        for repeat in range(self.repeats):
            turn = pairs[repeat % len(pairs) :] + pairs[: repeat % len(pairs)]
            for entry, contestant in turn:
                found = contestant.order(
                    "round",
                    calls=max(1, int(calls * entry.share)),
                    singles=max(1, int(singles * entry.share)),
                    cal_calls=2000,
                )
                rounds[entry.name].append(found)
        return rounds

    def settled(self, at_most: int) -> int:
        """Count what arrived at the receiver, when no more comes."""
        before, give_up_s = -1, time.monotonic() + 60
        while time.monotonic() < give_up_s:
            now = self.receiver.distinct()
            if now >= at_most or now == before:
                return now
            before = now
            time.sleep(1.0)  # longer than any contestant's pause between two batches, once flushed
        return before

    def expect_delivered(self, entry: Entry, contestant: Contestant, calls: int) -> None:
        """Let it record slowly: all must arrive, or the counting is wrong, or nothing was recorded."""
        self.receiver.clear()
        contestant.order("warm", calls=calls)
        kept = self.settled(calls)
        expect(kept == calls, f"{entry.name}: {kept} of {calls} slow spans arrived")

    def table(
        self, name: str, title: str, rounds: dict[str, list[dict[str, Any]]], floor: str = ""
    ) -> Table:
        """Make the table of a match, with each row's ratio to the floor of the same repeat."""
        table = Table(name, title, TIMED)
        for entry, found in rounds.items():
            row = {"row": entry, **summarised(found)}
            if floor in rounds:
                row["x floor"] = statistics.median(
                    mine["cpu_ns"] / theirs["cpu_ns"]
                    for mine, theirs in zip(found, rounds[floor], strict=True)
                )
            table.rows.append(row)
            singles = sorted(ns / 1000 for each in found for ns in each["singles_ns"])
            table.curves[entry] = distribution(singles)
        return table


def expect(condition: object, what: str) -> None:
    """Fail the run if an answer or a count is wrong."""
    if not condition:
        raise WrongResultError(what)
