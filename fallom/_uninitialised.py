"""What holds where ``init`` was never called: what the environment says."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from fallom._core.errors import FallomError
from fallom._core.settings import Settings, resolve_settings

if TYPE_CHECKING:
    from fallom._snapshot.bootstrap import Bootstrap

__all__ = ["settings_here"]

_logger = logging.getLogger("fallom")


def settings_here(environ: Mapping[str, str]) -> tuple[Settings, Bootstrap | None]:
    """Give the settings of the environment, and the snapshot that it says is shipped. Never raises.

    Where it cannot be used nothing is sent, and no content is recorded: it may have asked for that.
    """
    try:
        settings = resolve_settings({}, environ)
        if settings.bootstrap is None:
            return settings, None
        from fallom._snapshot.bootstrap import read_bootstrap  # of those who ship one

        return settings, read_bootstrap(settings.bootstrap)
    except FallomError as error:
        told = "fallom: %s Until init() is called, nothing is sent and no content is recorded."
        _logger.warning(told, error)
        return Settings(flusher="external", capture_content=False), None
