"""What to do about an answer of a server: pure, so that every case is a row in a test.

The OTLP specification (OTLP/HTTP response, failures) says which codes to retry, to honour
Retry-After, and to back off with jitter. In one point this is stricter than the specification: it
lets an exporter drop what other codes refuse, while here nothing leaves the spool because a server is
out of order. 401, 403, 404, redirects and the like are about the account or the URL and not about the
spans, so they are a pause; 500 is retried, and after some tries taken for a batch that the server
cannot digest.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timezone
from email.utils import parsedate_to_datetime

__all__ = ["Outcome", "Verdict", "backoff_s", "judge", "retry_after_s"]

BACKOFF_BASE_S = 1.0
BACKOFF_MAX_S = 60.0
PAUSE_S = 60.0  # between two tries of a target that says the account or the URL is wrong
RETRY_AFTER_MAX_S = 3600.0  # a server that names a later time is asked after an hour
TRIES_BEFORE_SPLIT = 5  # of a 500; guess, not measured: about half a minute of backoff

_RETRIED = frozenset({408, 425, 429, 502, 503, 504})
_ABOUT_THE_BATCH = frozenset({400, 413, 422})

_HINTS = {
    401: "check the API key (FALLOM_API_KEY) or FALLOM_TRACES_HEADERS; of an extra target, its headers",
    403: "the key may not write here; check the account and the URL",
    404: "nothing answers at this path; check the URL",
    405: "this path does not take POST; check the URL",
    407: "the proxy asks for credentials",
    415: "the server does not take this format; check the URL",
}


class Verdict(enum.Enum):
    """What happens to a batch."""

    ACCEPTED = "accepted"
    RETRY = "retry"  # the same batch again, later
    SPLIT = "split"  # smaller batches, to find what the server refuses
    DOUBT = "doubt"  # all was refused that was tried: the records, or the target? keep everything
    PAUSE = "pause"  # the target is wrong, not the batch: keep everything, say so loudly


@dataclass(frozen=True, slots=True)
class Outcome:
    """The verdict about one answer and, for people, why."""

    verdict: Verdict
    reason: str = ""
    status: int = 0
    wait_s: float | None = None  # what the server asked for
    is_for_people: bool = False  # of a retry: it may be over only when somebody mends it

    @property
    def is_wrong(self) -> bool:
        """Whether a server's answer says that people have to mend the account, the URL or a certificate."""
        return self.is_for_people or (self.verdict is Verdict.PAUSE and self.status != 0)


def judge(status: int, headers: Mapping[str, str], attempt: int, now_unix_s: float) -> Outcome:
    """Judge an answer.

    Args:
        status: The HTTP status.
        headers: Names in lower case.
        attempt: How often this very batch was tried before.
        now_unix_s: Wall clock, for a Retry-After that is a date.
    """
    reason = f"HTTP {status}"
    if 200 <= status < 300:
        return Outcome(Verdict.ACCEPTED, reason, status)
    wait_s = retry_after_s(headers.get("retry-after", ""), now_unix_s)
    if status in _RETRIED:
        return Outcome(Verdict.RETRY, reason, status, wait_s)
    if status in _ABOUT_THE_BATCH:
        return Outcome(Verdict.SPLIT, reason, status)
    if status >= 500:
        verdict = Verdict.RETRY if attempt < TRIES_BEFORE_SPLIT else Verdict.SPLIT
        return Outcome(verdict, reason, status, wait_s)
    hint = "redirects are not followed; give the final URL" if 300 <= status < 400 else ""
    hint = _HINTS.get(status, hint) or "the request was refused; check the URL and the account"
    return Outcome(Verdict.PAUSE, f"{reason}: {hint}", status, wait_s)


def retry_after_s(value: str, now_unix_s: float) -> float | None:
    """Read a Retry-After header (RFC 9110, 10.2.3): seconds or a date; None if it is neither."""
    value = value.strip()
    if not value:
        return None
    if value.isascii() and value.isdigit():
        return min(float(value), RETRY_AFTER_MAX_S)
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=timezone.utc)
    return min(max(0.0, date.timestamp() - now_unix_s), RETRY_AFTER_MAX_S)


def backoff_s(attempt: int, uniform: float) -> float:
    """Give the pause before the next try: exponential, with full jitter.

    Args:
        attempt: How often it was tried before, from 0.
        uniform: A random number from 0 to 1.
    """
    ceiling = min(BACKOFF_MAX_S, BACKOFF_BASE_S * 2.0 ** min(attempt, 16))
    return max(0.05, ceiling * uniform)
