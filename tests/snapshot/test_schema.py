from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallom._core.assignment import CompiledConfig, CompiledTest, choose
from fallom._core.errors import PayloadError
from fallom._core.prompt import CompiledPrompt
from fallom._snapshot.entries import Kind, decode_entry
from fallom._snapshot.schema import parse_json, read_config, read_listing
from tests.snapshot.builders import ab_tests, config, configs, prompt, prompts

VARIANTS = [{"model": "a", "weight": 50}, {"model": "b", "weight": 50}]

MESSAGE = {"role": "user", "content": "the text"}


def test_good_items_serve_beside_bad_ones() -> None:
    listing = configs(config("a"), {"key": "b"}, 5, config("c"))
    assert [entry.key for entry in listing.entries] == ["a", "c"]
    assert listing.listed == {"a", "b", "c"}
    assert len(listing.refused) == 2


def test_a_number_longer_than_python_reads_costs_its_item_alone() -> None:
    body = f'{{"configs": [{json.dumps(config("a"))}, {{"key": "b", "version": {"1" * 5000}}}]}}'
    listing = read_listing(Kind.CONFIG, parse_json(body.encode(), "GET /configs"))
    assert [entry.key for entry in listing.entries] == ["a"]
    assert "version is a number beyond 64 bits" in str(listing.refused[0])


def test_a_refusal_names_item_field_finding_expectation_and_mending() -> None:
    (error,) = configs(
        config("a"), {**config("summarizer"), "variants": [{"model": "m", "weight": math.nan}]}
    ).refused
    assert error.item == "configs[1] 'summarizer'"
    assert str(error) == (
        "configs[1] 'summarizer': variants[0].weight is nan; expected a finite number of at least 0, "
        "in percent (12.5 or '12.5'). Correct it where it is edited; until then what was known of it "
        "before is served."
    )


BAD_CONFIGS: list[tuple[dict[str, Any], str]] = [
    ({"key": None}, "key is null"),
    ({"key": ""}, "key is an empty text"),
    ({"key": 5}, "key is 5"),
    ({"salt": 5}, "salt is 5"),
    ({"salt": "s" * 201}, "salt is a text of 201 characters"),
    ({"salt": "a\0b"}, "salt is a text of 3 characters with a NUL"),
    ({"salt": "\ud800"}, "salt is not valid Unicode"),
    ({"key": "k" * 1025}, "key is a text of 1025 characters"),
    ({"key": "\ud800"}, "key is not valid Unicode"),
    ({"version": True}, "version is true"),
    ({"version": "2"}, "version is '2'"),
    ({"version": 2.0}, "version is 2.0"),
    ({"version": None}, "version is null"),
    ({"version": -1}, "version is -1"),
    ({"version": 1 << 63}, "version is 9223372036854775808"),
    ({"version": 1 << 5000}, "version is a number beyond 64 bits"),
    ({"variants": []}, "variants is empty"),
    ({"variants": {}}, "variants is empty"),
    ({"variants": None}, "variants is null"),
    ({"variants": "a"}, "variants is 'a'"),
    ({"variants": VARIANTS * 501}, "variants is a list of 1002"),
    ({"variants": ["a"]}, "variants[0] is 'a'"),
    ({"variants": [{"model": "a"}]}, "variants[0].weight is null"),
    ({"variants": [{"weight": 5}]}, "variants[0].model is null"),
    ({"variants": [{"model": "", "weight": 5}]}, "variants[0].model is an empty text"),
    *(
        (
            {"variants": [*VARIANTS, {"model": "a", "weight": weight}]},
            f"variants[2].weight is {shown}",
        )
        for weight, shown in [
            (math.nan, "nan"),
            (math.inf, "inf"),
            (-1, "-1"),
            (-0.01, "-0.01"),
            (True, "true"),
            ("half", "'half'"),
            ("nan", "'nan'"),
            ("", "an empty text"),
            ([50], "a list"),
            (10**400, "a number beyond 64 bits"),
        ]
    ),
    ({"targeting": "everyone"}, "targeting is 'everyone'"),
    ({"targeting": []}, "targeting is a list"),
    ({"targeting": {"rules": {}}}, "targeting.rules is an object"),
    ({"targeting": {"individualTargets": 5}}, "targeting.individualTargets is 5"),
    ({"targeting": {"rules": [5]}}, "targeting.rules[0] is 5"),
    ({"targeting": {"rules": [{}]}}, "targeting.rules[0].variantIndex is null"),
    (
        {"targeting": {"rules": [{"variantIndex": True}]}},
        "targeting.rules[0].variantIndex is true",
    ),
    (
        {"targeting": {"individualTargets": [{"value": 1, "variantIndex": 0}]}},
        "targeting.individualTargets[0].field is null",
    ),
    (
        {"targeting": {"rules": [{"conditions": [{"field": "a"}], "variantIndex": 0}]}},
        "targeting.rules[0].conditions[0].operator is null",
    ),
    (
        {"targeting": {"individualTargets": [{"field": "a", "value": 1 << 70, "variantIndex": 0}]}},
        "a value cannot be stored",
    ),
]


