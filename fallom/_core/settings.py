"""``Settings``: everything that ``init`` can say, checked once, then frozen.

Precedence is written here and only here: argument, environment variable, default. Of two privacy
settings the stricter one wins. ``resolve_settings`` is pure: the environment is an argument.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from fallom._core.digest import sha256
from fallom._core.errors import ConfigurationError, UnknownParameterError
from fallom._core.extra_targets import (
    ExtraTarget,
    extra_target_from_dict,
    extra_target_to_dict,
    extra_targets_in,
    read_extra_targets,
)
from fallom._core.frozen import Frozen
from fallom._core.parsing import (
    FALSE_WORDS,
    number_of,
    one_of,
    path_of,
    read_capture,
    read_flag,
    read_headers,
    read_key,
    read_key_values,
    read_mask_names,
    read_source,
    read_text,
    read_url,
    whole_number_of,
)

__all__ = ["Settings", "is_hosted", "resolve_settings", "settings_from_dict", "settings_to_dict"]

_logger = logging.getLogger("fallom")

_MIB = 1 << 20
_NONE: Mapping[str, str] = {}
_Parse = Callable[[str, Any], Any]


class Settings(Frozen, hidden=("api_key", "traces_headers")):
    """The settings of one ``init``. Units are in the names; the API key is never in the repr."""

    api_key: str | None = None  # FALLOM_API_KEY
    traces_url: str = "https://traces.fallom.com"  # FALLOM_TRACES_URL, then FALLOM_BASE_URL
    configs_url: str = "https://configs.fallom.com"  # FALLOM_CONFIGS_URL, then FALLOM_BASE_URL
    prompts_url: str = "https://prompts.fallom.com"  # FALLOM_PROMPTS_URL, then FALLOM_BASE_URL
    traces_headers: Mapping[str, str] = _NONE
    # FALLOM_TRACES_HEADERS, as "name=value,name2=value2", percent-decoded (the OpenTelemetry form)
    capture_content: bool = True  # FALLOM_CAPTURE_CONTENT; False from either side wins
    debug: bool = False  # FALLOM_DEBUG
    state_dir: str | None = None  # FALLOM_STATE_DIR; absolute after resolution
    flusher: str = "process"  # FALLOM_FLUSHER: "process" (started by itself) or "external";
    # "none" in tests of applications, where nothing is ever delivered
    service_name: str = ""  # argument, OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES
    resource_attributes: Mapping[str, str] = _NONE  # OTEL_RESOURCE_ATTRIBUTES
    cold_start_timeout_s: float = 1.0  # FALLOM_COLD_START_TIMEOUT, 0 to 60
    sync_interval_s: float = 30.0  # FALLOM_SYNC_INTERVAL, 0.1 to 86,400
    linger_s: float = 10.0  # FALLOM_LINGER, 0 to 86,400: how long an idle flusher stays
    spool_bytes_max: int = 512 * _MIB  # FALLOM_SPOOL_BYTES_MAX, at least 1 MiB
    spool_segments_max: int = 10_000  # FALLOM_SPOOL_SEGMENTS_MAX, 16 to 1,000,000
    spool_age_max_s: float = 7 * 86_400.0  # FALLOM_SPOOL_AGE_MAX, 60 to a year
    spool_policy: str = "drop_oldest"  # FALLOM_SPOOL_POLICY: "drop_oldest" or "drop_newest"
    dead_bytes_max: int = 64 * _MIB  # FALLOM_DEAD_BYTES_MAX
    dead_age_max_s: float = 14 * 86_400.0  # FALLOM_DEAD_AGE_MAX
    segment_bytes_max: int = 8 * _MIB  # FALLOM_SEGMENT_BYTES_MAX, 4 KiB to 1 GiB
    fsync: str = "none"  # FALLOM_FSYNC: "none", "interval" (by the flusher) or "always"
    metrics_protocol: str = "otlp"  # FALLOM_METRICS_PROTOCOL: "otlp" or "json"
    sample_rate: float = 1.0  # FALLOM_SAMPLE_RATE, 0 to 1: share of sessions with spans
    auto_instrument: bool = True  # FALLOM_AUTO_INSTRUMENT: use OpenTelemetry's that are installed
    bootstrap: str | None = None  # FALLOM_BOOTSTRAP; a file of ``fallom configs export``
    self_metrics: str = "none"  # FALLOM_SELF_METRICS: "otlp" sends what the flusher counts
    ship_masks: str = ""  # FALLOM_SHIP_MASKS; names, sorted, "none", or "" to leave it as it is
    extra_targets: tuple[ExtraTarget, ...] = ()  # FALLOM_TRACES_EXTRA_<NAME>_URL, _HEADERS, ...

    @property
    def traces_endpoint(self) -> str:
        """Where OTLP traces are posted; a URL that already ends so is used as it is."""
        url = self.traces_url
        return url if url.endswith("/v1/traces") else f"{url}/v1/traces"

    @property
    def metrics_endpoint(self) -> str:
        """Where custom metrics are posted."""
        if self.metrics_protocol == "json":
            return f"{self.traces_url.removesuffix('/v1/traces')}/spans"
        return self.traces_endpoint

    @property
    def self_metrics_endpoint(self) -> str:
        """Where the flusher's own metrics are posted, if that is asked for."""
        return f"{self.traces_url.removesuffix('/v1/traces')}/v1/metrics"

    @property
    def exposures_endpoint(self) -> str:
        """Where exposures are posted."""
        return f"{self.configs_url}/sessions"

    @property
    def spool_bytes_total(self) -> int:
        """How much the spool may take: its own limit, and what each extra target adds to it."""
        return self.spool_bytes_max + sum(target.bytes_max for target in self.extra_targets)

    @property
    def tells_exposures(self) -> bool:
        """Whether there is a server to tell which session got which model; a folder is none."""
        return not self.configs_url.startswith("file:")

    @property
    def namespace(self) -> str:
        """16 hex digits of all that decides where and as whom data goes; it hides the key."""
        parts = [
            self.api_key or "",
            self.traces_url,
            self.configs_url,
            self.prompts_url,
            self.metrics_protocol,
        ]
        for name in sorted(self.traces_headers):
            parts += [name, self.traces_headers[name]]
        for target in self.extra_targets:
            parts += target.identity()
        return sha256("\0".join(parts).encode()).hexdigest()[:16]


