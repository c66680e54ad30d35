from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallom._core import digest
from fallom._core.assignment import (
    BUCKETS,
    Assignment,
    CompiledConfig,
    CompiledTest,
    PromptVariant,
    bucket_of,
    choose,
    choose_prompt,
    compile_thresholds,
    explain,
)
from fallom._core.targeting import compile_targeting

W1 = (("gpt-4o", 50), ("claude", 30), ("mini", 20))
W2 = (("a", 0.01), ("b", 49.99), ("c", 50))
W3 = (("x", 25), ("y", 25))

VECTORS = [
    ("session-123", 5516, "gpt-4o", "b", "x"),
    ("user-456", 237785, "gpt-4o", "b", "x"),
    ("conv-1", 3733, "gpt-4o", "b", "x"),
    ("user123-convo456", 616989, "claude", "c", "y"),
    ("", 706393, "claude", "c", "y"),
    ("0", 326916, "gpt-4o", "b", "y"),
    ("日本語-セッション", 926897, "mini", "c", "y"),
    ("caf\u00e9", 587364, "claude", "c", "y"),
    ("s1549316", 0, "gpt-4o", "a", "x"),
    ("s158461", 99, "gpt-4o", "a", "x"),
    ("s1145620", 100, "gpt-4o", "b", "x"),
    ("s693936", 500000, "claude", "c", "y"),
    ("s2302289", 499999, "gpt-4o", "b", "y"),
    ("s124353", 999999, "mini", "c", "y"),
    ("s194430", 250000, "gpt-4o", "b", "y"),
    ("x" * 1000, 30868, "gpt-4o", "b", "x"),
    ("00000000-0000-0000-0000-000000000000", 607050, "claude", "c", "y"),
]


def literal_walk(weights: Sequence[float | str], bucket: int) -> int:
    """The rule of the published SDKs, word for word."""
    cumulative = 0.0
    for index, weight in enumerate(weights):
        cumulative += float(weight) * 10000
        if bucket < cumulative:
            return index
    return len(weights) - 1


def config_of(variants: Sequence[tuple[str, float]]) -> CompiledConfig:
    weights = [weight for _, weight in variants]
    return CompiledConfig("k", 1, tuple(m for m, _ in variants), compile_thresholds(weights))


@pytest.mark.parametrize(("session_id", "bucket", "w1", "w2", "w3"), VECTORS)
def test_sessions_get_what_every_other_sdk_gives_them(
    session_id: str, bucket: int, w1: str, w2: str, w3: str
) -> None:
    assert bucket_of(session_id) == bucket
    for variants, model in ((W1, w1), (W2, w2), (W3, w3)):
        config = config_of(variants)
        assert config.models[choose(config, session_id)] == model


def test_the_four_bytes_of_the_hash_are_those_that_the_rule_names() -> None:
    assert hashlib.md5(b"session-123").hexdigest().startswith("79c5ca4c")
    assert bucket_of("session-123") == 0x79C5CA4C % 1_000_000


@given(
    st.lists(
        st.one_of(
            st.floats(0, 100),
            st.floats(-100, 200),
            st.integers(0, 100),
            st.decimals(0, 100, places=2).map(str),
            st.just(0.01),
            st.sampled_from([math.nan, math.inf, -math.inf, 1e300, 5e-324]),
        ),
        min_size=1,
        max_size=12,
    ),
    st.data(),
)
def test_bisection_gives_what_the_literal_walk_gives(
    weights: list[float | str], data: st.DataObject
) -> None:
    thresholds = compile_thresholds([float(weight) for weight in weights])
    config = CompiledConfig("k", 1, tuple("m" * len(weights)), thresholds)
    near_edges = [
        min(max(edge + step, 0), BUCKETS - 1) for edge in thresholds for step in (-1, 0, 1)
    ]
    some = data.draw(st.lists(st.integers(0, BUCKETS - 1), max_size=5))
    for bucket in [*near_edges, *some, 0, BUCKETS - 1]:
        session_bucket = _SessionOfBucket(bucket)
        assert choose(config, session_bucket) == literal_walk(weights, bucket)


class _SessionOfBucket(str):
    """A session id whose hash is chosen, so that every edge is met."""

    bucket: int

    def __new__(cls, bucket: int) -> _SessionOfBucket:
        self = super().__new__(cls, str(bucket))
        self.bucket = bucket
        return self


