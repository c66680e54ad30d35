"""Settings: each parameter and variable, what wins, and messages that help and hide."""

from __future__ import annotations

import json
import os
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallom._core import settings as settings_module
from fallom._core.errors import ConfigurationError, UnknownParameterError
from fallom._core.settings import (
    PARAMETERS,
    Settings,
    is_hosted,
    resolve_settings,
    settings_from_dict,
    settings_to_dict,
)

SECRET = "sk-very-secret"

# parameter, field, variable, what is given as an argument, as a variable, and what it becomes
GOOD: list[tuple[str, str, str, Any, str, Any]] = [
    ("api_key", "api_key", "FALLOM_API_KEY", SECRET, SECRET, SECRET),
    ("traces_url", "traces_url", "FALLOM_TRACES_URL", "http://h:1/", "http://h:1/", "http://h:1"),
    (
        "configs_url",
        "configs_url",
        "FALLOM_CONFIGS_URL",
        "https://h/c",
        "https://h/c",
        "https://h/c",
    ),
    (
        "prompts_url",
        "prompts_url",
        "FALLOM_PROMPTS_URL",
        "http://[::1]:8",
        "http://[::1]:8",
        "http://[::1]:8",
    ),
    (
        "traces_headers",
        "traces_headers",
        "FALLOM_TRACES_HEADERS",
        {"A": "b c"},
        "A=b%20c",
        {"A": "b c"},
    ),
    ("capture_content", "capture_content", "FALLOM_CAPTURE_CONTENT", False, "false", False),
    ("debug", "debug", "FALLOM_DEBUG", True, "yes", True),
    ("state_dir", "state_dir", "FALLOM_STATE_DIR", "/a/../b", "/a/../b", "/b"),
    ("flusher", "flusher", "FALLOM_FLUSHER", "External", "EXTERNAL", "external"),
    ("service_name", "service_name", "OTEL_SERVICE_NAME", " mine ", "mine", "mine"),
    ("cold_start_timeout", "cold_start_timeout_s", "FALLOM_COLD_START_TIMEOUT", 0, "0", 0.0),
    ("sync_interval", "sync_interval_s", "FALLOM_SYNC_INTERVAL", 0.1, "0.1", 0.1),
    ("linger", "linger_s", "FALLOM_LINGER", 86_400, "86400", 86_400.0),
    ("spool_bytes_max", "spool_bytes_max", "FALLOM_SPOOL_BYTES_MAX", 1 << 20, "1048576", 1 << 20),
    ("spool_segments_max", "spool_segments_max", "FALLOM_SPOOL_SEGMENTS_MAX", 16, "16", 16),
    ("spool_age_max", "spool_age_max_s", "FALLOM_SPOOL_AGE_MAX", 60, "60", 60.0),
    (
        "spool_policy",
        "spool_policy",
        "FALLOM_SPOOL_POLICY",
        "drop_newest",
        "drop_newest",
        "drop_newest",
    ),
    ("dead_bytes_max", "dead_bytes_max", "FALLOM_DEAD_BYTES_MAX", 0, "0", 0),
    ("dead_age_max", "dead_age_max_s", "FALLOM_DEAD_AGE_MAX", 0, "0", 0.0),
    ("segment_bytes_max", "segment_bytes_max", "FALLOM_SEGMENT_BYTES_MAX", 4096, "4096", 4096),
    ("fsync", "fsync", "FALLOM_FSYNC", "always", "always", "always"),
    ("metrics_protocol", "metrics_protocol", "FALLOM_METRICS_PROTOCOL", "json", "json", "json"),
    ("sample_rate", "sample_rate", "FALLOM_SAMPLE_RATE", 0.25, "0.25", 0.25),
    ("bootstrap", "bootstrap", "FALLOM_BOOTSTRAP", "/b.json", "/b.json", "/b.json"),
    (
        "ship_masks",
        "ship_masks",
        "FALLOM_SHIP_MASKS",
        ["email_addresses", "api_keys"],
        "api_keys, EMAIL_ADDRESSES",
        "api_keys,email_addresses",
    ),
    ("self_metrics", "self_metrics", "FALLOM_SELF_METRICS", "otlp", "otlp", "otlp"),
    ("auto_instrument", "auto_instrument", "FALLOM_AUTO_INSTRUMENT", False, "off", False),
]


