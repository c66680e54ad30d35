"""Masks for ``fallom.init(mask=...)``: what of a text's content is not to be recorded.

A mask takes a text and gives the text to record. None is in force by default. They find what has a
known form; they are no proof that nothing else is in a text: ``capture_content=False`` is.

    fallom.init(mask=masks.compose(masks.api_keys, masks.email_addresses))
"""

from __future__ import annotations

from fallom._core.known_masks import api_keys, compose, data_urls, email_addresses

__all__ = ["api_keys", "compose", "data_urls", "email_addresses"]
