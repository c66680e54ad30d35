"""The command line's root: the list of commands, and the way from an error to an exit code.

Commands import what they need when they run, so that ``fallom --help`` answers at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from fallom._core.errors import ConfigurationError
from fallom._version import __version__
from fallom.cli.configs import configs
from fallom.cli.dead import dead
from fallom.cli.erase import spool_erase
from fallom.cli.exits import EXIT_CODES, EXIT_INTERRUPTED, EXIT_USAGE, EXIT_WRONG
from fallom.cli.flusher import FLUSHER_SUMMARY
from fallom.cli.host import host_options
from fallom.cli.prompts import prompts
from fallom.cli.screen import Seconds, give_up_output, json_option, reason_of
from fallom.cli.spool import spool
from fallom.cli.tail import tail

__all__ = ["run_commands"]


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EXIT_CODES,
)
@click.version_option(__version__, prog_name="fallom", message="%(prog)s %(version)s")
def root() -> None:
    """Model A/B testing, prompt management and loss-free tracing for LLM applications."""


@root.command(epilog=EXIT_CODES)
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=4499,
    show_default=True,
    help="0 takes any that is free.",
)
@click.option(
    "--db",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The SQLite file to keep what comes in; by default dev.db in the user's state directory.",
)
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="SPEC",
    help="Misbehave, for example 503,path=/v1/traces,times=3. May be given several times.",
)
@click.option(
    "--port-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the port there once it listens.",
)
@click.option(
    "--allow-host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="Answer to this name too, for example that of a container.",
)
@click.option(
    "--keep",
    "spans_max",
    type=click.IntRange(0),
    default=500_000,
    show_default=True,
    help="How many spans to keep, the newest; 0 keeps all.",
)
@click.option(
    "--sample-traffic",
    is_flag=True,
    help="Run a few workers that record what a shop's assistant would, to look around.",
)
@click.option("--quiet", is_flag=True, help="No banner.")
@click.option("--until-stdin-closes", is_flag=True, hidden=True)
def dev(
    folder: Path | None,
    host: str,
    port: int,
    db: Path | None,
    faults: tuple[str, ...],
    port_file: Path | None,
    hosts: tuple[str, ...],
    spans_max: int,
    sample_traffic: bool,
    quiet: bool,
    until_stdin_closes: bool,
) -> None:
    """Run a local cloud to develop against.

    Configs and prompts come from FOLDER, traces go into SQLite, and a model echoes. Its page shows
    sessions, traces, experiments and this host's health as they come.

    FOLDER holds configs/*.yaml, prompts/*.yaml and prompt-ab-tests/*.yaml (or JSON), and is read
    again when it is edited. Without FOLDER a small sample is served.
    """
    import yaml  # noqa: F401 - told as missing here, before a folder of YAML is served as empty

    from fallom.dev.faults import parse_fault
    from fallom.dev.run import CloudOptions, default_database, run_cloud, sample_folder

    run_cloud(
        CloudOptions(
            folder=folder or sample_folder(),
            db=db or default_database(),
            host=host,
            port=port,
            hosts=hosts,
            faults=[parse_fault(spec) for spec in faults],
            port_file=port_file,
            spans_max=spans_max or None,
            sample_traffic=sample_traffic,
            quiet=quiet,
            until_stdin_closes=until_stdin_closes,
        )
    )


@root.command(
    short_help=FLUSHER_SUMMARY,
    add_help_option=False,
    context_settings={"ignore_unknown_options": True},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def flusher(arguments: tuple[str, ...]) -> None:
    """Stand in the list of commands; ``fallom.__main__`` runs the real one without click."""
    from fallom.cli.flusher import run_flusher

    sys.exit(run_flusher(arguments))


@root.command(epilog=EXIT_CODES)
@host_options
@click.option("--json", "as_json", is_flag=True, help="Everything, for scripts.")
@click.option("--prometheus", is_flag=True, help="In Prometheus's text form; the exit code is 0.")
def status(as_json: bool, prometheus: bool, state_dir: str | None, namespace: str | None) -> None:
    """Show how this host does, and what to do about it.

    Flusher, spool, snapshot, drops. The settings come from the environment, and must be those of
    the applications; or --namespace names one of those that are listed.
    """
    from fallom.cli.status import show_status

    sys.exit(show_status(as_json, prometheus, state_dir, namespace))


@root.command(epilog=EXIT_CODES)
@click.option(
    "--timeout", type=Seconds(0), default=30.0, show_default=True, help="Seconds to wait."
)
@json_option
def flush(timeout: float, as_json: bool) -> None:
    """Wait until all that is recorded now is delivered."""
    from fallom.cli.flush import flush as wait_for_delivery

    sys.exit(wait_for_delivery(timeout, as_json))


@root.command(epilog=EXIT_CODES)
@host_options
@json_option
@click.option(
    "--timeout",
    type=Seconds(0.1, 60),
    default=5.0,
    show_default=True,
    help="Seconds for each server.",
)
@click.option("--offline", is_flag=True, help="Ask no server.")
def doctor(
    as_json: bool, timeout: float, offline: bool, state_dir: str | None, namespace: str | None
) -> None:
    """Check this host, and say how to mend what is wrong.

    Directory, permissions, space, flusher, servers, clock, versions. 0: nothing is broken, there
    may be warnings.
    """
    from fallom.cli.doctor import examine

    sys.exit(examine(as_json, None if offline else timeout, state_dir, namespace))


@root.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes a shell complete words and keys.

    bash: add  eval "$(fallom completion bash)"  to ~/.bashrc; zsh likewise; fish: write it to
    ~/.config/fish/completions/fallom.fish.
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(root, {}, "fallom", "_FALLOM_COMPLETE").source())


spool.add_command(spool_erase)
for command in (configs, dead, prompts, spool, tail):
    root.add_command(command)


def run_commands(arguments: Sequence[str]) -> int:
    """Run a command; give its exit code."""
    try:
        # NO_COLOR (https://no-color.org); without it click decides by whether it is a terminal.
        color = False if os.environ.get("NO_COLOR") else None
        code = root.main(
            args=list(arguments), prog_name="fallom", standalone_mode=False, color=color
        )
    except ConfigurationError as error:
        click.echo(f"fallom: {error}", err=True)
        return EXIT_USAGE
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except OSError as error:  # a file that cannot be read, a full disk, also that of the output
        click.echo(f"fallom: {reason_of(error)}", err=True)
        give_up_output()
        return EXIT_WRONG
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return code if isinstance(code, int) else 0