def refused(arguments: dict[str, Any] | None = None, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigurationError) as caught:
        resolve_settings(arguments or {}, environ or {})
    return str(caught.value)


def test_this_file_has_an_example_of_every_parameter() -> None:
    # Extra targets have a group of variables each: tests/core/test_extra_targets.py.
    assert {example[0] for example in GOOD} == set(PARAMETERS) - {"extra_targets"}
    for parameter, field, variable, *_ in GOOD:
        assert PARAMETERS[parameter][0] == field
        assert PARAMETERS[parameter][1][0] == variable


def test_every_field_is_set_by_a_parameter_and_names_its_variable() -> None:
    fields = {field for field, _, _ in PARAMETERS.values()}
    assert set(Settings().values()) == fields | {"resource_attributes"}
    assert settings_module.__file__ is not None
    with open(settings_module.__file__, encoding="utf-8") as source:
        text = source.read()
    for field, variables, _ in PARAMETERS.values():
        declared = re.search(rf"^    {field}: .*\n(    #.*\n)?", text, re.MULTILINE)
        assert declared is not None
        assert all(variable in declared[0] for variable in variables), declared[0]


@pytest.mark.parametrize(("parameter", "field", "variable", "argument", "text", "value"), GOOD)
def test_an_argument_a_variable_and_a_default_in_that_order(
    parameter: str, field: str, variable: str, argument: Any, text: str, value: Any
) -> None:
    default = getattr(resolve_settings({}, {}), field)
    assert default == getattr(Settings(), field)
    assert default != value
    assert getattr(resolve_settings({parameter: argument}, {}), field) == value
    assert getattr(resolve_settings({}, {variable: text}), field) == value
    assert getattr(resolve_settings({parameter: None}, {variable: text}), field) == value
    assert getattr(resolve_settings({}, {variable: ""}), field) == default
    if parameter not in ("capture_content", "debug", "auto_instrument"):
        wins = resolve_settings({parameter: argument}, {variable: "what is never looked at"})
        assert getattr(wins, field) == value


@pytest.mark.parametrize("name", ["traces", "configs", "prompts"])
def test_the_base_url_stands_in_for_a_url_that_is_not_given(name: str) -> None:
    environ = {"FALLOM_BASE_URL": "http://base", f"FALLOM_{name.upper()}_URL": "http://own"}
    settings = resolve_settings({}, environ)
    for each in ("traces", "configs", "prompts"):
        expected = "http://own" if each == name else "http://base"
        assert getattr(settings, f"{each}_url") == expected


@pytest.mark.parametrize("argument", [None, True, False])
@pytest.mark.parametrize(
    "variable", [None, "", "true", "false", "FALSE", " no ", "0", "off", "odd"]
)
def test_of_two_privacy_settings_the_stricter_one_wins(
    argument: bool | None, variable: str | None
) -> None:
    environ = {} if variable is None else {"FALLOM_CAPTURE_CONTENT": variable}
    says_no = (variable or "").strip().lower() in ("false", "no", "0", "off")
    settings = resolve_settings({"capture_content": argument}, environ)
    assert settings.capture_content is (argument is not False and not says_no)


@pytest.mark.parametrize(
    ("argument", "environ", "name"),
    [
        (None, {}, ""),
        (None, {"OTEL_RESOURCE_ATTRIBUTES": "service.name=attr"}, "attr"),
        (None, {"OTEL_SERVICE_NAME": "var", "OTEL_RESOURCE_ATTRIBUTES": "service.name=a"}, "var"),
        ("mine", {"OTEL_SERVICE_NAME": "var"}, "mine"),
    ],
)
def test_where_the_name_of_the_service_comes_from(
    argument: str | None, environ: dict[str, str], name: str
) -> None:
    assert resolve_settings({"service_name": argument}, environ).service_name == name