def is_hosted(url: str) -> bool:
    """Tell whether a URL is the hosted service's, which answers nobody without a key."""
    from urllib.parse import urlsplit  # as in ``parsing``

    host = urlsplit(url).hostname or ""
    return host == "fallom.com" or host.endswith(".fallom.com")


def settings_to_dict(settings: Settings) -> dict[str, Any]:
    """Give the settings as JSON-able values; for the flusher's standard input, never for a disk."""
    values = settings.values()
    values["extra_targets"] = [extra_target_to_dict(each) for each in settings.extra_targets]
    return {k: dict(v) if isinstance(v, Mapping) else v for k, v in values.items()}


def settings_from_dict(values: Mapping[str, Any]) -> Settings:
    """Read what ``settings_to_dict`` gave; fields of another version are left out."""
    found = {k: v for k, v in values.items() if k in Settings.__annotations__}
    extra = found.get("extra_targets", ())
    found["extra_targets"] = tuple(extra_target_from_dict(each) for each in extra)
    return Settings(**found)


def resolve_settings(arguments: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    """Build the settings from what the caller gave and the environment; raise on what is unusable.

    Args:
        arguments: Keyword arguments of ``init``; None means "not given".
        environ: The environment.

    Raises:
        UnknownParameterError: An argument that does not exist.
        ConfigurationError: A value that cannot be used.
    """
    given = {name: value for name, value in arguments.items() if value is not None}
    for name in arguments:
        if name not in PARAMETERS:
            raise UnknownParameterError(_unknown(name), name)
    values: dict[str, Any] = {}
    for name, (field_name, variables, parse) in PARAMETERS.items():
        source, raw = _first(name, given, variables, environ)
        if source:
            values[field_name] = _parsed(parse, source, raw)
    if "extra_targets" not in given:
        values["extra_targets"] = extra_targets_in(environ)
    if _env_says_no_content(environ):
        values["capture_content"] = False
    attributes = _resource_attributes(environ)
    values["resource_attributes"] = attributes
    if not values.get("service_name"):
        values["service_name"] = attributes.get("service.name", "")
    return Settings(**values)


def _parsed(parse: _Parse, source: str, raw: Any) -> Any:
    """Check a value, whose own methods are the application's code and may raise anything."""
    try:
        return parse(source, raw)
    except ConfigurationError:
        raise
    except Exception as error:  # it cannot be read, or not even be shown
        kind, raised = type(raw).__name__, type(error).__name__
        raise ConfigurationError(
            f"{source} cannot be read: its value, of type {kind}, raises {raised}.", source
        ) from error


def _resource_attributes(environ: Mapping[str, str]) -> dict[str, str]:
    """Read OpenTelemetry's variable, which is others' too: a malformed one is discarded, and said.

    That is what the specification of resources asks for, and no reason for an application not to start.
    """
    name = "OTEL_RESOURCE_ATTRIBUTES"
    try:
        return read_key_values(name, environ.get(name, ""))
    except ConfigurationError as error:
        _logger.warning("fallom: %s It is left out.", error)
        return {}


def _first(
    name: str, given: Mapping[str, Any], variables: tuple[str, ...], environ: Mapping[str, str]
) -> tuple[str, Any]:
    if name in given:
        return name, given[name]
    for variable in variables:
        if environ.get(variable):  # an empty variable counts as unset, as OpenTelemetry has it
            return variable, environ[variable]
    return "", None


def _unknown(name: str) -> str:
    import difflib  # only for this message

    close = difflib.get_close_matches(name, PARAMETERS, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(sorted(PARAMETERS))}."
    return f"fallom.init has no parameter {name!r}; {hint}"


def _env_says_no_content(environ: Mapping[str, str]) -> bool:
    return environ.get("FALLOM_CAPTURE_CONTENT", "").strip().lower() in FALSE_WORDS


_YEAR_S = 366 * 86_400
_TIB = 1 << 40

# Of init: name, (field, environment variables in order, check)
PARAMETERS: dict[str, tuple[str, tuple[str, ...], _Parse]] = {
    "api_key": ("api_key", ("FALLOM_API_KEY",), read_key),
    "traces_url": ("traces_url", ("FALLOM_TRACES_URL", "FALLOM_BASE_URL"), read_url),
    "configs_url": ("configs_url", ("FALLOM_CONFIGS_URL", "FALLOM_BASE_URL"), read_source),
    "prompts_url": ("prompts_url", ("FALLOM_PROMPTS_URL", "FALLOM_BASE_URL"), read_source),
    "traces_headers": ("traces_headers", ("FALLOM_TRACES_HEADERS",), read_headers),
    "capture_content": ("capture_content", ("FALLOM_CAPTURE_CONTENT",), read_capture),
    "debug": ("debug", ("FALLOM_DEBUG",), read_flag),
    "state_dir": ("state_dir", ("FALLOM_STATE_DIR",), path_of("directory")),
    "flusher": ("flusher", ("FALLOM_FLUSHER",), one_of("process", "external")),
    "service_name": ("service_name", ("OTEL_SERVICE_NAME",), read_text),
    "cold_start_timeout": (
        "cold_start_timeout_s",
        ("FALLOM_COLD_START_TIMEOUT",),
        number_of(0, 60, "seconds"),
    ),
    "sync_interval": (
        "sync_interval_s",
        ("FALLOM_SYNC_INTERVAL",),
        number_of(0.1, 86_400, "seconds"),
    ),
    "linger": ("linger_s", ("FALLOM_LINGER",), number_of(0, 86_400, "seconds")),
    "spool_bytes_max": (
        "spool_bytes_max",
        ("FALLOM_SPOOL_BYTES_MAX",),
        whole_number_of(_MIB, _TIB, "bytes"),
    ),
    "spool_segments_max": (
        "spool_segments_max",
        ("FALLOM_SPOOL_SEGMENTS_MAX",),
        whole_number_of(16, 1_000_000, "files"),
    ),
    "spool_age_max": (
        "spool_age_max_s",
        ("FALLOM_SPOOL_AGE_MAX",),
        number_of(60, _YEAR_S, "seconds"),
    ),
    "spool_policy": (
        "spool_policy",
        ("FALLOM_SPOOL_POLICY",),
        one_of("drop_oldest", "drop_newest"),
    ),
    "dead_bytes_max": (
        "dead_bytes_max",
        ("FALLOM_DEAD_BYTES_MAX",),
        whole_number_of(0, _TIB, "bytes"),
    ),
    "dead_age_max": ("dead_age_max_s", ("FALLOM_DEAD_AGE_MAX",), number_of(0, _YEAR_S, "seconds")),
    "segment_bytes_max": (
        "segment_bytes_max",
        ("FALLOM_SEGMENT_BYTES_MAX",),
        whole_number_of(4096, 1 << 30, "bytes"),
    ),
    "fsync": ("fsync", ("FALLOM_FSYNC",), one_of("none", "interval", "always")),
    "metrics_protocol": ("metrics_protocol", ("FALLOM_METRICS_PROTOCOL",), one_of("otlp", "json")),
    "sample_rate": (
        "sample_rate",
        ("FALLOM_SAMPLE_RATE",),
        number_of(0, 1, "sessions kept of one"),
    ),
    "bootstrap": ("bootstrap", ("FALLOM_BOOTSTRAP",), path_of("file")),
    "extra_targets": ("extra_targets", (), read_extra_targets),  # and ``extra_targets_in``
    "ship_masks": ("ship_masks", ("FALLOM_SHIP_MASKS",), read_mask_names),
    "self_metrics": ("self_metrics", ("FALLOM_SELF_METRICS",), one_of("none", "otlp")),
    "auto_instrument": ("auto_instrument", ("FALLOM_AUTO_INSTRUMENT",), read_flag),
}
