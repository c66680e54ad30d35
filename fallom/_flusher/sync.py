"""The sync: what the server says of configs, prompts and A/B tests, published when it changed.

Three answers, each on its own: where one fails, what was known of it stays and the others are published.
A failed or empty answer never removes anything. What was answered before and has not changed costs a
304, or one hash of the body.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any
from urllib.parse import quote

from fallom._core.errors import PayloadError
from fallom._core.outcome import retry_after_s
from fallom._core.settings import Settings
from fallom._flusher.advice import refusal
from fallom._flusher.credentials import key_headers
from fallom._flusher.http import NetworkError, Request, Sends
from fallom._snapshot.entries import Kind
from fallom._snapshot.manifest import Manifest
from fallom._snapshot.publish import Publisher, PublishError
from fallom._snapshot.schema import Listing, parse_json, read_config, read_listing

__all__ = ["Sync", "SyncResult"]

DEADLINE_S = 2.0  # of one GET, as the published SDKs have it
BODY_BYTES_MAX = 64 << 20  # of one listing; guess: tens of thousands of prompts
JITTER = 0.1  # of the interval, so that the hosts of a fleet do not ask in step
BACKOFF_FIRST_S = 1.0  # where nothing was ever published, so that workers wait
# Else of the interval: what is known serves, and a fleet that tried again after a second would ask a server
# that just went down seven times as much as one that is up.
BACKOFF_FIRST_SHARE = 0.25
BACKOFF_MIN_S = 0.1  # full jitter may draw 0
RETRY_AFTER_MAX_S = 300.0  # a server that asks for more is asked again anyway
MISSING_S = 60.0  # how long a version that the server does not have is not asked for again
UNREACHABLE_S = 5.0  # the same, where there was no answer
REMEMBERED_MAX = 1000  # wishes, refusals and messages; bounds memory
SAID_MAX = 100  # of refusals, and of notes, of a listing: as many as are remembered as said

_logger = logging.getLogger("fallom")


@dataclass(frozen=True, slots=True)
class SyncResult:
    """What one run did.

    Attributes:
        generation: What is published now; 0 if nothing ever was.
        is_changed: Whether this run published it.
        errors: One sentence for each answer that was not good, and for a publish that failed.
    """

    generation: int
    is_changed: bool
    errors: tuple[str, ...]


class _Source:
    """One listing of the server, and what is remembered of its last good answer."""

    __slots__ = (
        "digest",
        "due_s",
        "error",
        "etag",
        "failures",
        "is_refused",
        "kind",
        "listing",
        "retry_after_s",
        "setting",
        "url",
    )

    def __init__(self, kind: Kind, url: str, setting: str) -> None:
        self.kind = kind
        self.url = url
        self.setting = setting  # what to correct when the URL is wrong
        self.due_s = float("-inf")
        self.failures = 0
        self.is_refused = False  # the server does not take the key, or wants one
        self.retry_after_s = 0.0
        self.error: str | None = None
        self.listing = Listing(kind)  # without its entries: what was refused and noted
        self.forget()

    def forget(self) -> None:
        self.etag: str | None = None
        self.digest = b""


@dataclass(frozen=True, slots=True)
class _Answer:
    """A good answer that is not published yet."""

    source: _Source
    etag: str | None
    digest: bytes
    listing: Listing | None  # None: as before


class Sync:
    """Asks the server, checks, publishes, announces. For one thread at a time."""

    def __init__(
        self,
        settings: Settings,
        http: Sends,
        publisher: Publisher,
        announce: Callable[[int], None],
        random: Random | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        unix_s: Callable[[], float] = time.time,
    ) -> None:
        """Ask nothing yet.

        Args:
            settings: Whom to ask, as whom, how often.
            http: The network.
            publisher: Where good items go.
            announce: Tells workers the generation, after it was committed.
            random: For jitter.
            monotonic: The clock of ``run_once`` and ``due_s``, for wishes.
            unix_s: The wall clock, for a server that names the date when to come back.
        """
        self._settings = settings
        self._http = http
        self._publisher = publisher
        self._announce = announce
        self._random = random or Random()  # noqa: S311 - jitter
        self._monotonic = monotonic
        self._unix_s = unix_s
        configs, prompts = settings.configs_url, settings.prompts_url
        self._sources = (
            _Source(Kind.CONFIG, f"{configs}/configs", "FALLOM_CONFIGS_URL"),
            _Source(Kind.PROMPT, f"{prompts}/prompts", "FALLOM_PROMPTS_URL"),
            _Source(Kind.AB_TEST, f"{prompts}/prompt-ab-tests", "FALLOM_PROMPTS_URL"),
        )
        self._generation = 0
        self._rebuilds = publisher.rebuilds
        self._publish_error: str | None = None
        self._missing: dict[tuple[str, int], float] = {}  # wish -> until when it is not repeated
        self._said: dict[str, None] = {}  # messages that were logged

    @property
    def last_error(self) -> str | None:
        """What is wrong now, in sentences that say what to do; None if nothing is."""
        errors = self._errors()
        return " ".join(errors) if errors else None

    @property
    def is_refused(self) -> bool:
        """Whether the server does not take the key, so that only people can mend it."""
        return any(source.is_refused for source in self._sources)

    @property
    def refused(self) -> tuple[str, ...]:
        """What the server lists and cannot be served, item by item."""
        found = [str(error) for source in self._sources for error in source.listing.refused]
        return tuple(found[:REMEMBERED_MAX])

    def due_s(self, now_s: float) -> float:
        """Give the time, of the clock that ``now_s`` is of, when to run next; at least ``now_s``."""
        return max(now_s, min(source.due_s for source in self._sources))

    def run_once(self, now_s: float) -> SyncResult:
        """Ask for what is due, or for everything if nothing is; publish; announce.

        Blocks for up to 6 s. Network, server, payload and disk raise nothing here: see ``last_error``.
        """
        started_s = self._monotonic()
        known = self._manifest()
        before = self._generation
        self._tell(before)  # a worker that starts with us does not wait for the network
        asked = [source for source in self._sources if source.due_s <= now_s] or self._sources
        answers = [a for source in asked if (a := self._ask(source, known)) is not None]
        is_published = self._publish(answers)
        self._schedule(asked, now_s + self._monotonic() - started_s, is_published)
        self._manifest()
        self._tell(self._generation)
        for source in asked:
            self._say(str(error) for error in source.listing.refused[:SAID_MAX])
            self._say(source.listing.notes[:SAID_MAX])
        errors = self._errors()
        self._say(errors)
        return SyncResult(self._generation, self._generation != before, tuple(errors))

    def wish(self, config_key: str, version: int) -> None:
        """Fetch one version of a config that somebody pinned, and publish it. Blocks for up to 2 s.

        A version that the server does not have is not asked for again for a minute.
        """
        wanted = (config_key, version)
        now_s = self._monotonic()
        known = self._manifest().sections.get(Kind.CONFIG)
        if known is None or self._missing.get(wanted, now_s) > now_s:
            return  # nothing is known at all: the listing comes first
        if config_key in known and version in known[config_key].versions:
            self._tell(self._generation)  # the worker was a generation behind
            return
        _bound(self._missing)
        self._missing[wanted] = now_s + MISSING_S  # taken back below, where it was no "no"
        url = _version_url(self._settings.configs_url, config_key, version)
        if url is None:
            return
        try:
            response = self._http.send(self._request(url, None))
            if not 200 <= response.status < 300:
                self._say([refusal(url, response.status, "FALLOM_CONFIGS_URL", self._has_key)])
                return
            entry = read_config(parse_json(response.body, f"GET {url}"), config_key, version)
            generation = self._publisher.publish(pinned=[entry])
        except (NetworkError, PublishError) as error:
            self._missing[wanted] = now_s + UNREACHABLE_S
            self._say([f"GET {url}: {error}"])
        except PayloadError as error:
            self._say([str(error)])
        else:
            del self._missing[wanted]
            self._tell(generation)

    @property
    def _has_key(self) -> bool:
        return self._settings.api_key is not None

    def _manifest(self) -> Manifest:
        """Look at what is published; where something was lost, what we remember of it is void."""
        try:
            manifest = self._publisher.manifest()
        except PublishError as error:
            self._publish_error = str(error)
            return Manifest()
        self._generation = manifest.generation
        if self._publisher.rebuilds != self._rebuilds:
            self._rebuilds = self._publisher.rebuilds
            for source in self._sources:
                source.forget()
        return manifest

    def _ask(self, source: _Source, known: Manifest) -> _Answer | None:
        """Ask for one listing; None, and an error at the source, if the answer is not good."""
        source.error, source.retry_after_s, source.is_refused = None, 0.0, False
        try:
            response = self._http.send(self._request(source.url, source.etag))
        except NetworkError as error:
            source.error = (
                f"GET {source.url} failed ({error.kind}: {error}); it is tried again, and what was "
                "known before is served."
            )
            return None
        if response.status == 304 and source.etag is not None:
            return _Answer(source, source.etag, source.digest, None)
        if not 200 <= response.status < 300:
            asked_s = retry_after_s(response.headers.get("retry-after", ""), self._unix_s())
            source.retry_after_s = min(asked_s or 0.0, RETRY_AFTER_MAX_S)
            source.error = refusal(source.url, response.status, source.setting, self._has_key)
            source.is_refused = response.status in (401, 403)
            return None
        digest = hashlib.sha256(response.body).digest()
        etag = response.headers.get("etag")
        if digest == source.digest:
            return _Answer(source, etag, digest, None)
        try:
            listing = read_listing(source.kind, parse_json(response.body, f"GET {source.url}"))
        except PayloadError as error:
            source.error = str(error)
            return None
        serving = known.sections.get(source.kind)
        if serving and not listing.listed:
            note = f"GET {source.url} lists nothing; the {len(serving)} known before still serve."
            listing = replace(listing, notes=(*listing.notes, note))
        return _Answer(source, etag, digest, listing)

    def _request(self, url: str, etag: str | None) -> Request:
        headers = {"Accept": "application/json", **key_headers(self._settings)}
        if etag is not None:
            headers["If-None-Match"] = etag
        return Request("GET", url, headers, deadline_s=DEADLINE_S, body_bytes_max=BODY_BYTES_MAX)

    def _publish(self, answers: list[_Answer]) -> bool:
        """Publish once for all answers; only then remember that we have them."""
        listings = [answer.listing for answer in answers if answer.listing is not None]
        self._publish_error = None
        try:
            if listings:
                self._publisher.publish(listings)
        except PublishError as error:
            self._publish_error = str(error)
            return False
        for answer in answers:
            answer.source.etag, answer.source.digest = answer.etag, answer.digest
            if answer.listing is not None:
                answer.source.listing = replace(answer.listing, entries=())
        return True

    def _schedule(self, asked: Sequence[_Source], now_s: float, is_published: bool) -> None:
        interval_s = self._settings.sync_interval_s
        next_s = now_s + interval_s * self._random.uniform(1 - JITTER, 1 + JITTER)
        first_s = BACKOFF_FIRST_S
        if self._generation:
            first_s = max(first_s, interval_s * BACKOFF_FIRST_SHARE)
        for source in asked:
            if source.error is None and is_published:
                source.failures = 0
                source.due_s = next_s
            else:
                source.failures += 1
                ceiling_s = min(interval_s, first_s * 2.0 ** min(source.failures - 1, 30))
                delay_s = max(BACKOFF_MIN_S, self._random.uniform(0, ceiling_s))
                source.due_s = now_s + max(delay_s, source.retry_after_s)

    def _tell(self, generation: int) -> None:
        if generation:
            self._announce(generation)

    def _errors(self) -> list[str]:
        errors = [source.error for source in self._sources if source.error is not None]
        return errors if self._publish_error is None else [*errors, self._publish_error]

    def _say(self, messages: Iterable[str]) -> None:
        """Log each message once."""
        for message in messages:
            if message not in self._said:
                _bound(self._said)
                self._said[message] = None
                _logger.warning("%s", message)


def _version_url(configs_url: str, key: str, version: int) -> str | None:
    """Give the URL of one version; None if a URL cannot name this key."""
    if not key.strip("."):  # "." and ".." are steps within a path, however they are spelled
        return None
    try:
        return f"{configs_url}/configs/{quote(key, safe='')}/version/{version}"
    except UnicodeEncodeError:
        return None


def _bound(remembered: dict[Any, Any]) -> None:
    while len(remembered) >= REMEMBERED_MAX:
        del remembered[next(iter(remembered))]
