"""Hashes by the interpreter's own modules: the same digests as those of ``hashlib``, without OpenSSL.

``hashlib`` loads OpenSSL, 3.5 MiB and 2.5 ms of a worker's start, and its md5 of an id takes 0.25 us where
the interpreter's own takes 0.12. A Python that was built without them has ``hashlib``.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

__all__ = ["blake2b", "md5", "sha256"]

if TYPE_CHECKING:
    from hashlib import blake2b, md5, sha256
else:
    try:
        from _blake2 import blake2b
        from _md5 import md5

        if sys.version_info >= (3, 12):
            from _sha2 import sha256
        else:
            from _sha256 import sha256
    except ImportError:
        import hashlib
        from functools import partial
        from hashlib import blake2b, sha256

        md5 = partial(hashlib.md5, usedforsecurity=False)  # or a FIPS build refuses it
