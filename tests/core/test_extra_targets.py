"""Extra targets as settings: what is taken, what is refused and how, and what they decide."""

from __future__ import annotations

from typing import Any

import pytest

from fallom._core.errors import ConfigurationError
from fallom._core.extra_targets import ExtraTarget
from fallom._core.settings import (
    Settings,
    resolve_settings,
    settings_from_dict,
    settings_to_dict,
)

ENTRY = {"name": "lab", "url": "http://lab:6006/"}
PREFIX = "FALLOM_TRACES_EXTRA_"


def given(*entries: Any) -> Settings:
    return resolve_settings({"extra_targets": entries}, {})


def test_a_target_needs_a_name_and_a_url_and_has_defaults_for_the_rest() -> None:
    (target,) = given(ENTRY).extra_targets
    assert target == ExtraTarget(
        name="lab", url="http://lab:6006", headers={}, bytes_max=128 << 20, age_max_s=86_400.0
    )
    assert target.endpoint == "http://lab:6006/v1/traces"
    (whole,) = given({**ENTRY, "url": "http://lab/otlp/v1/traces"}).extra_targets
    assert whole.endpoint == "http://lab/otlp/v1/traces"


def test_the_environment_says_the_same_as_the_argument() -> None:
    environ = {
        f"{PREFIX}LAB_URL": "http://lab:6006/",
        f"{PREFIX}LAB_HEADERS": "api-key=secret%20one",
        f"{PREFIX}LAB_BYTES_MAX": "1048576",
        f"{PREFIX}LAB_AGE_MAX": "3600",
        f"{PREFIX}A_URL_URL": "http://a",
        f"{PREFIX}UNSET_URL": "",
    }
    entry = {**ENTRY, "headers": {"api-key": "secret one"}, "bytes_max": 1 << 20, "age_max": 3600}
    argument = given(entry, {"name": "a_url", "url": "http://a"})
    found = resolve_settings({}, environ)
    assert found == argument
    assert [each.name for each in found.extra_targets] == ["a_url", "lab"]
    assert "secret" not in repr(found)
    assert resolve_settings({"extra_targets": []}, environ).extra_targets == ()


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("http://lab", "list of mappings"),
        ({"name": "lab"}, "list of mappings"),
        (["http://lab"], "entry 1 must be a mapping"),
        ([{"url": "http://lab"}], "needs a name"),
        ([{"name": "lab"}], "needs a url"),
        ([{**ENTRY, "uri": "x"}], "has no key 'uri'"),
        ([{**ENTRY, "name": "Lab 1"}], "lower-case"),
        ([{**ENTRY, "name": "x" * 33}], "lower-case"),
        ([{**ENTRY, "url": "lab:6006"}], "expected an http"),
        ([{**ENTRY, "url": "http://me:pw@lab"}], "user name or password"),
        ([{**ENTRY, "headers": {"bad name": "x"}}], "header 'bad name'"),
        ([{**ENTRY, "bytes_max": 1}], "number of bytes"),
        ([{**ENTRY, "age_max": -1}], "number of seconds"),
        ([ENTRY, ENTRY], "repeats the name 'lab'"),
        ([{**ENTRY, "name": f"t{n}"} for n in range(7)], "6 is the most"),
    ],
)
def test_what_cannot_be_used_is_refused_in_a_sentence(raw: Any, expected: str) -> None:
    with pytest.raises(ConfigurationError, match=expected):
        resolve_settings({"extra_targets": raw}, {})


@pytest.mark.parametrize(
    ("variable", "expected"),
    [("LAB_HEADERS", "needs a url"), ("LAB", "is no setting"), ("lab_URL", "is no setting")],
)
def test_a_variable_that_means_nothing_is_named(variable: str, expected: str) -> None:
    with pytest.raises(ConfigurationError, match=expected):
        resolve_settings({}, {PREFIX + variable: "x=1"})


def test_all_that_decides_where_and_as_whom_data_goes_is_in_the_namespace() -> None:
    entries: list[dict[str, Any]] = [
        ENTRY,
        {**ENTRY, "name": "other"},
        {**ENTRY, "url": "http://other"},
        {**ENTRY, "headers": {"api-key": "one"}},
        {**ENTRY, "headers": {"api-key": "two"}},
    ]
    assert len({Settings().namespace, *(given(entry).namespace for entry in entries)}) == 6
    assert given({**ENTRY, "bytes_max": 1 << 20}).namespace == given(ENTRY).namespace
    other = {"name": "other", "url": "http://other"}
    assert given(ENTRY, other).namespace == given(other, ENTRY).namespace


def test_a_flusher_is_told_all_of_it() -> None:
    settings = given({**ENTRY, "headers": {"api-key": "one"}, "age_max": 60})
    assert settings_from_dict(settings_to_dict(settings)) == settings
    later = settings_to_dict(settings)
    later["extra_targets"][0]["of_a_later_version"] = 1
    assert settings_from_dict(later) == settings


def test_each_target_adds_its_budget_to_what_the_spool_may_take() -> None:
    settings = given({**ENTRY, "bytes_max": 1 << 20})
    assert settings.spool_bytes_total == settings.spool_bytes_max + (1 << 20)
