"""The errors of fallom, for ``except`` clauses. See ``FallomError`` for the tree."""

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

__all__ = [
    "ConfigurationError",
    "FallomError",
    "MissingVariableError",
    "NoSessionError",
    "NotFoundError",
    "PayloadError",
    "StateDirectoryError",
    "UnknownParameterError",
]
