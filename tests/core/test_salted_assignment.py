"""Experiments of their own buckets: the rule to the bit, and that they are independent of each other."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallom._core import assignment
from fallom._core.assignment import (
    CompiledConfig,
    CompiledTest,
    PromptVariant,
    bucket_of,
    choose,
    choose_prompt,
    compile_salt,
    compile_thresholds,
    explain,
)

DOCUMENT = assignment.__doc__ or ""
VECTORS = re.findall(
    r"^\| (\S+|\(none\)) \| (\S+) \| ([0-9a-f]{8}) \| (\d+) \|$", DOCUMENT, re.MULTILINE
)
HALVES = compile_thresholds([50, 50])
SESSIONS = [f"session-{number}" for number in range(10_000)]


def salted(salt: str) -> CompiledConfig:
    return CompiledConfig("k", 1, ("a", "b"), HALVES, None, compile_salt(salt))


def test_the_document_has_vectors() -> None:
    assert len(VECTORS) == 5


@pytest.mark.parametrize(("salt", "session_id", "hash_start", "bucket"), VECTORS)
def test_vectors_of_the_document_hold(
    salt: str, session_id: str, hash_start: str, bucket: str
) -> None:
    prefix = compile_salt("" if salt == "(none)" else salt)
    assert int(hash_start, 16) % 1_000_000 == int(bucket)
    assert bucket_of(session_id, prefix) == int(bucket)


def test_config_test_and_explanation_go_by_the_salt() -> None:
    config = salted("checkout")
    test = CompiledTest(
        "t", 1, (PromptVariant("p", None), PromptVariant("q", None)), HALVES, config.salt
    )
    for session_id in SESSIONS[:100]:
        expected = int(bucket_of(session_id, b"checkout\0") >= 500_000)
        assert choose(config, session_id) == choose_prompt(test, session_id) == expected
        assert explain(config, session_id).index == expected
        assert explain(config, session_id).bucket == bucket_of(session_id, b"checkout\0")


def pairs(one: CompiledConfig, other: CompiledConfig) -> Counter[tuple[int, int]]:
    return Counter((choose(one, each), choose(other, each)) for each in SESSIONS)


def chi_square(found: Counter[tuple[int, int]]) -> float:
    """The statistic of independence, of one degree of freedom."""
    total = sum(found.values())
    rows = Counter({row: sum(found[row, column] for column in (0, 1)) for row in (0, 1)})
    columns = Counter({column: sum(found[row, column] for row in (0, 1)) for column in (0, 1)})
    return sum(
        (found[row, column] - rows[row] * columns[column] / total) ** 2
        / (rows[row] * columns[column] / total)
        for row in (0, 1)
        for column in (0, 1)
    )


def test_without_salt_every_experiment_splits_the_sessions_alike() -> None:
    found = pairs(salted(""), salted(""))
    assert set(found) == {(0, 0), (1, 1)}


@pytest.mark.parametrize(("one", "other"), [("", "a"), ("a", "b"), ("checkout", "checkout2")])
def test_salts_make_experiments_independent(one: str, other: str) -> None:
    assert chi_square(pairs(salted(one), salted(other))) < 10.83  # p = 0.001


def test_the_same_salt_keeps_experiments_together() -> None:
    assert set(pairs(salted("s"), salted("s"))) == {(0, 0), (1, 1)}


_SALTS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=5)


@given(_SALTS, st.text(max_size=5), _SALTS, st.text(max_size=5))
def test_no_two_pairs_are_hashed_alike(one: str, s: str, other: str, t: str) -> None:
    def hashed(salt: str, session_id: str) -> bytes:
        return compile_salt(salt) + session_id.encode("utf-8", "surrogatepass")

    if one and other and (one, s) != (other, t):
        assert hashed(one, s) != hashed(other, t)
