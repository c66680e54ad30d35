"""``fallom spool erase``: what this host holds of a person and has not sent is removed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from fallom.cli.exits import EXIT_CODES, EXIT_WRONG
from fallom.cli.host import host_options, open_host
from fallom.cli.screen import echo_json, json_option, visible

if TYPE_CHECKING:
    from fallom._flusher.erase import Removed

__all__ = ["spool_erase"]


@click.command("erase", epilog=EXIT_CODES)
@click.option("--session", "session_id", metavar="ID", default="", help="Records of this session.")
@click.option(
    "--customer", "customer_id", metavar="ID", default="", help="Records of this customer."
)
@click.option("--dry-run", "is_dry", is_flag=True, help="Only say what there is.")
@host_options
@json_option
def spool_erase(
    session_id: str,
    customer_id: str,
    is_dry: bool,
    as_json: bool,
    state_dir: str | None,
    namespace: str | None,
) -> None:
    """Remove a person's records that are not sent, from the spool and from dead/, for good.

    Workers and the flusher may go on. What is recorded of the person later is kept and sent as ever, and
    what a request under way holds may arrive. What the server has must be deleted there.
    """
    if bool(session_id) == bool(customer_id):
        raise click.UsageError("Say whose records: --session ID or --customer ID.")
    from fallom._flusher.erase import erase

    host = open_host(state_dir, namespace)
    removed = erase(
        host.place.directory, host.place.page, host.targets, session_id, customer_id, is_dry
    )
    if as_json:
        echo_json({"directory": host.path, "dry_run": is_dry, **_counts(removed)})
    else:
        _tell(removed, is_dry, host.path)
    sys.exit(EXIT_WRONG if removed.failed else 0)


def _counts(removed: Removed) -> dict[str, Any]:
    unsent = {name.replace(" ", "_"): count for name, count in removed.spool.unsent.items()}
    return {
        "unsent": unsent,
        "dead_letters": removed.dead_letters,
        "delivered_copies": removed.spool.delivered,
        "damaged": removed.spool.unreadable + removed.damaged_files,
        "failed": removed.failed,
    }


def _tell(removed: Removed, is_dry: bool, path: str) -> None:
    counted = {**removed.spool.unsent, "dead letters": removed.dead_letters}
    counted["copies of what the server has"] = removed.spool.delivered
    counted["damaged stretches with the id in them"] = (
        removed.spool.unreadable + removed.damaged_files
    )
    listed = ", ".join(f"{what}: {count}" for what, count in counted.items() if count)
    done = "Would be removed from" if is_dry else "Removed from"
    click.echo(f"{done} {visible(path)}: {listed or 'nothing'}")
    for sentence in removed.failed:
        click.echo(f"! not looked at: {visible(sentence)}")
