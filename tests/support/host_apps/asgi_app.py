"""A FastAPI application: ``/plain/...`` without the middleware and ``/apart/...`` behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import work
from fastapi import FastAPI
from fastapi.responses import StreamingResponse


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Record something before the first request and after the last."""
    work.record(f"start-{work.os.getpid()}")
    yield
    work.record(f"end-{work.os.getpid()}")


def _served() -> FastAPI:
    served = FastAPI()

    @served.get("/stream/{session_id}")
    async def stream(session_id: str) -> StreamingResponse:
        async def parts() -> AsyncIterator[str]:
            for part in work.parts(session_id):
                await asyncio.sleep(0)
                yield part

        return StreamingResponse(parts(), media_type="text/plain")

    @served.get("/endless/{session_id}")
    async def endless(session_id: str) -> StreamingResponse:
        async def parts() -> AsyncIterator[str]:
            work.enter(session_id)
            try:
                while True:
                    work.record()
                    yield "x" * 1000
                    await asyncio.sleep(0.01)
            finally:  # cancelled, because its client went away
                work.record(f"{session_id}-cancelled")

        return StreamingResponse(parts(), media_type="text/plain")

    @served.get("/{action}/{session_id}")
    async def other(action: str, session_id: str) -> dict[str, Any]:
        return work.plain(action, session_id)

    return served


app = FastAPI(lifespan=lifespan)
app.mount("/plain", _served())
apart = _served()
if not work.IS_BARE:
    from fallom.integrations.asgi import FallomMiddleware

    apart.add_middleware(FallomMiddleware)
app.mount("/apart", apart)
