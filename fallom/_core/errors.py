"""The errors that fallom raises, and nothing else raises.

    FallomError
    ├── ConfigurationError (ValueError)        a setting or environment variable
    │   ├── UnknownParameterError (TypeError)  a keyword that ``init`` does not have
    │   └── StateDirectoryError (OSError)      a directory that cannot be used safely
    ├── MissingVariableError (ValueError)      a prompt's placeholder without a value, where that is refused
    ├── NoSessionError (ValueError)            a call that needs a session and has none
    ├── NotFoundError (LookupError, ValueError)  a config, prompt or test that is not known
    └── PayloadError (ValueError)              one item of a payload that cannot be served

Every message says what was wrong, where it came in, what was expected and how to mend it; none
holds a key or the text of a prompt.
"""

from __future__ import annotations

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


class FallomError(Exception):
    """The root of every error that fallom raises itself."""


class ConfigurationError(FallomError, ValueError):
    """A setting that cannot be used.

    Attributes:
        name: The parameter or environment variable that was wrong.
    """

    def __init__(self, message: str, name: str = "") -> None:
        super().__init__(message)
        self.name = name

    def __reduce__(self) -> tuple[type[ConfigurationError], tuple[str, str]]:
        return type(self), (str(self), self.name)


class UnknownParameterError(ConfigurationError, TypeError):
    """A keyword argument that ``fallom.init`` does not have."""


class StateDirectoryError(ConfigurationError, OSError):
    """A state directory that cannot be made safe."""

    def __str__(self) -> str:  # OSError would print its errno form
        return str(self.args[0])


class MissingVariableError(FallomError, ValueError):
    """A placeholder of a prompt that has no value, where the call asked for an error.

    Attributes:
        key: The prompt's key.
        missing: The names without a value.
        unused: The names of variables that no placeholder took.
    """

    def __init__(
        self,
        message: str,
        key: str = "",
        missing: tuple[str, ...] = (),
        unused: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.key = key
        self.missing = missing
        self.unused = unused

    def __reduce__(
        self,
    ) -> tuple[type[MissingVariableError], tuple[str, str, tuple[str, ...], tuple[str, ...]]]:
        return type(self), (str(self), self.key, self.missing, self.unused)


class NoSessionError(FallomError, ValueError):
    """A call that needs a session: neither given, nor set in this context."""


class NotFoundError(FallomError, LookupError, ValueError):
    """A config, prompt or A/B test that is not known, where no fallback was given.

    Attributes:
        key: The key that was asked for.
        version: The version that was asked for, None for the current one.
    """

    def __init__(self, message: str, key: str = "", version: int | None = None) -> None:
        super().__init__(message)
        self.key = key
        self.version = version

    def __reduce__(self) -> tuple[type[NotFoundError], tuple[str, str, int | None]]:
        return type(self), (str(self), self.key, self.version)


class PayloadError(FallomError, ValueError):
    """One item of a payload from the server that cannot be served; the others are.

    Attributes:
        item: What the item calls itself, for example ``configs[3] 'summarizer'``.
    """

    def __init__(self, message: str, item: str = "") -> None:
        super().__init__(message)
        self.item = item

    def __reduce__(self) -> tuple[type[PayloadError], tuple[str, str]]:
        return type(self), (str(self), self.item)