def test_resource_attributes_are_read_as_opentelemetry_writes_them() -> None:
    environ = {"OTEL_RESOURCE_ATTRIBUTES": "a=1, b = x%2Cy ,,service.name=s"}
    assert resolve_settings({}, environ).resource_attributes == {
        "a": "1",
        "b": "x,y",
        "service.name": "s",
    }


# What cannot be used.


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("apikey", "did you mean 'api_key'?"),
        ("capture_contents", "did you mean 'capture_content'?"),
        ("url", "it has api_key, auto_instrument"),
    ],
)
def test_an_unknown_parameter_is_told_with_the_one_that_was_meant(name: str, hint: str) -> None:
    with pytest.raises(UnknownParameterError) as caught:
        resolve_settings({name: SECRET}, {})
    assert hint in str(caught.value)
    assert repr(name) in str(caught.value)
    assert SECRET not in str(caught.value)
    assert isinstance(caught.value, TypeError)


def test_an_unknown_parameter_is_told_although_it_is_none() -> None:
    with pytest.raises(UnknownParameterError):
        resolve_settings({"apikey": None}, {})


BAD: list[tuple[str, Any, str]] = [
    ("traces_url", "traces.example.com", "http:// or https://"),
    ("traces_url", "ftp://h", "http:// or https://"),
    ("traces_url", "http://", "http:// or https://"),
    ("traces_url", "http://h:0", "http:// or https://"),
    ("traces_url", "http://h:99999", "http:// or https://"),
    ("traces_url", "http://h:x", "http:// or https://"),
    ("traces_url", "http://[::1", "http:// or https://"),
    ("traces_url", "http://a b", "http:// or https://"),
    ("traces_url", "http://h/?q=1", "no query"),
    ("traces_url", "http://h/#f", "no fragment"),
    ("traces_url", 5, "must be a string, not int"),
    ("configs_url", "x", "configs_url"),
    ("prompts_url", "x", "prompts_url"),
    ("configs_url", "file://[::1/srv", "absolute path"),
    ("configs_url", "file:///srv/fallom#f", "absolute path"),
    ("prompts_url", "file:///srv/\udcff", "absolute path"),  # of no text: no name of a namespace
    ("api_key", 5, "must be a string"),
    ("traces_headers", ["A"], "must be a mapping"),
    ("traces_headers", {"A": 1}, "'A'"),
    ("traces_headers", {"A b": "x"}, "'A b'"),
    ("traces_headers", {"": "x"}, "''"),
    ("traces_headers", {"A:": "x"}, "'A:'"),
    ("traces_headers", {"A": "ä"}, "'A'"),
    ("traces_headers", {1: "x"}, "1"),
    ("capture_content", "perhaps", "expected true or false"),
    ("debug", "perhaps", "expected true or false"),
    ("state_dir", "", "path of a directory"),
    ("state_dir", 7, "path of a directory"),
    ("state_dir", b"/bytes", "path of a directory"),
    ("state_dir", "a\0b", "path of a directory"),
    ("state_dir", "/\ud800", "path of a directory"),
    ("state_dir", "file:///var/lib/fallom", "path of a directory"),
    ("bootstrap", "/\ud800.json", "path of a file"),
    ("bootstrap", "https://h/b.json", "path of a file"),
    ("flusher", "thread", "'process' or 'external'"),
    ("fsync", "sometimes", "'none' or 'interval' or 'always'"),
    ("metrics_protocol", "xml", "'otlp' or 'json'"),
    ("spool_policy", "drop", "'drop_oldest' or 'drop_newest'"),
    ("cold_start_timeout", -1, "seconds from 0 to 60"),
    ("cold_start_timeout", 61, "seconds from 0 to 60"),
    ("cold_start_timeout", "soon", "seconds from 0 to 60"),
    ("cold_start_timeout", True, "seconds from 0 to 60"),
    ("cold_start_timeout", float("nan"), "seconds from 0 to 60"),
    ("sync_interval", 0, "seconds from 0.1"),
    ("linger", float("inf"), "seconds from 0"),
    ("spool_bytes_max", 1000, "bytes from"),
    ("segment_bytes_max", 4095, "bytes from 4096"),
    ("dead_bytes_max", 0.5, "whole number of bytes"),
    ("spool_segments_max", "16.5", "whole number of files"),
    ("sample_rate", 1.1, "from 0 to 1"),
]


