"""The command line. One file per command, imported when it is called: ``--help`` loads none of them."""

from __future__ import annotations

import importlib
import os
import shutil
import sys

import click

COMMANDS = {
    "demo": "A real pool under a real load, with the dashboard.",
    "run": "Run an operation over the lines of a file.",
    "dashboard": "Watch a running service.",
    "snapshot": "Print what a running service knows, as JSON.",
    "report": "Tell what happened, from a running service or a history.",
}
"""Command -> what its help says in one line; the module of the same name defines it as ``command``."""

EXIT_FAILED = 1  # some operations failed, or a check found something
EXIT_USAGE = 2  # usage or configuration
EXIT_UNREACHABLE = 3
EXIT_INTERRUPTED = 130


def paper() -> int:
    """How many columns printed text may have here."""
    return shutil.get_terminal_size((100, 24)).columns


class _Lazy(click.Group):
    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        found: click.Command = importlib.import_module(f"pool_monitor.cli.{name}").command
        return found

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pool-monitor", message="%(prog)s %(version)s")
def cli() -> None:
    """Run a pool of external Python and LLM workers, and see how it is doing."""


def main() -> None:
    """The program ``pool-monitor``. Exit codes: 0 well, 1 something failed, 2 usage, 3 unreachable, 130 interrupted."""
    from pool_monitor.errors import ConfigError, ConnectError, PoolError, StartError, UnknownOperation

    code = 0
    try:
        code = cli.main(prog_name="pool-monitor", standalone_mode=False) or 0
    except click.exceptions.Exit as leaving:
        code = leaving.exit_code
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        code = EXIT_INTERRUPTED
    except BrokenPipeError:  # whoever read our output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_FAILED
    except PoolError as error:
        click.echo(f"Error: {error}", err=True)
        for note in getattr(error, "__notes__", []):
            if "Traceback" in note:  # else it repeats the message
                click.echo(note, err=True)
        wrong_usage = isinstance(error, ConfigError | StartError | UnknownOperation)
        code = EXIT_USAGE if wrong_usage else EXIT_UNREACHABLE if isinstance(error, ConnectError) else EXIT_FAILED
    sys.exit(code)
