"""The part of ``fallom doctor`` that asks the servers: reachability, credentials, clock."""

from __future__ import annotations

import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

from fallom._core.errors import ConfigurationError
from fallom._core.settings import Settings, is_hosted
from fallom.cli.finding import Finding, bad, good, warning
from fallom.cli.screen import seconds_text

if TYPE_CHECKING:
    from fallom._flusher.http import Http, Request, Response

__all__ = ["look_at_servers"]

SKEW_MAX_S: Final = 30.0  # the Date header has whole seconds, and a server may be slow to send it
_NO_KEY: Final = "there is no API key, so it is not asked"
_SET_KEY: Final = "Set FALLOM_API_KEY, or init(api_key=...)."


def look_at_servers(settings: Settings, timeout_s: float) -> Iterator[Finding]:
    """Ask each of the three servers once, as the flusher does; blocks for up to three timeouts."""
    from fallom._flusher.credentials import key_headers, traces_headers
    from fallom._flusher.http import Http, Request

    http = Http()
    skews: list[tuple[float, str]] = []
    headers = {"Content-Type": "application/x-protobuf", **traces_headers(settings)}
    url = settings.traces_endpoint
    if is_hosted(url) and not (settings.api_key or settings.traces_headers):
        yield bad("traces", f"{url}: {_NO_KEY}", _SET_KEY)
    else:
        # An export of no spans, which the OTLP specification has a server answer with 200.
        request = Request("POST", url, headers, b"", deadline_s=timeout_s)
        yield _asked(http, request, "traces", "FALLOM_TRACES_URL", settings, skews)
    for subject, base, path, setting in (
        ("configs", settings.configs_url, "configs", "FALLOM_CONFIGS_URL"),
        ("prompts", settings.prompts_url, "prompts", "FALLOM_PROMPTS_URL"),
    ):
        url = f"{base}/{path}"
        if base.startswith("file:"):
            yield _folder(subject, base)
        elif is_hosted(url) and not settings.api_key:
            yield bad(subject, f"{url}: {_NO_KEY}", _SET_KEY)
        else:
            who = key_headers(settings)
            request = Request("GET", url, who, deadline_s=timeout_s, body_bytes_max=64 << 20)
            yield _asked(http, request, subject, setting, settings, skews)
    yield from _clock(skews)


def _asked(
    http: Http,
    request: Request,
    subject: str,
    setting: str,
    settings: Settings,
    skews: list[tuple[float, str]],
) -> Finding:
    from fallom._flusher.http import NetworkError

    started_s = time.time()
    try:
        response = http.send(request)
    except NetworkError as error:
        mend = {
            "tls": "See that the certificate is trusted here: REQUESTS_CA_BUNDLE or SSL_CERT_FILE.",
            "timeout": "See that nothing on the way swallows it: firewall, proxy, DNS.",
        }.get(error.kind, f"See that {setting} is right and the server runs.")
        return bad(subject, f"{request.url}: {error.kind}: {error}", mend)
    took_s = time.time() - started_s
    _note_skew(response, started_s, took_s, request.url, skews)
    answered = f"{request.url} answered {response.status} in {seconds_text(took_s)}"
    return _judged(subject, answered, response.status, setting, settings)


def _judged(subject: str, answered: str, status: int, setting: str, settings: Settings) -> Finding:
    has_key = settings.api_key or (subject == "traces" and settings.traces_headers)
    mend = f"Check {setting}."
    if 200 <= status < 300:
        return good(subject, answered)
    if status == 429 or status >= 500:
        return warning(subject, answered, "It cannot answer now; all is kept and sent later.")
    if subject == "traces" and status in (400, 415):
        answered += " to an export without spans"
        return warning(
            subject, answered, "It is reachable; what it takes shows with the first span."
        )
    if status in (401, 403):
        mend = "Check FALLOM_API_KEY." if has_key else _SET_KEY
    elif status in (404, 405, 410):
        mend = f"Check {setting}: there is no such thing at this URL."
    elif 300 <= status < 400:
        mend = f"Set {setting} to where it leads; redirects are not followed."
    return bad(subject, answered, mend)


def _folder(subject: str, base: str) -> Finding:
    from pathlib import Path
    from urllib.parse import unquote, urlsplit

    from fallom._folder.folder import Folder

    path = unquote(urlsplit(base).path)
    try:
        found = Folder(Path(path)).catalogue()
    except ConfigurationError as error:
        return bad(subject, str(error), "Make the folder, or correct the URL.")
    errors = [str(problem) for problem in found.problems if problem.is_error]
    if errors:
        return bad(subject, f"{path}/{errors[0]} ({len(errors)} in all)", "Correct the file.")
    return good(subject, f"{path}: {len(found.entries[subject])} key(s)")


def _note_skew(
    response: Response, started_s: float, took_s: float, url: str, skews: list[tuple[float, str]]
) -> None:
    try:
        said_s = parsedate_to_datetime(response.headers.get("date", "")).timestamp()
    except (TypeError, ValueError):
        return
    skews.append((started_s + took_s / 2 - said_s, url))


def _clock(skews: list[tuple[float, str]]) -> Iterator[Finding]:
    if not skews:
        return
    skew_s, url = min(skews, key=lambda each: abs(each[0]))
    if abs(skew_s) > SKEW_MAX_S:
        side = "ahead of" if skew_s > 0 else "behind"
        yield warning(
            "clock",
            f"this machine is {seconds_text(abs(skew_s))} {side} {url}",
            "Set the clock (NTP): spans have this machine's time, and would be shown in the wrong place.",
        )
    else:
        yield good("clock", "agrees with the servers")
