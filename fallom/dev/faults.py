"""``Fault``: one way in which the cloud misbehaves, read from a line of text or from JSON.

A specification is a kind and fields, separated by commas::

    503,path=/v1/traces,times=3          429,retry_after=2         429,retry_after=date:2
    413,above=100000                     400,attribute=poison      400,attribute=poison=yes
    partial,rejected=1                   reset                     lost_answer,times=1
    redirect,to=http://127.0.0.1:1/      hang,path=/configs        drip,seconds=0.2

The kinds are listed in ``KINDS``. ``fallom.dev.fault_injection`` carries them out.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fallom._core.errors import ConfigurationError

__all__ = ["KINDS", "Fault", "parse_fault", "parse_faults"]

KINDS: Final[dict[str, str]] = {
    "status": "answer `status` (a bare number does the same); nothing is stored",
    "partial": "store all but the last `rejected` spans, and say so in partial_success",
    "reset": "reset the connection before anything is stored or answered",
    "lost_answer": "store, then reset the connection instead of answering",
    "reset_body": "store, answer, and reset the connection in the middle of the body",
    "close": "close the connection without an answer; nothing is stored",
    "hang": "take the request and never answer",
    "delay": "wait `seconds`, then behave",
    "drip": "store, then send the answer's body one byte each `seconds`",
    "drip_head": "send the answer's head one byte each `seconds`, without an end",
    "garbage": "answer 200 with `bytes` random bytes",
    "not_http": "answer with bytes that are not HTTP",
    "huge": "answer 200 with `bytes` bytes",
    "bomb": "answer 200 with a gzip body that unpacks to `bytes` bytes",
    "redirect": "answer `status` (307) with Location `to`",
}
_BYTES_DEFAULT: Final = {"garbage": 512, "huge": 64 << 20, "bomb": 1 << 30, "drip": 64}
_SECONDS_DEFAULT: Final = {"delay": 1.0, "drip": 0.5, "drip_head": 0.5}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. Fields that a kind has no use for are left alone."""

    kind: str
    path: str = ""  # only this path, or those that begin with it when it ends in "*"; "" is all
    method: str = ""  # only this method
    times: int = 0  # how often, then normal; 0 is for ever
    above: int = 0  # only requests whose body is larger, in bytes on the wire
    attribute: str = ""  # only batches with a span that has this attribute; "name" or "name=value"
    status: int = 0
    retry_after: str = ""  # seconds, or "date:SECONDS" for the HTTP-date that is so far from now
    rejected: int = 1  # partial: how many spans
    seconds: float = 0.0
    bytes: int = 0
    to: str = ""

    def covers(self, method: str, path: str) -> bool:
        """Whether a request with this line is meant."""
        if self.method and self.method != method:
            return False
        if self.path.endswith("*"):
            return path.startswith(self.path[:-1])
        return self.path in ("", path)

    def to_dict(self) -> dict[str, Any]:
        """Give the fields that are set, for JSON."""
        values = dataclasses.asdict(self)
        return {name: value for name, value in values.items() if value or name == "kind"}


_FIELDS: Final = tuple(field.name for field in dataclasses.fields(Fault))
_WHOLE: Final = ("times", "above", "status", "rejected", "bytes")


def parse_faults(raw: Any) -> list[Fault]:
    """Read a list of specifications, or one; each is text or an object of fields.

    Raises:
        ConfigurationError: One of them is not a fault.
    """
    items = raw if isinstance(raw, list) else [raw]
    return [parse_fault(item) for item in items]


def parse_fault(raw: Any) -> Fault:
    """Read one specification.

    Raises:
        ConfigurationError: It is not a fault.
    """
    if isinstance(raw, str):
        return _checked(raw, _split(raw))
    if isinstance(raw, Mapping):
        return _checked(str(dict(raw)), raw)
    raise _wrong(str(raw), "expected text such as '503,times=2' or an object of fields")


def _split(spec: str) -> dict[str, Any]:
    first, *rest = (part.strip() for part in spec.split(","))
    fields: dict[str, Any] = {"kind": first}
    for part in rest:
        name, equals, value = part.partition("=")
        if not equals:
            raise _wrong(spec, f"{part!r} is not of the form name=value")
        fields[name.strip()] = value.strip()
    return fields


def _checked(spec: str, raw: Mapping[str, Any]) -> Fault:
    values = dict(raw)
    kind = str(values.pop("kind", "status" if "status" in values else ""))
    if kind.isascii() and kind.isdigit():
        values.setdefault("status", kind)
        kind = "status"
    if kind not in KINDS:
        raise _wrong(spec, f"the kind {kind!r} is not known{_close(kind, KINDS)}")
    for name in values:
        if name not in _FIELDS:
            raise _wrong(spec, f"there is no field {name!r}{_close(str(name), _FIELDS)}")
    for name in _WHOLE:
        if name in values:
            values[name] = int(_number(spec, name, values[name]))
    if kind == "redirect":
        values.setdefault("status", 307)
        if not values.get("to"):
            raise _wrong(spec, "a redirect needs to=URL")
    if kind in ("status", "redirect") and not 200 <= values.get("status", 0) <= 599:
        raise _wrong(spec, "the status must be from 200 to 599")
    if "retry_after" in values:
        _number(spec, "retry_after", str(values["retry_after"]).removeprefix("date:"))
        values["retry_after"] = str(values["retry_after"])
    values["seconds"] = _number(
        spec, "seconds", values.get("seconds", _SECONDS_DEFAULT.get(kind, 0))
    )
    values.setdefault("bytes", _BYTES_DEFAULT.get(kind, 0))
    for name in ("path", "method", "attribute", "to"):
        values[name] = str(values.get(name, ""))
    values["method"] = values["method"].upper()
    return Fault(kind=kind, **values)


def _number(spec: str, name: str, raw: Any) -> float:
    try:
        value = float(raw)
    except (TypeError, ValueError):
        value = -1.0
    if not 0 <= value < 1 << 40 or isinstance(raw, bool):
        raise _wrong(spec, f"{name} is {raw!r}; expected a number that is not negative")
    return value


def _close(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; expected {', '.join(known)}"


def _wrong(spec: str, what: str) -> ConfigurationError:
    return ConfigurationError(f"fault {spec!r}: {what}.", "fault")
