"""The masks that are known by name: ``fallom.masks``, and what ``ship_masks`` may say."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

__all__ = ["BY_NAME", "api_keys", "compose", "data_urls", "email_addresses"]

# Each pattern begins where a word does and takes it whole, so that the time is linear in the text.
_DATA_URL = re.compile(r"\bdata:[\w.+/-]{0,128}(?:;[\w.+=-]{1,128}){0,8},[^\s\"'<>)\]}]*")
_EMAIL = re.compile(r"(?<![\w.+%-])[\w.+%-]+@[\w-]+(?:\.[\w-]+)+")
_KEYS = re.compile(
    r"""
    (?<![\w-])(?:
      sk-[\w-]{16,}                                       # OpenAI, Anthropic, OpenRouter
    | (?:sk|pk|rk)_(?:live|test)_\w{16,}                  # Stripe
    | AIza[\w-]{30,}                                      # Google
    | (?:AKIA|ASIA)[A-Z0-9]{16}                           # AWS
    | gh[pousr]_\w{20,} | github_pat_\w{20,}              # GitHub
    | glpat-[\w-]{16,}                                    # GitLab
    | xox[abeoprs]-[\w-]{10,}                             # Slack
    | (?:gsk|hf|xai|pplx|fal)[_-]\w{20,}                  # Groq, Hugging Face, xAI, Perplexity
    | eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]*                  # a JSON web token
    )
    | (?<=[Bb]earer\ )[\w.~+/=-]{8,}
    | -----BEGIN\ [A-Z\ ]{0,32}PRIVATE\ KEY-----[\s\S]*?(?:-----END\ [A-Z\ ]{0,32}-----|\Z)
    """,
    re.VERBOSE,
)


def data_urls(text: str) -> str:
    """Replace ``data:`` URLs, of base64 or not, by ``[data URL]``."""
    return _DATA_URL.sub("[data URL]", text) if "data:" in text else text


def api_keys(text: str) -> str:
    """Replace what has the form of a key, a token or a private key by ``[key]``."""
    return _KEYS.sub("[key]", text)


def email_addresses(text: str) -> str:
    """Replace e-mail addresses by ``[e-mail]``."""
    return _EMAIL.sub("[e-mail]", text) if "@" in text else text


def compose(*masks: Callable[[str], str]) -> Callable[[str], str]:
    """Give one mask of several; each gets what the one before it gave."""

    def composed(text: str) -> str:
        for mask in masks:
            text = mask(text)
        return text

    return composed


BY_NAME: Final[Mapping[str, Callable[[str], str]]] = {
    mask.__name__: mask for mask in (data_urls, api_keys, email_addresses)
}