@pytest.mark.parametrize(("parameter", "value", "expected"), BAD)
def test_a_bad_value_is_told_by_name_with_what_was_expected(
    parameter: str, value: Any, expected: str
) -> None:
    message = refused({parameter: value})
    assert parameter in message
    assert expected in message


BAD_TEXTS = [
    (parameter, value)
    for parameter, value, _ in BAD
    if isinstance(value, str) and value and parameter != "capture_content"
]


def test_a_number_beyond_all_floats_is_told_like_any_other_that_is_too_large() -> None:
    with pytest.raises(ConfigurationError, match="seconds from 0 to 60"):
        resolve_settings({"cold_start_timeout": 10**400}, {})


class Broken:
    def __str__(self) -> str:
        raise RuntimeError("the application's own code")

    __repr__ = __str__


@pytest.mark.parametrize("value", [Broken(), [Broken()], {Broken(): 1}])
@pytest.mark.parametrize("parameter", ["debug", "linger", "ship_masks", "state_dir"])
def test_a_value_that_cannot_even_be_shown_is_told_by_its_type(parameter: str, value: Any) -> None:
    message = refused({parameter: value})
    assert parameter in message
    assert type(value).__name__ in message


def test_a_path_of_bytes_that_are_no_text_is_a_path() -> None:
    named = os.fsdecode(b"/caf\xe9")
    assert resolve_settings({}, {"FALLOM_STATE_DIR": named}).state_dir == named


@pytest.mark.parametrize(("parameter", "value"), BAD_TEXTS)
def test_a_bad_variable_is_told_by_its_own_name(parameter: str, value: str) -> None:
    variable = PARAMETERS[parameter][1][0]
    assert variable in refused(environ={variable: value})


def test_a_bad_base_url_is_told_as_that() -> None:
    assert "FALLOM_BASE_URL" in refused(environ={"FALLOM_BASE_URL": "x"})


@pytest.mark.parametrize(
    "arguments",
    [
        {"api_key": f"{SECRET}\n"[:-1] + " x"},
        {"api_key": f"{SECRET}ä"},
        {"api_key": f"{SECRET}\r\nX-Injected: 1"},
        {"traces_url": f"http://user:{SECRET}@h"},
        {"traces_url": f"http://{SECRET}@h"},
        {"traces_url": f"http://user:{SECRET}@h:port"},
        {"traces_url": f"http://user:{SECRET}@[::1"},
        {"traces_url": f"http://h/?key={SECRET}"},
        {"traces_url": f"http://h/#{SECRET}"},
        {"traces_url": f"ftp://user:{SECRET}@h"},
        {"traces_headers": {"Authorization": f"{SECRET}\n"[:-1] + "\r\nX: y"}},
        {"traces_headers": f"Authorization={SECRET},{SECRET}"},
        {"traces_headers": f"{SECRET}"},
    ],
)
def test_no_message_shows_a_secret(arguments: dict[str, Any]) -> None:
    message = refused(arguments)
    assert SECRET not in message
    assert next(iter(arguments)) in message


def test_a_key_may_stand_between_line_breaks() -> None:
    assert resolve_settings({}, {"FALLOM_API_KEY": f" {SECRET}\n"}).api_key == SECRET


@given(
    st.dictionaries(st.sampled_from(sorted(PARAMETERS)), st.text() | st.integers() | st.floats()),
    st.dictionaries(
        st.sampled_from(sorted({v for _, vs, _ in PARAMETERS.values() for v in vs})), st.text()
    ),
)
def test_any_values_give_settings_or_an_error_of_ours(
    arguments: dict[str, Any], environ: dict[str, str]
) -> None:
    try:
        settings = resolve_settings(arguments, environ)
    except ConfigurationError:
        return
    assert settings_from_dict(json.loads(json.dumps(settings_to_dict(settings)))) == settings


