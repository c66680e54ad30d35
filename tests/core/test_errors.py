"""The tree of errors: what each of them also is, and what it keeps on its way through a pickle."""

from __future__ import annotations

import pickle
import re

import pytest

from fallom._core import errors
from fallom._core.errors import (
    ConfigurationError,
    FallomError,
    MissingVariableError,
    NoSessionError,
    NotFoundError,
    PayloadError,
    StateDirectoryError,
    UnknownParameterError,
)

EXAMPLES: list[tuple[FallomError, tuple[type, ...], dict[str, object]]] = [
    (FallomError("text"), (Exception,), {}),
    (ConfigurationError("text", "debug"), (FallomError, ValueError), {"name": "debug"}),
    (UnknownParameterError("text", "x"), (ConfigurationError, TypeError), {"name": "x"}),
    (
        StateDirectoryError("text", "state_dir"),
        (ConfigurationError, OSError),
        {"name": "state_dir"},
    ),
    (
        MissingVariableError("text", "key", ("a",), ("b",)),
        (FallomError, ValueError),
        {"key": "key", "missing": ("a",), "unused": ("b",)},
    ),
    (NoSessionError("text"), (FallomError, ValueError), {}),
    (NotFoundError("text", "key", 3), (LookupError, ValueError), {"key": "key", "version": 3}),
    (PayloadError("text", "configs[3]"), (FallomError, ValueError), {"item": "configs[3]"}),
]


@pytest.mark.parametrize(
    ("error", "bases", "facts"), EXAMPLES, ids=lambda value: type(value).__name__
)
def test_an_error_is_what_its_callers_expect_and_keeps_its_facts(
    error: FallomError, bases: tuple[type, ...], facts: dict[str, object]
) -> None:
    for found in (error, pickle.loads(pickle.dumps(error))):
        assert type(found) is type(error)
        assert isinstance(found, (FallomError, *bases))
        assert all(isinstance(found, base) for base in bases)
        assert str(found) == "text"
        assert {name: getattr(found, name) for name in facts} == facts


def test_the_facts_may_be_left_out() -> None:
    assert ConfigurationError("text").name == ""
    assert (NotFoundError("text").key, NotFoundError("text").version) == ("", None)
    assert PayloadError("text").item == ""


def test_the_document_draws_the_tree_that_there_is() -> None:
    assert errors.__doc__ is not None
    drawn = set(re.findall(r"\b([A-Z]\w+Error) \(", errors.__doc__)) | {"FallomError"}
    assert drawn == set(errors.__all__)
    assert {type(error).__name__ for error, _, _ in EXAMPLES} == drawn


def test_a_state_directory_error_is_caught_as_what_it_says() -> None:
    with pytest.raises(OSError, match="text"):
        raise StateDirectoryError("text", "state_dir")