@pytest.mark.parametrize(("change", "finding"), BAD_CONFIGS, ids=[f for _, f in BAD_CONFIGS])
def test_a_bad_config_is_refused(change: dict[str, Any], finding: str) -> None:
    listing = configs({**config("k"), **change})
    assert listing.entries == ()
    assert finding in str(listing.refused[0])
    assert "expected" in str(listing.refused[0])


def deep(levels: int) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = [value]
    return value


def test_a_value_of_huge_depth_refuses_its_item_and_no_other() -> None:
    targets = [{"field": "a", "value": deep(500), "variantIndex": 0}]
    bad = {**config("bad"), "targeting": {"individualTargets": targets}}
    listing = configs(bad, config("good"))
    assert [entry.key for entry in listing.entries] == ["good"]
    assert "nested deeper than 16 levels" in str(listing.refused[0])


def test_a_document_of_huge_depth_is_refused_whole() -> None:
    with pytest.raises(PayloadError, match="nested too deeply"):
        parse_json(b"[" * 200_000 + b"]" * 200_000, "GET /configs")


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff\xfe\x00", b"{", b"1" * 5000])
def test_what_is_not_json_is_one_error_that_says_where_it_came_from(body: bytes) -> None:
    with pytest.raises(PayloadError) as caught:
        read_listing(Kind.CONFIG, parse_json(body, "GET https://example.com/configs"))
    assert caught.value.item in ("GET https://example.com/configs", "configs")
    assert "expected" in str(caught.value)


@pytest.mark.parametrize(
    ("payload", "finding"),
    [
        ([], "is a list"),
        (None, "is null"),
        ({}, "an object whose configs is missing"),
        ({"configs": None}, "an object whose configs is null"),
        ({"configs": {}}, "an object whose configs is an object"),
        ({"Configs": []}, "an object whose configs is missing"),
    ],
)
def test_another_document_is_one_error(payload: Any, finding: str) -> None:
    with pytest.raises(PayloadError, match=finding):
        read_listing(Kind.CONFIG, payload)


def test_variants_may_be_an_object_and_weights_texts() -> None:
    variants = {"z": {"model": "first", "weight": "25.5"}, "a": {"model": "second", "weight": 74.5}}
    (entry,) = configs({**config("k"), "variants": variants}).entries
    compiled = decode_entry(entry.data)
    assert isinstance(compiled, CompiledConfig)
    assert compiled.models == ("first", "second")
    assert compiled.thresholds == (255_000, 1_000_000)


def test_fields_that_are_not_known_change_nothing() -> None:
    plain, newer = config("k"), {**config("k"), "seed": "x", "shards": [1]}
    newer["variants"] = [{**newer["variants"][0], "temperature": 0.5}]
    assert configs(plain).entries == configs(newer).entries


def test_salt_is_kept_and_none_is_none() -> None:
    (salted,) = configs({**config("k"), "salt": "spring"}).entries
    compiled = decode_entry(salted.data)
    assert isinstance(compiled, CompiledConfig)
    assert compiled.salt == b"spring\0"
    for none in (None, ""):
        assert configs({**config("k"), "salt": none}).entries == configs(config("k")).entries


def test_defaults_are_those_of_the_published_sdks() -> None:
    (entry,) = configs({"key": "k", "variants": VARIANTS}).entries
    assert entry.version == 1


@pytest.mark.parametrize(
    "targeting",
    [
        None,
        {},
        {"enabled": False, "rules": "not even looked at"},
        {"individualTargets": None, "rules": None},
        {"rules": []},
    ],
)
def test_targeting_that_targets_nobody_leaves_the_weights(targeting: Any) -> None:
    (entry,) = configs({**config("k"), "targeting": targeting}).entries
    compiled = decode_entry(entry.data)
    assert isinstance(compiled, CompiledConfig)
    assert compiled.targeting is None


@pytest.mark.parametrize("index", [2, 99, -1])
def test_a_variant_index_out_of_range_is_noted_and_never_used(index: int) -> None:
    rules = [{"conditions": [], "variantIndex": index}]
    listing = configs({"key": "k", "variants": VARIANTS, "targeting": {"rules": rules}})
    (note,) = listing.notes
    assert f"targeting.rules[0].variantIndex is {index}, and there are 2 variants" in note
    compiled = decode_entry(listing.entries[0].data)
    assert isinstance(compiled, CompiledConfig)
    assert choose(compiled, "session-123") == 0


def test_an_operator_that_is_not_known_is_noted() -> None:
    conditions = [{"field": "age", "operator": "gt", "value": 5}]
    rules = [{"conditions": conditions, "variantIndex": 0}]
    listing = configs({**config("k"), "targeting": {"rules": rules}})
    assert "conditions[0].operator is 'gt', which never matches" in listing.notes[0]
    assert len(listing.entries) == 1


@pytest.mark.parametrize(
    ("weights", "finding"),
    [
        (
            [0.5, 0.5],
            "sum to 1, like fractions; they are percentages: the last variant gets 99.5 %",
        ),
        ([25, 25], "sum to 50, not 100: the last variant gets 75 %"),
        ([80, 40], "sum to 120, not 100: beyond 100 nobody is reached"),
        ([0, 0], "sum to 0, not 100: the last variant gets 100 %"),
        ([1e308, 1e308, 1e308], "sum to inf, not 100: beyond 100 nobody is reached"),
        ([50, 50], ""),
        ([33.33, 33.33, 33.34], ""),
        ([1], ""),
    ],
)
def test_weights_that_are_hardly_meant_serve_and_give_a_note(
    weights: list[float], finding: str
) -> None:
    variants = [{"model": str(i), "weight": weight} for i, weight in enumerate(weights)]
    listing = configs({"key": "k", "variants": variants})
    assert len(listing.entries) == 1
    assert [finding in note for note in listing.notes] == ([True] if finding else [])


def test_the_same_version_with_other_content_is_refused() -> None:
    listing = configs(config("k", 1, "a"), config("k", 1, "b"), config("k", 1, "a"))
    assert [entry.hash for entry in listing.entries] == [
        configs(config("k", 1, "a")).entries[0].hash
    ]
    assert "listed before as version 1 with other content" in str(listing.refused[0])
    assert len(listing.refused) == 1


def test_of_two_versions_of_a_key_the_last_is_current_and_it_is_noted() -> None:
    listing = configs(config("k", 2), config("k", 1))
    assert [entry.version for entry in listing.entries] == [2, 1]
    assert "is listed again; version 1 is its current one" in listing.notes[0]


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ({"system_prompt": 5}, "system_prompt is 5"),
        ({"user_template": ["x"]}, "user_template is a list"),
        ({"system_prompt": None, "user_template": None}, "is without text"),
        ({"version": "1"}, "version is '1'"),
        ({"system_prompt": "x" * (9 << 20)}, "bytes long; expected at most"),
        ({"messages": "x"}, "messages is 'x'; expected a list"),
        ({"messages": ["x"]}, "messages[0] is 'x'; expected an object"),
        ({"messages": [{"content": "x"}]}, "messages[0].role is null; expected one of system, dev"),
        ({"messages": [MESSAGE, {"role": "x", "content": "x"}]}, "messages[1].role is 'x'"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "messages[0].role is a list"),
        ({"messages": [{"role": "user"}]}, "messages[0].content is null; expected text"),
        ({"messages": [{"role": "user", "content": [MESSAGE]}]}, "content is a list"),
        ({"messages": [MESSAGE] * 1001}, "messages is a list of 1001; expected at most 1000"),
    ],
)
def test_a_bad_prompt_is_refused(change: dict[str, Any], finding: str) -> None:
    listing = prompts({**prompt("k"), **change})
    assert listing.entries == ()
    assert finding in str(listing.refused[0])