@pytest.fixture(autouse=True)
def _chosen_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    from fallom._core import assignment

    def bucket(session_id: str, salt: bytes) -> int:
        if isinstance(session_id, _SessionOfBucket):
            return session_id.bucket
        return bucket_of(session_id, salt)

    monkeypatch.setattr(assignment, "bucket_of", bucket)


@pytest.mark.parametrize(
    "weights", [[50, 30, 20], [0.01, 49.99, 50], [33.33, 33.33, 33.34], [1] * 100]
)
def test_a_hundred_thousand_sessions_are_shared_as_the_weights_say(weights: list[float]) -> None:
    config = config_of([(str(i), w) for i, w in enumerate(weights)])
    sessions = 100_000
    seen = [0] * len(weights)
    for number in range(sessions):
        seen[choose(config, f"session-{number}")] += 1
    expected = [sessions * weight / 100 for weight in weights]
    chi_square = sum((s - e) ** 2 / e for s, e in zip(seen, expected, strict=True))
    freedom = len(weights) - 1
    # Wilson and Hilferty's approximation; z = 3.7 is passed by one in 10,000 fair assignments.
    critical = freedom * (1 - 2 / (9 * freedom) + 3.7 * math.sqrt(2 / (9 * freedom))) ** 3
    assert chi_square < critical


@given(st.text(), st.text())
def test_a_session_always_has_the_same_bucket_and_it_is_one(one: str, other: str) -> None:
    assert bucket_of(one) == bucket_of(one)
    assert 0 <= bucket_of(one) < BUCKETS
    if one == other:
        assert bucket_of(one) == bucket_of(other)


def test_lone_surrogates_in_a_session_id_have_a_bucket() -> None:
    assert bucket_of("\ud800") == bucket_of("\ud800")
    assert bucket_of("\ud800") != bucket_of("\udfff")


def test_targeting_comes_before_weights_and_says_so() -> None:
    targeting = compile_targeting(
        [("customerId", "vip", 1)], [([("plan", "eq", "pro")], 0), ([("region", "eq", "eu")], 1)]
    )
    config = CompiledConfig("k", 1, ("a", "b", "c"), compile_thresholds([0, 0, 100]), targeting)
    bucket = bucket_of("session-123")
    assert explain(config, "session-123", "vip") == Assignment(
        model="b", index=1, bucket=bucket, reason="individual_target"
    )
    assert explain(config, "session-123", None, {"plan": "pro"}).reason == "rule:0"
    assert explain(config, "session-123", None, {"region": "eu"}).reason == "rule:1"
    assert explain(config, "session-123") == Assignment(
        model="c", index=2, bucket=bucket, reason="weight"
    )


@pytest.mark.parametrize("index", [3, 99, -1, -3])
def test_a_target_without_such_a_variant_falls_through_to_the_weights(index: int) -> None:
    targeting = compile_targeting(
        [("customerId", "vip", index)], [([], 0)]
    )  # the rule matches everyone, and is not asked: the first match decided
    config = CompiledConfig("k", 1, ("a", "b", "c"), compile_thresholds([0, 0, 100]), targeting)
    assert choose(config, "s", "vip") == 2
    assert explain(config, "s", "vip").reason == "weight"
    assert choose(config, "s") == 0


@given(st.text(), st.one_of(st.none(), st.text()), st.dictionaries(st.text(), st.integers()))
def test_choose_and_explain_agree(
    session_id: str, customer_id: str | None, context: dict[str, int]
) -> None:
    targeting = compile_targeting([("customerId", "", 0)], [([("a", "neq", 0)], 1)])
    config = CompiledConfig("k", 1, ("a", "b", "c"), compile_thresholds([1, 2, 97]), targeting)
    told = explain(config, session_id, customer_id, context)
    assert choose(config, session_id, customer_id, context) == told.index
    assert config.models[told.index] == told.model


def test_prompt_tests_walk_like_configs() -> None:
    variants = (PromptVariant("a", None), PromptVariant("b", 2), PromptVariant("c", None))
    test = CompiledTest("t", 1, variants, compile_thresholds([0.01, 49.99, 50]))
    for session_id, _, _, w2, _ in VECTORS:
        assert test.variants[choose_prompt(test, session_id)].prompt_key == w2


@given(st.binary(max_size=200))
def test_the_interpreters_own_hashes_are_those_of_hashlib(data: bytes) -> None:
    for name in digest.__all__:
        assert getattr(digest, name)(data).digest() == getattr(hashlib, name)(data).digest()
