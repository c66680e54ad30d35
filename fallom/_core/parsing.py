"""One value of a setting: text of the environment or what an argument gave, checked and made fit.

Each reader takes where the value came from, for the message, and the value; it gives what the setting
holds, or raises a ``ConfigurationError`` that says what was found, what was expected and how to mend it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from fallom._core.errors import ConfigurationError

if TYPE_CHECKING:
    from urllib.parse import SplitResult

__all__ = [
    "FALSE_WORDS",
    "MASK_NAMES",
    "number_of",
    "one_of",
    "path_of",
    "read_capture",
    "read_flag",
    "read_headers",
    "read_key",
    "read_key_values",
    "read_mask_names",
    "read_source",
    "read_text",
    "read_url",
    "whole_number_of",
]

MASK_NAMES = ("api_keys", "data_urls", "email_addresses")  # of ``known_masks``, not loaded for it
FALSE_WORDS = ("false", "0", "no", "off")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2


def read_text(source: str, raw: Any) -> str:
    """Read text, without the spaces around it."""
    if not isinstance(raw, str):
        raise ConfigurationError(f"{source} must be a string, not {type(raw).__name__}.", source)
    return raw.strip()


def read_key(source: str, raw: Any) -> str:
    """Read an API key; it is in no message."""
    key = read_text(source, raw)
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigurationError(  # the key itself must not be in the message
            f"{source} holds characters that an HTTP header cannot carry; "
            "copy the key again, without quotes, spaces or line breaks.",
            source,
        )
    return key


def read_url(source: str, raw: Any) -> str:
    """Read a base URL, without the slash at its end."""
    url = read_text(source, raw)
    expected = "expected an http:// or https:// URL, for example https://traces.example.com"
    try:
        parts = _parts(url)
        port = parts.port
    except ValueError as error:
        shown = _shown(url, f": {error}")
        raise ConfigurationError(f"{source} {shown}; {expected}.", source) from None
    if parts.username is not None or parts.password is not None:
        raise ConfigurationError(
            f"{source} holds a user name or password; use api_key or traces_headers for credentials.",
            source,
        )
    unusable = parts.scheme not in ("http", "https") or not parts.hostname or port == 0
    if unusable or any(c.isspace() or not c.isprintable() for c in url):
        raise ConfigurationError(f"{source} {_shown(url)}; {expected}.", source)
    if parts.query or parts.fragment:
        what = ": a base URL has no query and no fragment"
        raise ConfigurationError(f"{source} {_shown(url, what)}; {expected}.", source)
    return url.rstrip("/?#")


def read_source(source: str, raw: Any) -> str:
    """Read a base URL as ``read_url`` does, or the ``file:`` URL of a folder on this machine."""
    url = read_text(source, raw)
    if not url.lower().startswith("file:"):
        return read_url(source, raw)
    expected = (
        "expected the folder's absolute path, for example file:///srv/fallom, on this machine"
    )
    try:
        parts = _parts(url)
    except ValueError as error:
        shown = _shown(url, f": {error}")
        raise ConfigurationError(f"{source} {shown}; {expected}.", source) from None
    path = parts.path.rstrip("/")
    is_path = path.startswith("/") and path.isprintable()  # else it is percent-encoded
    if parts.netloc not in ("", "localhost") or not is_path or parts.query or parts.fragment:
        raise ConfigurationError(f"{source} is {url!r}; {expected}.", source)
    return f"file://{path}"


def _parts(url: str) -> SplitResult:
    from urllib.parse import urlsplit  # it loads ``ipaddress``: paid for by those who give a URL

    return urlsplit(url)


def _shown(url: str, what: str = "") -> str:
    """Give what is wrong with a URL, and the URL as far as it can hold no secret."""
    if "@" in url:
        return "is not a URL, and holds what may be a password"
    return f"is {re.split('[?#]', url)[0]!r}{what}"


def read_headers(source: str, raw: Any) -> dict[str, str]:
    """Read HTTP headers, from a mapping or as ``read_key_values``."""
    pairs = read_key_values(source, raw) if isinstance(raw, str) else raw
    if not isinstance(pairs, Mapping):
        raise ConfigurationError(
            f"{source} must be a mapping of header names to values, not {type(raw).__name__}.",
            source,
        )
    for name, value in pairs.items():
        fit = isinstance(name, str) and isinstance(value, str) and _HEADER_NAME.fullmatch(name)
        if not fit or not (value.isascii() and value.strip().isprintable()):
            raise ConfigurationError(
                f"{source}: header {name!r} needs a name of letters, digits and dashes, and a value "
                "of one line of ASCII.",
                source,
            )
    return {name: value.strip() for name, value in pairs.items()}


def read_key_values(source: str, raw: str) -> dict[str, str]:
    """Read ``k=v,k2=v2`` with percent-encoded values (OpenTelemetry's W3C baggage form)."""
    found: dict[str, str] = {}
    items = [item for part in raw.split(",") if (item := part.strip())]
    if items:
        from urllib.parse import unquote  # as ``_parts``
    for item in items:
        name, equals, value = item.partition("=")
        if not equals or not name.strip():
            raise ConfigurationError(  # values may be secret: name the place only
                f"{source}: entry {len(found) + 1} is not of the form name=value; "
                "separate entries by commas and percent-encode commas within a value.",
                source,
            )
        found[name.strip()] = unquote(value.strip())
    return found


def read_flag(source: str, raw: Any) -> bool:
    """Read a yes or a no."""
    if isinstance(raw, bool):
        return raw
    word = str(raw).strip().lower()
    if word in FALSE_WORDS:
        return False
    if word in ("true", "1", "yes", "on"):
        return True
    raise ConfigurationError(f"{source} is {raw!r}; expected true or false.", source)


def read_capture(source: str, raw: Any) -> bool:
    """Read the argument strictly and the variable as the published SDKs do: only a no means no."""
    if source == "FALLOM_CAPTURE_CONTENT":
        return str(raw).strip().lower() not in FALSE_WORDS
    return read_flag(source, raw)


def number_of(low: float, high: float, unit: str) -> Callable[[str, Any], float]:
    """Give a reader of a number within bounds."""

    def parse(source: str, raw: Any) -> float:
        try:
            value = float(raw) if not isinstance(raw, bool) else float("nan")
        except (TypeError, ValueError, OverflowError):
            value = float("nan")
        if not low <= value <= high:
            raise ConfigurationError(
                f"{source} is {raw!r}; expected a number of {unit} from {low:g} to {high:g}.",
                source,
            )
        return value

    return parse


def whole_number_of(low: int, high: int, unit: str) -> Callable[[str, Any], int]:
    """Give a reader of a whole number within bounds."""
    parse_number = number_of(low, high, unit)

    def parse(source: str, raw: Any) -> int:
        value = parse_number(source, raw)
        if not value.is_integer():
            raise ConfigurationError(
                f"{source} is {raw!r}; expected a whole number of {unit}.", source
            )
        return int(value)

    return parse


def one_of(*choices: str) -> Callable[[str, Any], str]:
    """Give a reader of one of a few words."""

    def parse(source: str, raw: Any) -> str:
        word = read_text(source, raw).lower()
        if word not in choices:
            expected = " or ".join(repr(choice) for choice in choices)
            raise ConfigurationError(f"{source} is {raw!r}; expected {expected}.", source)
        return word

    return parse


def read_mask_names(source: str, raw: Any) -> str:
    """Read the names of masks, separated by commas or as a list; "none" stands alone."""
    given = raw.split(",") if isinstance(raw, str) else raw
    try:
        names = sorted({str(name).strip().lower() for name in given} - {""})
    except TypeError:
        names = []
    if not names or (names != ["none"] and not set(names) <= set(MASK_NAMES)):
        expected = ", ".join(map(repr, MASK_NAMES))
        raise ConfigurationError(
            f"{source} is {raw!r}; expected 'none', or some of {expected}. A function of yours works in "
            "workers only: fallom.init(mask=...).",
            source,
        )
    return ",".join(names)


def path_of(what: str) -> Callable[[str, Any], str]:
    """Give a reader of the path of a directory, or of a file; it is made absolute."""

    def parse(source: str, raw: Any) -> str:
        try:
            path = os.fspath(raw)
            os.fsencode(path)  # not every text is a path: one lone surrogate is none
        except (TypeError, UnicodeEncodeError):
            path = b""
        # A URL would be a directory "file:" below the one in which each process happens to run.
        if not isinstance(path, str) or not path or "\0" in path or "://" in path:
            raise ConfigurationError(f"{source} is {raw!r}; expected the path of a {what}.", source)
        return os.path.abspath(os.path.expanduser(path))

    return parse