def test_no_message_holds_a_prompts_text_or_a_targets_value() -> None:
    secret = "the-secret"
    targets = [{"field": "email", "value": secret, "variantIndex": "x"}]
    refused = [
        *prompts({"key": "k", "system_prompt": secret, "user_template": 5}).refused,
        *prompts({"system_prompt": secret, "user_template": secret}).refused,
        *prompts({"key": "k", "messages": [{"role": 5, "content": secret}]}).refused,
        *configs({**config("k"), "targeting": {"individualTargets": targets}}).refused,
    ]
    assert len(refused) == 4
    assert not any(secret in str(error) for error in refused)


def test_prompt_of_messages_alone_is_served_and_no_messages_are_none() -> None:
    (entry,) = prompts({"key": "k", "messages": [{**MESSAGE, "id": 5}]}).entries
    compiled = decode_entry(entry.data)
    assert isinstance(compiled, CompiledPrompt)
    assert [(role, template.text) for role, template in compiled.chat] == [("user", "the text")]
    for none in (None, []):
        assert prompts({**prompt("k"), "messages": none}).entries == prompts(prompt("k")).entries
    (refused,) = prompts({"key": "k", "messages": []}).refused
    assert "expected a system_prompt, a user_template or messages" in str(refused)


def test_bad_message_of_one_prompt_leaves_the_others() -> None:
    bad = {"key": "bad", "messages": [{"role": "user", "content": 5}]}
    listing = prompts(prompt("a"), bad, prompt("b"))
    assert [entry.key for entry in listing.entries] == ["a", "b"]
    assert listing.listed == {"a", "bad", "b"}


