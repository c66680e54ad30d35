"""``fallom spool``: the segments on this host, whether they are whole, and those of another machine."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import click

from fallom.cli.exits import EXIT_CODES, EXIT_LED, EXIT_WRONG
from fallom.cli.host import host_options, open_host
from fallom.cli.screen import (
    bytes_text,
    echo_json,
    json_option,
    seconds_text,
    table,
    terminal_width,
    time_text,
    visible,
)

if TYPE_CHECKING:
    from fallom._flusher.push import Pushed
    from fallom._host.directory import StateDirectory
    from fallom._host.files import File
    from fallom._spool.inspection import SegmentState

__all__ = ["spool"]

_EXIT_CODES_OF_PUSH: Final = """\b
Exit codes:
  0  all that was unsent is delivered
  1  something is left there, or the server refused it
  2  the command line, a setting or the directory cannot be used
  3  a flusher or another push is at work in that directory
  130  interrupted; what was delivered until then is marked"""


@click.group()
def spool() -> None:
    """Look at the records on disk, check or deliver them."""


@spool.command("ls", epilog=EXIT_CODES)
@host_options
@json_option
@click.argument("directory", metavar="[DIR]", required=False)
def spool_ls(
    directory: str | None, as_json: bool, state_dir: str | None, namespace: str | None
) -> None:
    """List the files with what waits in them, and since when.

    With DIR, those of a copied state or spool directory.
    """
    from fallom._spool.inspection import segments_of

    if directory is None:
        host = open_host(state_dir, namespace)
        path, found = host.path, list(segments_of(host.place.directory.spool, host.targets))
    else:
        copy = _copied(directory, namespace)
        path, found = copy.path, list(segments_of(copy.spool, None))
    now_ns = time.time_ns()
    if as_json:
        echo_json([_listed(state) for state in found])
        return
    rows = [
        (
            state.name.file_name(),
            state.state,
            bytes_text(state.bytes),
            bytes_text(state.unaccepted_bytes),
            state.records,
            seconds_text((now_ns - state.oldest_unix_ns) / 1e9) if state.oldest_unix_ns else "-",
        )
        for state in found
    ]
    if rows:
        headers = ("segment", "state", "size", "unsent", "records", "oldest")
        for line in table(headers, rows, terminal_width()):
            click.echo(line)
    waiting = sum(state.records for state in found)
    click.echo(f"{len(found)} segment(s), {waiting} record(s) unsent in {visible(path)}")
    for state in found:
        if state.why:
            click.echo(f"! {state.name.file_name()}: {state.why}")


@spool.command("verify", epilog=EXIT_CODES)
@host_options
@json_option
@click.argument("directory", metavar="[DIR]", required=False)
def spool_verify(
    directory: str | None, as_json: bool, state_dir: str | None, namespace: str | None
) -> None:
    """Read every record and check its checksum.

    Nothing is changed. With DIR, those of a copied state or spool directory.
    """
    from fallom._spool.inspection import check_segment
    from fallom._spool.segment import segment_names

    if directory is None:
        opened: File = open_host(state_dir, namespace).place.directory.spool
    else:
        opened = _copied(directory, namespace).spool
    checked = [check_segment(opened, name) for name in segment_names(opened)]
    found = [state for state in checked if state is not None]
    bad = [state for state in found if state.damages or state.why]
    if as_json:
        echo_json([_checked(state) for state in found])
    else:
        for state in bad:
            for offset, size in state.damages:
                click.echo(f"! {state.name.file_name()}: {size} damaged bytes at {offset}")
            if state.why:
                click.echo(f"! {state.name.file_name()}: {state.why}")
        records = sum(state.records for state in found)
        total = bytes_text(sum(state.bytes for state in found))
        click.echo(f"{len(found)} segment(s), {records} whole record(s), {total}")
        if bad:
            click.echo(
                "The flusher passes over what is damaged, keeps its bytes in dead/, counts it, and "
                "delivers the rest."
            )
    sys.exit(EXIT_WRONG if bad else 0)


@spool.command("push", epilog=_EXIT_CODES_OF_PUSH)
@click.argument("directory", metavar="DIR")
@click.option(
    "--namespace", metavar="ID", help="Which of several applications' in DIR, by its first digits."
)
@json_option
def spool_push(directory: str, namespace: str | None, as_json: bool) -> None:
    """Deliver what another machine left unsent.

    DIR is a copy of its state or spool directory. It goes where this environment's settings say
    (FALLOM_API_KEY, FALLOM_TRACES_URL, ...). What was accepted is marked in DIR, so that a push may
    be broken off and done again. Copy DIR when the machine's processes have ended.
    """
    from fallom._core.errors import ConfigurationError
    from fallom._core.settings import is_hosted, resolve_settings

    settings = resolve_settings({}, os.environ)
    if is_hosted(settings.traces_url) and not (settings.api_key or settings.traces_headers):
        raise ConfigurationError(
            "there is no API key, so nothing can be delivered; set FALLOM_API_KEY, or FALLOM_TRACES_URL "
            "for another backend.",
            "api_key",
        )
    copy = _copied(directory, namespace)
    pushed = _pushed(settings, copy)
    if pushed is None:
        click.echo(
            f"fallom: a flusher or another push is at work in {copy.path}; what is unsent there is "
            "delivered by it.",
            err=True,
        )
        sys.exit(EXIT_LED)
    if as_json:
        told = {name: getattr(pushed, name) for name in ("delivered", "given_up", "left")}
        echo_json({"directory": copy.path, **told, "error": pushed.error or None})
    else:
        click.echo(f"{pushed.delivered} record(s) delivered from {visible(copy.path)}")
        for reason, count in pushed.given_up.items():
            where = f"; they are in {copy.path}/dead" if reason == "refused" else ""
            click.echo(f"! {count} given up: {reason}{where}")
        if pushed.left:
            click.echo(f"! {pushed.left} are left there: {pushed.error or 'see above'}")
    sys.exit(EXIT_WRONG if pushed.left or pushed.given_up else 0)


def _pushed(settings: Any, copy: StateDirectory) -> Pushed | None:
    """Push in a thread of its own, so that an interrupt ends it between two batches."""
    import logging

    from fallom._flusher.push import push  # it loads requests and protobuf
    from fallom.cli.progress import Progress

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.setLevel(logging.WARNING)
    logging.getLogger("fallom").addHandler(handler)
    stop = threading.Event()
    outcome: list[Pushed | None] = []
    failed: list[BaseException] = []

    def body() -> None:
        try:
            outcome.append(push(settings, copy, stop))
        except BaseException as error:  # noqa: BLE001 - raised again below, in the main thread
            failed.append(error)

    thread = threading.Thread(target=body, name="fallom-push", daemon=True)
    with Progress(copy.spool, None, "Delivering") as progress:
        thread.start()
        try:
            while thread.is_alive():
                thread.join(0.1)
                progress.look()
        except KeyboardInterrupt:
            stop.set()
            thread.join()
            raise
    if failed:
        raise failed[0]
    return outcome[0]


def _copied(given: str, namespace: str | None) -> StateDirectory:
    """Open a copied directory: a spool, a namespace's directory, or a state directory with one in it."""
    from fallom._core.errors import ConfigurationError
    from fallom._host.directory import StateDirectory, namespaces_of

    path = os.path.realpath(given)
    if not os.path.isdir(path):
        raise ConfigurationError(f"{given!r} is no directory.", "DIR")
    if os.path.basename(path) == "spool" and _has_spool(os.path.dirname(path)):
        path = os.path.dirname(path)  # whose lock is the one that a flusher would hold
    if _has_spool(path):
        return StateDirectory.adopt(path)
    if _has_segments(os.listdir(path)) or os.path.isfile(f"{path}/leader.lock"):  # or was pushed
        return StateDirectory.adopt(path, spool=".")
    base = os.path.dirname(path) if os.path.basename(path) == "v1" else path
    known = namespaces_of(base)
    names = [name for name in known if name.startswith(namespace or "")]
    if len(names) > 1 and namespace is None:
        names = [
            name for name in names if _has_segments(_names(f"{base}/v1/{name}/spool"))
        ] or names
    if len(names) == 1:
        return StateDirectory.adopt(f"{base}/v1/{names[0]}")
    if names:
        many = f"holds several: {', '.join(names)}; say which by --namespace"
    elif known:
        many = f"holds none that begins with {namespace!r}; there are: {', '.join(known)}"
    else:
        many = (
            "holds none; expected a state directory (FALLOM_STATE_DIR of the other machine), a "
            "directory below its v1/, or a spool"
        )
    raise ConfigurationError(
        f"{given!r} should hold the records of one application; it {many}.", "DIR"
    )


def _has_spool(path: str) -> bool:
    return os.path.isdir(f"{path}/spool") and not os.path.isdir(f"{path}/v1")


def _has_segments(names: Iterable[str]) -> bool:
    from fallom._spool.segment import Destination, parse_segment_name

    found = (parse_segment_name(name) for name in names)
    return any(name and name.destination is not Destination.WISHES for name in found)


def _names(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def _listed(state: SegmentState) -> dict[str, Any]:
    return {
        "segment": state.name.file_name(),
        "destination": state.name.destination.name.lower(),
        "state": state.state,
        "bytes": state.bytes,
        "unaccepted_bytes": state.unaccepted_bytes,
        "unaccepted_records": state.records,
        "oldest_at": time_text(state.oldest_unix_ns) if state.oldest_unix_ns else None,
        "error": state.why or None,
    }


def _checked(state: SegmentState) -> dict[str, Any]:
    return {
        "segment": state.name.file_name(),
        "state": state.state,
        "bytes": state.bytes,
        "records": state.records,
        "damages": [{"offset": offset, "bytes": size} for offset, size in state.damages],
        "error": state.why or None,
    }
