"""fallom: model A/B testing, prompt management and loss-free tracing for LLM applications.

    import fallom

    fallom.init(api_key="...")
    session = fallom.session(config_key="my-app", session_id="session-123")
    client = session.wrap_openai(OpenAI())

Inside an application's process there is no thread, no socket, no timer, no signal handler and no exit
hook of fallom's. One elected process per host talks to the network.
"""

import importlib as _importlib
import logging as _logging
import typing as _typing

from fallom import exceptions, models, prompts, trace
from fallom._face import aflush, flush, init, shutdown, status, wait_until_ready
from fallom._version import __version__
from fallom.exceptions import ConfigurationError, FallomError, NotFoundError
from fallom.models import Explanation
from fallom.prompts import PromptResult
from fallom.session import FallomSession, session

__all__ = [
    "ConfigurationError",
    "Explanation",
    "FallomError",
    "FallomSession",
    "NotFoundError",
    "PromptResult",
    "__version__",
    "aflush",
    "exceptions",
    "flush",
    "init",
    "models",
    "prompts",
    "session",
    "shutdown",
    "status",
    "trace",
    "wait_until_ready",
]

_logging.getLogger("fallom").addHandler(_logging.NullHandler())

if not _typing.TYPE_CHECKING:  # or a type checker would take every name for one of this module

    def __getattr__(name: str) -> object:
        """Say what to use instead of ``fallom.evals``: by the ImportError that its module raises."""
        if name == "evals":
            _importlib.import_module("fallom.evals")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