def test_one_text_of_a_prompt_may_be_missing() -> None:
    (entry,) = prompts({"key": "k", "system_prompt": "a \ud800 {{b}}"}).entries
    compiled = decode_entry(entry.data)
    assert isinstance(compiled, CompiledPrompt)
    assert (compiled.system.text, compiled.user.text) == ("a \ud800 {{b}}", "")


@pytest.mark.parametrize(
    ("variant", "finding"),
    [
        ({"prompt_key": None, "weight": 5}, "variants[0].prompt_key is null"),
        ({"prompt_key": "p", "prompt_version": "1", "weight": 5}, "prompt_version is '1'"),
        ({"prompt_key": "p", "weight": None}, "weight is null"),
        (5, "variants[0] is 5"),
    ],
)
def test_a_bad_ab_test_is_refused(variant: Any, finding: str) -> None:
    (error,) = ab_tests({"key": "t", "variants": [variant]}).refused
    assert finding in str(error)


def test_an_ab_test_keeps_pinned_and_current_prompts_apart() -> None:
    variants = [
        {"prompt_key": "a", "prompt_version": 3, "weight": 50},
        {"prompt_key": "b", "weight": 50},
    ]
    (entry,) = ab_tests({"key": "t", "variants": variants}).entries
    compiled = decode_entry(entry.data)
    assert isinstance(compiled, CompiledTest)
    assert compiled.variants == (("a", 3), ("b", None))


def test_a_bare_config_is_the_one_that_was_asked_for() -> None:
    assert read_config(config("k", 3), "k", 3).version == 3
    assert read_config({"variants": VARIANTS}, "k", 3).key == "k"
    for payload in (config("k", 4), config("other", 3)):
        with pytest.raises(PayloadError, match="expected what was asked for"):
            read_config(payload, "k", 3)
    with pytest.raises(PayloadError, match="is a list; expected an object"):
        read_config([], "k", 3)


_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.one_of(
                st.text(max_size=3),
                st.sampled_from(
                    "key version variants model weight targeting enabled rules conditions field "
                    "operator value variantIndex individualTargets prompt_key system_prompt messages role "
                    "content".split()
                ),
            ),
            inner,
            max_size=6,
        ),
    ),
    max_leaves=30,
)


@given(st.sampled_from(list(Kind)), st.lists(_JSON, max_size=4))
def test_whatever_json_the_server_sends_only_items_are_refused(
    kind: Kind, items: list[Any]
) -> None:
    name = {Kind.CONFIG: "configs", Kind.PROMPT: "prompts", Kind.AB_TEST: "prompt_ab_tests"}[kind]
    document = json.loads(json.dumps({name: items}))
    listing = read_listing(kind, document)
    assert len(listing.entries) + len(listing.refused) <= len(items)
    for entry in listing.entries:
        decode_entry(entry.data)
    for error in listing.refused:
        assert str(error).isprintable()


@given(_JSON)
def test_a_good_config_stays_good_whatever_stands_in_one_of_its_fields(value: Any) -> None:
    value = json.loads(json.dumps(value))
    for field in ("key", "version", "variants", "targeting"):
        listing = configs({**config("k"), field: value}, config("neighbour"))
        assert listing.entries[-1].key == "neighbour"
