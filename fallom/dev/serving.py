"""What applications fetch: ``GET /configs``, ``/prompts``, ``/prompt-ab-tests``, a pinned version.

Every answer has a strong ETag, so a poll that finds nothing new costs a 304.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fallom._folder.folder import Catalogue, Folder, Problem
from fallom.dev.answers import JsonAnswer
from fallom.dev.overrides import Overrides

__all__ = ["Desk", "serving_routes"]


class Desk:
    """The folder, seen from the event loop; says on the console what is wrong with its files."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fallom-dev-folder")
        self._said: tuple[Problem, ...] = ()
        self._seen: Catalogue | None = None
        self._overrides = Overrides()
        self._served: Catalogue | None = None
        self._overridden: set[tuple[str, str]] = set()
        self._changed: Callable[[], None] = lambda: None

    async def catalogue(self) -> Catalogue:
        """Give what the files say now."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self.look)

    def look(self) -> Catalogue:
        """Give what the files say now, and say what changed; from one thread at a time."""
        catalogue = self._folder.catalogue()
        if catalogue is not self._seen:
            first, self._seen = self._seen is None, catalogue
            for problem in catalogue.problems:
                if problem not in self._said:
                    _say(f"{self._folder.root}/{problem}")
            mended = {p.file for p in self._said} - {p.file for p in catalogue.problems}
            for file in sorted(mended):
                _say(f"{self._folder.root}/{file}: mended")
            if not first and not catalogue.problems:
                _say(f"{self._folder.root}: changed, served anew")
            self._said = catalogue.problems
            self._served = None
        if self._served is None:
            self._served = self._overrides.applied(catalogue)
            self._overridden = self._overrides.keys()
            self._changed()
        return self._served

    def tell(self, changed: Callable[[], None]) -> None:
        """Call ``changed``, which must not block, whenever something else is served."""
        self._changed = changed

    @property
    def last(self) -> Catalogue | None:
        """What was served at the last look, without looking again; for any thread."""
        return self._served or self._seen

    @property
    def overridden(self) -> set[tuple[str, str]]:
        """Give (kind, key) of what is served with weights that were changed on the page."""
        return self._overridden

    async def set_weights(self, kind: str, key: str, weights: Sequence[str]) -> None:
        """Serve other weights than the file says; see ``Overrides.set_weights`` for what is raised."""

        def change(catalogue: Catalogue) -> None:
            self._overrides.set_weights(catalogue, kind, key, weights)

        await self._change(change)

    async def drop_weights(self, kind: str, key: str) -> None:
        """Serve what the file says again."""
        await self._change(lambda _: self._overrides.drop(kind, key))

    async def _change(self, change: Callable[[Catalogue], None]) -> None:
        def work() -> None:
            self.look()
            assert self._seen is not None
            change(self._seen)
            self._served = None
            self.look()

        await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()


def serving_routes(desk: Desk) -> list[Route]:
    """Give the routes, bound to the folder's desk."""

    async def configs(request: Request) -> Response:
        catalogue = await desk.catalogue()
        return _tagged(request, {"configs": catalogue.current("configs")})

    async def prompts(request: Request) -> Response:
        # All versions, in ascending order: there is no call for one version of a prompt, so a
        # pinned one is known only from here, and published SDKs take the last one as current.
        catalogue = await desk.catalogue()
        return _tagged(request, {"prompts": catalogue.all_versions("prompts")})

    async def tests(request: Request) -> Response:
        catalogue = await desk.catalogue()
        return _tagged(request, {"prompt_ab_tests": catalogue.current("prompt_ab_tests")})

    async def pinned(request: Request) -> Response:
        key, version = request.path_params["key"], request.path_params["version"]
        config = (await desk.catalogue()).version("configs", key, version)
        if config is None:
            return JsonAnswer(
                {"error": f"There is no version {version} of config {key!r}."}, status_code=404
            )
        return _tagged(request, config)

    return [
        Route("/configs", configs),
        Route("/configs/{key:path}/version/{version:int}", pinned),
        Route("/prompts", prompts),
        Route("/prompt-ab-tests", tests),
    ]


def _tagged(request: Request, payload: dict[str, Any]) -> Response:
    body = json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {"etag": etag, "cache-control": "no-cache"}
    if _matches(request.headers.get("if-none-match", ""), etag):
        return Response(status_code=304, headers=headers)
    return Response(body, media_type="application/json", headers=headers)


def _matches(if_none_match: str, etag: str) -> bool:
    """Compare as RFC 9110 section 13.1.2 has it: weakly, against a list, or ``*``."""
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return etag in tags or "*" in tags


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201  the console is this tool's face
