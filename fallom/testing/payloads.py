"""What a test says of models and prompts, in the form in which a server lists them.

It is then checked as a server's answer is, so that a mistake in it is told as one there would be.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fallom._core.errors import ConfigurationError
from fallom._snapshot.entries import Kind
from fallom._snapshot.schema import Listing, read_listing

__all__ = ["listings_of"]


def listings_of(
    models: Mapping[str, Any], prompts: Mapping[str, Any], ab_tests: Mapping[str, Any]
) -> list[Listing]:
    """Give the listings of what a test fixes.

    Raises:
        ConfigurationError: Something in them cannot be served; the message says what and how to mend it.
    """
    for name, said in (("models", models), ("prompts", prompts), ("ab_tests", ab_tests)):
        if not isinstance(said, Mapping):
            raise ConfigurationError(
                f"{name} must be a mapping of keys to what they give, not {type(said).__name__}.",
                name,
            )
    listings = [
        read_listing(Kind.CONFIG, {"configs": [_shared(k, v, "model") for k, v in models.items()]}),
        read_listing(Kind.PROMPT, {"prompts": [_prompt(k, v) for k, v in prompts.items()]}),
        read_listing(
            Kind.AB_TEST,
            {"prompt_ab_tests": [_shared(k, v, "prompt_key") for k, v in ab_tests.items()]},
        ),
    ]
    refused = [str(error) for listing in listings for error in listing.refused]
    if refused:
        raise ConfigurationError(" ".join(refused), "capture")
    return listings


def _shared(key: str, said: Any, of: str) -> dict[str, Any]:
    """Give a config or a test: a name for all sessions, names with weights, or as the server lists it."""
    if isinstance(said, Mapping) and "variants" in said:
        return {"version": 1, **said, "key": key}
    shares = said.items() if isinstance(said, Mapping) else [(said, 100)]
    variants = [{of: name, "weight": weight} for name, weight in shares]
    return {"key": key, "version": 1, "variants": variants}


def _prompt(key: str, said: Any) -> dict[str, Any]:
    if isinstance(said, list):
        return {"key": key, "version": 1, "messages": said}
    if not isinstance(said, Mapping):
        return {"key": key, "version": 1, "system_prompt": None, "user_template": said}
    fields = {"version": 1, **said, "key": key}
    for ours, listed in (("system", "system_prompt"), ("user", "user_template")):
        if ours in fields:
            fields[listed] = fields.pop(ours)
    return fields
