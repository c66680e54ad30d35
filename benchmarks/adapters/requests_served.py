"""A request of a WSGI and of an ASGI application, called as a server does, with and without the middleware.

The application sets the session of its request, and answers two bytes; no span is recorded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from driver import Subject, serve

HEADERS = {
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "host": "127.0.0.1",
    "user-agent": "bench",
    "accept": "*/*",
}


def _subject(options: dict[str, Any], make: Callable[..., Any], wsgi_or_asgi: str) -> Subject:
    import importlib

    import fallom
    from fallom import trace

    fallom.init()
    given = options.get("middleware")
    if given is None:
        call = make(lambda app: app, trace)
    else:
        module = importlib.import_module(f"fallom.integrations.{wsgi_or_asgi}")
        call = make(lambda app: module.FallomMiddleware(app, **given), trace)

    def answers() -> dict[str, Any]:
        trace.clear_session()
        return {"body": call(7), "session after": trace.get_session()}

    return Subject(call, answers=answers)


def wsgi(options: dict[str, Any]) -> Subject:
    def make(around: Callable[[Any], Any], trace: Any) -> Callable[[int], str]:
        def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            trace.set_session("app", environ["PATH_INFO"])
            start_response("200 OK", [("Content-Length", "2")])
            return [b"ok"]

        served, fixed = around(app), {"REQUEST_METHOD": "GET", "SERVER_PROTOCOL": "HTTP/1.1"}
        fixed.update((f"HTTP_{name.upper().replace('-', '_')}", HEADERS[name]) for name in HEADERS)

        def call(number: int) -> str:
            environ = {**fixed, "PATH_INFO": f"/{number & 255}"}
            body = served(environ, lambda *_: None)
            text = b"".join(body).decode()
            if hasattr(body, "close"):
                body.close()
            return text

        return call

    return _subject(options, make, "wsgi")


def asgi(options: dict[str, Any]) -> Subject:
    def make(around: Callable[[Any], Any], trace: Any) -> Callable[[int], str]:
        async def app(scope: dict[str, Any], _: Any, send: Any) -> None:
            trace.set_session("app", scope["path"])
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"ok"})

        served = around(app)
        headers = [(name.encode(), value.encode()) for name, value in HEADERS.items()]

        def call(number: int) -> str:
            sent: list[bytes] = []

            async def send(message: dict[str, Any]) -> None:
                sent.append(message.get("body", b""))

            scope = {"type": "http", "path": f"/{number & 255}", "headers": headers}
            request = served(scope, None, send)
            try:
                request.send(
                    None
                )  # nothing in it waits: an event loop would cost more than all else
            except StopIteration:
                return b"".join(sent).decode()
            raise AssertionError("the request waits")

        return call

    return _subject(options, make, "asgi")


PATHS = {"wsgi": wsgi, "asgi": asgi}

if __name__ == "__main__":
    serve(PATHS)