# What becomes of them.


def test_the_key_and_the_headers_are_never_shown() -> None:
    settings = resolve_settings({"api_key": SECRET, "traces_headers": {"X": SECRET}}, {})
    for text in (repr(settings), str(settings), f"{settings}"):
        assert SECRET not in text


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(AttributeError, match="debug of Settings cannot be changed"):
        Settings().debug = True  # type: ignore[misc]


def test_settings_of_another_version_are_read_as_far_as_they_are_known() -> None:
    values = settings_to_dict(Settings(api_key=SECRET)) | {"later": 1}
    del values["linger_s"]
    assert settings_from_dict(values) == Settings(api_key=SECRET)


BASE = Settings(api_key=SECRET)
WHERE_AND_WHO: list[dict[str, Any]] = [
    {"api_key": "other"},
    {"api_key": None},
    {"traces_url": "http://a"},
    {"configs_url": "http://a"},
    {"prompts_url": "http://a"},
    {"metrics_protocol": "json"},
    {"traces_headers": {"A": "b"}},
    {"traces_headers": {"A": "c"}},
    {"traces_headers": {"B": "b"}},
    {"traces_headers": {"A": "b", "B": "b"}},
]


def test_whoever_sends_elsewhere_or_as_somebody_else_has_a_namespace_of_its_own() -> None:
    variants = [BASE, *(BASE.replaced(**changes) for changes in WHERE_AND_WHO)]
    assert len({settings.namespace for settings in variants}) == len(variants)


def test_urls_that_change_places_are_another_namespace() -> None:
    first = Settings(traces_url="http://a", configs_url="http://b")
    second = Settings(traces_url="http://b", configs_url="http://a")
    assert first.namespace != second.namespace


@pytest.mark.parametrize(
    "changes",
    [
        {"debug": True},
        {"service_name": "s"},
        {"state_dir": "/x"},
        {"capture_content": False},
        {"ship_masks": "api_keys"},
        {"linger_s": 1.0},
        {"resource_attributes": {"a": "b"}},
    ],
)
def test_all_else_shares_a_namespace(changes: dict[str, Any]) -> None:
    assert BASE.replaced(**changes).namespace == BASE.namespace


def test_the_namespace_is_a_file_name_that_does_not_give_the_key_away() -> None:
    assert re.fullmatch("[0-9a-f]{16}", BASE.namespace)
    assert SECRET not in BASE.namespace
    headers = {"A": "1", "B": "2"}
    turned = dict(reversed(headers.items()))
    assert Settings(traces_headers=headers).namespace == Settings(traces_headers=turned).namespace


@pytest.mark.parametrize("traces_url", ["http://h", "http://h/v1/traces"])
def test_endpoints_are_below_the_base_urls(traces_url: str) -> None:
    settings = Settings(traces_url=traces_url, configs_url="http://c")
    assert settings.traces_endpoint == "http://h/v1/traces"
    assert settings.metrics_endpoint == "http://h/v1/traces"
    assert settings.replaced(metrics_protocol="json").metrics_endpoint == "http://h/spans"
    assert settings.exposures_endpoint == "http://c/sessions"


@pytest.mark.parametrize(
    ("url", "hosted"),
    [
        ("https://traces.fallom.com", True),
        ("https://fallom.com", True),
        ("https://notfallom.com", False),
        ("https://fallom.com.evil.org", False),
        ("http://127.0.0.1", False),
    ],
)
def test_the_hosted_service_is_known_by_its_host(url: str, hosted: bool) -> None:
    assert is_hosted(url) is hosted


def test_a_relative_state_directory_is_below_the_current_one() -> None:
    assert resolve_settings({"state_dir": "x/y"}, {}).state_dir == os.path.abspath("x/y")


def test_a_malformed_variable_of_opentelemetry_is_left_out_and_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings = resolve_settings({}, {"OTEL_RESOURCE_ATTRIBUTES": "a=1,nonsense"})
    assert settings.resource_attributes == {}
    assert "OTEL_RESOURCE_ATTRIBUTES" in caplog.text
