"""Sentry's SDK, all transactions sampled, default integrations off; it delivers transactions."""

from __future__ import annotations

from typing import Any

from driver import FLUSH_S, TEN, Subject, serve


def span(options: dict[str, Any]) -> Subject:
    import sentry_sdk

    dsn = options["url"].replace("http://", "http://key@") + "/1"
    sentry_sdk.init(
        dsn=dsn,
        traces_sample_rate=1.0,
        default_integrations=False,
        auto_enabling_integrations=False,
        auto_session_tracking=False,
        send_client_reports=False,
    )
    start = sentry_sdk.start_transaction

    def call(_: int) -> None:
        with start(name="metrics", op="bench") as made:
            made.update_data(TEN)

    return Subject(call, lambda: sentry_sdk.flush(FLUSH_S))


PATHS = {"span": span}

if __name__ == "__main__":
    serve(PATHS)
