"""Extra targets: further OTLP backends that get the same spans, each at its own pace.

A target is known by its name, and has credentials and a budget of its own. ``init`` takes a sequence of
mappings; the environment has a group of variables for each, ``FALLOM_TRACES_EXTRA_<NAME>_URL`` first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fallom._core.errors import ConfigurationError
from fallom._core.frozen import Frozen
from fallom._core.parsing import number_of, read_headers, read_text, read_url, whole_number_of

__all__ = [
    "ExtraTarget",
    "extra_target_from_dict",
    "extra_target_to_dict",
    "extra_targets_in",
    "read_extra_targets",
]

TARGETS_MAX = 6  # a segment's head has room for eight: the main one, these, and one to push to
NAME_BYTES_MAX = 32

_PREFIX = "FALLOM_TRACES_EXTRA_"
_VARIABLE = re.compile(_PREFIX + r"([A-Z0-9_]+)_(URL|HEADERS|BYTES_MAX|AGE_MAX)")
_NAME = re.compile(r"[a-z0-9_]{1,32}")
_MIB = 1 << 20
_NONE: Mapping[str, str] = {}


class ExtraTarget(Frozen, hidden=("headers",)):
    """One of them, checked."""

    name: str
    url: str
    headers: Mapping[str, str] = _NONE
    bytes_max: int = 128 * _MIB  # of spool files that nobody but this target still lacks
    age_max_s: float = 86_400.0  # for how long those are kept

    @property
    def endpoint(self) -> str:
        """Where OTLP traces are posted; a URL that already ends so is used as it is."""
        return self.url if self.url.endswith("/v1/traces") else f"{self.url}/v1/traces"

    def identity(self) -> list[str]:
        """Give all that decides where and as whom its data goes."""
        pairs = [part for name in sorted(self.headers) for part in (name, self.headers[name])]
        return ["extra", self.name, self.url, *pairs]


# Of an entry: the field, and the check of its value.
_FIELDS: dict[str, tuple[str, Callable[[str, Any], Any]]] = {
    "name": ("name", read_text),
    "url": ("url", read_url),
    "headers": ("headers", read_headers),
    "bytes_max": ("bytes_max", whole_number_of(65_536, 1 << 40, "bytes")),
    "age_max": ("age_max_s", number_of(60, 366 * 86_400, "seconds")),
}


def read_extra_targets(source: str, raw: Any) -> tuple[ExtraTarget, ...]:
    """Read what ``init`` was given: a sequence of mappings; in the order of their names."""
    if isinstance(raw, (str, bytes, Mapping)) or not isinstance(raw, Iterable):
        raise ConfigurationError(
            f"{source} must be a list of mappings with a name and a url, not {type(raw).__name__}.",
            source,
        )
    found: dict[str, ExtraTarget] = {}
    for number, entry in enumerate(raw, 1):
        where = f"{source}, entry {number}"
        if not isinstance(entry, Mapping):
            raise ConfigurationError(
                f"{where} must be a mapping with a name and a url, not {type(entry).__name__}.",
                source,
            )
        for key in entry:
            if key not in _FIELDS:
                raise ConfigurationError(
                    f"{where} has no key {key!r}; it takes {', '.join(_FIELDS)}.", source
                )
        target = _target({key: (f"{where}: {key}", entry[key]) for key in entry}, where, source)
        if target.name in found:
            raise ConfigurationError(
                f"{where} repeats the name {target.name!r}; each target needs one of its own.",
                source,
            )
        found[target.name] = target
    if len(found) > TARGETS_MAX:
        raise ConfigurationError(
            f"{source} has {len(found)} entries; {TARGETS_MAX} is the most. An OpenTelemetry "
            "Collector can pass on to more.",
            source,
        )
    return tuple(found[name] for name in sorted(found))


def extra_targets_in(environ: Mapping[str, str]) -> tuple[ExtraTarget, ...]:
    """Read the extra targets of the environment; an empty variable counts as unset."""
    groups: dict[str, dict[str, tuple[str, str]]] = {}
    for variable in sorted(environ):
        if variable.startswith(_PREFIX) and environ[variable]:
            known = _VARIABLE.fullmatch(variable)
            if known is None:
                raise ConfigurationError(
                    f"{variable} is no setting of an extra target; expected "
                    f"{_PREFIX}<NAME>_URL, _HEADERS, _BYTES_MAX or _AGE_MAX.",
                    variable,
                )
            group = groups.setdefault(known[1].lower(), {})
            group[known[2].lower()] = variable, environ[variable]
    entries = []
    for name, group in groups.items():
        source = f"{_PREFIX}{name.upper()}_URL"
        target = _target({"name": (source, name), **group}, source, source)
        entries.append(_as_entry(target))
    return read_extra_targets(f"{_PREFIX}*", entries)


def extra_target_to_dict(target: ExtraTarget) -> dict[str, Any]:
    """Give a target as JSON-able values; for the flusher's standard input, never for a disk."""
    return {**target.values(), "headers": dict(target.headers)}


def extra_target_from_dict(values: Mapping[str, Any]) -> ExtraTarget:
    """Read what ``extra_target_to_dict`` gave; fields of another version are left out."""
    known = ExtraTarget.__annotations__
    return ExtraTarget(**{name: value for name, value in values.items() if name in known})


def _target(given: Mapping[str, tuple[str, Any]], where: str, source: str) -> ExtraTarget:
    """Check an entry, of which each value comes with what it is called in messages."""
    for key in ("name", "url"):
        if key not in given:
            raise ConfigurationError(f"{where}: each extra target needs a {key}.", source)
    values = {_FIELDS[key][0]: _FIELDS[key][1](*pair) for key, pair in given.items()}
    if not _NAME.fullmatch(values["name"]):
        raise ConfigurationError(
            f"{where}: the name is {values['name']!r}; expected up to {NAME_BYTES_MAX} lower-case "
            "letters, digits and underscores.",
            source,
        )
    return ExtraTarget(**values)


def _as_entry(target: ExtraTarget) -> dict[str, Any]:
    values = extra_target_to_dict(target)
    return {key: values[name] for key, (name, _) in _FIELDS.items()}
