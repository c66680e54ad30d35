"""Changing some of the settings: the modules' own ``init`` of the releases before 0.3."""

from __future__ import annotations

import logging
import os
from typing import Any

from fallom._core.settings import PARAMETERS, resolve_settings
from fallom._runtime import current, start

__all__ = ["change_settings"]

_logger = logging.getLogger("fallom")


def change_settings(**arguments: Any) -> None:
    """Have settings hold from now on; those that are None stay as they are.

    Raises:
        ConfigurationError: A value that cannot be used.
    """
    given = {name: value for name, value in arguments.items() if value is not None}
    checked = resolve_settings(given, os.environ)
    fields = [PARAMETERS[name][0] for name in given]
    changes = {field: getattr(checked, field) for field in fields}
    before = current()
    runtime = start(before.settings.replaced(**changes), shipped=before.snapshot.bootstrap)
    if runtime.settings.debug:
        _logger.setLevel(logging.DEBUG)
    runtime.look()
