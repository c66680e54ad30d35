"""``fallom tail``: what the applications of this host record, as they record it, a line each."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import click

from fallom._core.span import SpanStatus, exposure_of, metrics_of, span_of
from fallom._spool.frame import Kind
from fallom.cli.exits import EXIT_CODES
from fallom.cli.host import host_options, open_host
from fallom.cli.screen import echo_json, json_option, seconds_text, visible

if TYPE_CHECKING:
    from fallom._spool.follow import Followed

__all__ = ["tail"]

POLL_S: Final = 0.1  # a segment that is sealed and accepted may be deleted a second later
_READERS: Final[dict[int, Any]] = {
    Kind.SPAN: span_of,
    Kind.METRICS: metrics_of,
    Kind.EXPOSURE: exposure_of,
}


@click.command(epilog=EXIT_CODES)
@host_options
@json_option
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(0),
    default=10,
    show_default=True,
    help="How many of those that are there already.",
)
@click.option("--no-follow", is_flag=True, help="Only those, and end.")
def tail(
    lines: int, no_follow: bool, as_json: bool, state_dir: str | None, namespace: str | None
) -> None:
    """Follow what is recorded on this host, until Ctrl-C.

    Spans, metrics and assignments. They are read from the spool: what was delivered and deleted
    before is not shown. With --json, one object a line, with all attributes.
    """
    from fallom._spool.follow import Follower

    follower = Follower(open_host(state_dir, namespace).place.directory.spool)
    found = follower.last(lines)
    with contextlib.closing(follower):
        while True:
            for each in found:
                if as_json:
                    echo_json(_fields(each), indent=None)
                else:
                    click.echo(_line(each))
            if no_follow:
                return
            time.sleep(POLL_S)
            found = follower.new()


def _line(found: Followed) -> str:
    when = datetime.fromtimestamp(found.unix_ns / 1e9).strftime("%H:%M:%S.%f")[:-3]
    try:
        record = _READERS[found.kind](found.record)
    except (ValueError, TypeError):
        return f"{when}  (a record that this version cannot read)"
    if found.kind == Kind.EXPOSURE:
        model = click.style(visible(record.model), bold=True)
        what = f"assigned {model} of {visible(record.config_key)} v{record.config_version}"
        return f"{when}  {what}  session={visible(record.session_id)}"
    if found.kind == Kind.METRICS:
        data = " ".join(f"{name}={value}" for name, value in record.data.items())
        return _joined(when, "metrics", data, _who(record.config_key, record.session_id))
    attributes = record.attributes
    took = seconds_text((record.end_unix_ns - record.start_unix_ns) / 1e9)
    who = _who(attributes.get("fallom.config_key"), attributes.get("fallom.session_id"))
    line = _joined(
        when, click.style(visible(record.name), bold=True), took, _tokens(attributes), who
    )
    if record.status == SpanStatus.ERROR:
        error = attributes.get("error.type") or record.status_message or "error"
        line += "  " + click.style(visible(str(error)), fg="red")
    return line


def _joined(when: str, name: str, *parts: str) -> str:
    """Join the parts that are not empty."""
    return "  ".join([when, name, *(visible(part) for part in parts if part)])


def _who(config_key: object, session_id: object) -> str:
    named = {"config": config_key, "session": session_id}
    return " ".join(f"{name}={value}" for name, value in named.items() if value)


def _tokens(attributes: Mapping[str, Any]) -> str:
    counts = [attributes.get(f"gen_ai.usage.{side}_tokens") for side in ("input", "output")]
    if counts == [None, None]:
        return ""
    return "{}+{} tokens".format(*("?" if count is None else count for count in counts))


def _fields(found: Followed) -> dict[str, Any]:
    try:
        record: dict[str, Any] = _READERS[found.kind](found.record)._asdict()
    except (ValueError, TypeError):
        record = {}
    return {"type": Kind(found.kind).name.lower(), **record, "resource": found.resource}
