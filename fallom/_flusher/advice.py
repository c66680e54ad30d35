"""What an answer that is not good means for the one who set this up, in a sentence."""

from __future__ import annotations

__all__ = ["refusal"]


def refusal(url: str, status: int, setting: str, has_key: bool) -> str:
    """Say why a GET gave nothing, and what to do.

    Args:
        url: What was asked for.
        status: Of the answer; none that is good.
        setting: The environment variable that the URL is from.
        has_key: Whether an API key was sent.
    """
    if status in (401, 403):
        why = (
            "the API key was refused; check FALLOM_API_KEY"
            if has_key
            else ("there is no API key; set FALLOM_API_KEY or init(api_key=...)")
        )
    elif status in (404, 405, 410):
        why = f"there is no such thing at this URL; check {setting}"
    elif 300 <= status < 400:
        why = f"redirects are not followed; set {setting} to where it leads"
    elif status == 429 or status >= 500:
        why = "the server cannot answer now; it is tried again"
    else:
        why = f"this was not expected; check {setting}"
    return f"GET {url} answered {status}: {why}. What was known before is served."
