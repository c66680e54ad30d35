"""Who we are, to each server: the API key, or the headers that its owner was told to send.

The key is a secret between the user and the backend of configs and prompts. It goes to another host with
the spans only where the user gave that host nothing else to know us by.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from fallom._core.settings import Settings, is_hosted

__all__ = ["key_headers", "traces_headers"]


def key_headers(settings: Settings) -> dict[str, str]:
    """Give the headers for the backend of configs, prompts and exposures."""
    return {"Authorization": f"Bearer {settings.api_key}"} if settings.api_key else {}


def traces_headers(settings: Settings) -> dict[str, str]:
    """Give the headers for ``traces_url``; those of the user win over the key."""
    given = settings.traces_headers
    if not given:
        return key_headers(settings)
    if not _is_of_the_key(settings) or "authorization" in {name.lower() for name in given}:
        return dict(given)
    return {**key_headers(settings), **given}


def _is_of_the_key(settings: Settings) -> bool:
    """Tell whether spans go to whom the key is for: the hosted service, or the host of the configs."""
    url = settings.traces_url
    return is_hosted(url) or urlsplit(url).hostname == urlsplit(settings.configs_url).hostname
