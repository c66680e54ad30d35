"""``file:`` URLs: configs and prompts from a folder, asked for as if it were a server.

For GitOps, for machines without a network, and for tests. The folder is the one that ``fallom dev`` takes.
It stands behind the same seam as the network, so that the sync knows no other way: what is listed, what a
304 means, and that a folder which is gone takes nothing away.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from fallom._core.errors import ConfigurationError
from fallom._flusher.http import NetworkError, Request, Response, Sends
from fallom._folder.folder import Catalogue, Folder, Problem

__all__ = ["Folders"]

_LISTING: Final = re.compile(r"(file://.*)/(configs|prompts|prompt-ab-tests)")
_PINNED: Final = re.compile(r"(file://.*)/configs/([^/]+)/version/(\d+)")


class Folders:
    """Answers for ``file:`` URLs, and passes all others on. For one thread at a time."""

    def __init__(self, http: Sends, say: Callable[[str], None]) -> None:
        """Read nothing yet; ``say`` is told, in a sentence, what of a file cannot be served."""
        self._http = http
        self._say = say
        self._folders: dict[str, Folder] = {}
        self._said: dict[str, tuple[Problem, ...]] = {}

    def problems(self) -> list[str]:
        """Give, in a sentence each, what of the files cannot be served as of the last look."""
        return [
            f"{_path_of(root)}/{problem}"
            for root, problems in self._said.items()
            for problem in problems
            if problem.is_error
        ]

    def send(self, request: Request) -> Response:
        """Answer a request.

        Raises:
            NetworkError: The folder cannot be read; or whatever the network has to say.
        """
        if not request.url.startswith("file:"):
            return self._http.send(request)
        pinned = _PINNED.fullmatch(request.url)
        if pinned:
            root, key, version = pinned[1], unquote(pinned[2]), int(pinned[3])
            found = self._catalogue(root).version("configs", key, version)
            return _answer(request, found) if found is not None else Response(404, {}, b"")
        listing = _LISTING.fullmatch(request.url)
        if listing is None:
            return Response(404, {}, b"")
        catalogue = self._catalogue(listing[1])
        if listing[2] == "prompts":  # all versions, because there is no other way to pin one
            return _answer(request, {"prompts": catalogue.all_versions("prompts")})
        name = listing[2].replace("-", "_")
        return _answer(request, {name: catalogue.current(name)})

    def _catalogue(self, root: str) -> Catalogue:
        path = _path_of(root)
        try:
            # Anew after a failure: the folder may have been replaced as a whole.
            folder = self._folders.pop(root, None) or Folder(Path(path))
            if not folder.root.is_dir():
                raise ConfigurationError(f"{path} is no directory now", "folder")
        except ConfigurationError as error:
            raise NetworkError("other", str(error)) from None
        self._folders[root] = folder
        catalogue = folder.catalogue()
        known = self._said.get(root, ())
        for problem in catalogue.problems:
            if problem not in known:
                self._say(f"{path}/{problem}")
        self._said[root] = catalogue.problems
        return catalogue


def _path_of(root: str) -> str:
    return unquote(urlsplit(root).path)


def _answer(request: Request, payload: dict[str, Any]) -> Response:
    body = json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    if request.headers.get("If-None-Match") == etag:
        return Response(304, {"etag": etag}, b"")
    return Response(200, {"etag": etag}, body)
