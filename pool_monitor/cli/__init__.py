"""The command line. Each command has a file, which is imported when the command is called: ``--help`` imports none."""

from __future__ import annotations

import errno
import io
import shutil
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from pool_monitor.cli import output
from pool_monitor.cli.lazy_group import LazyGroup

if TYPE_CHECKING:
    from pool_monitor.errors import PoolError

COMMANDS = {
    "demo": "Run a real pool under a real load, with the dashboard.",
    "run": "Run an operation on every line of a file.",
    "dashboard": "Watch a running service.",
    "snapshot": "Print the state of a running service, as JSON.",
    "errors": "Show which few errors the failures are.",
    "stack": "Print what a worker is doing: its stack, or a flame graph.",
    "alerts": "Show, silence and acknowledge the alerts of a running service.",
    "report": "Report what happened, from a running service or a history.",
    "rules": "Check rule files, and see what rules can measure.",
    "tune": "Show what a service recommends and tunes, and decide.",
    "watch": "Tell when a service is gone, frozen or stale.",
}
"""Command -> its help in one line. The module of that name defines ``command``."""

EXIT_FAILED = 1  # some operations failed, or a check found something
EXIT_USAGE = 2  # usage or configuration
EXIT_UNREACHABLE = 3
EXIT_INTERRUPTED = 130
EXIT_PIPE = 141  # the reader closed our output: 128 + the number of SIGPIPE, as for programs that SIGPIPE ends

closed_at_start: frozenset[int] = frozenset()
"""Which of the descriptors 0, 1 and 2 were closed when the program started."""

_OF_STREAMS = {errno.ENOSPC, errno.EIO, errno.EBADF, errno.EDQUOT, errno.EFBIG}  # of a write by click to a stream


def text_width() -> int:
    """Return how many columns printed text may take here."""
    return shutil.get_terminal_size((100, 24)).columns


@click.group(
    cls=LazyGroup,
    commands_of="pool_monitor.cli",
    table=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="pool-monitor", message="%(prog)s %(version)s")
def cli() -> None:
    """Run and monitor a pool of worker processes."""


def main() -> None:
    """Run the program ``pool-monitor``. Exit codes: 0 success, 1 something failed, 2 usage, 3 unreachable,
    130 interrupted, 141 the reader closed the output.
    """
    global closed_at_start
    closed_at_start = output.fill_closed_descriptors()
    code = _code(lambda: cli.main(prog_name="pool-monitor", standalone_mode=False) or 0)
    # Printed text may still be in the buffer, and fail to be written.
    sys.exit(_code(output.flush_stdout) or code)


def _code(work: Callable[[], int | None]) -> int:
    """Call *work* and return the exit code. Failures are reported in words."""
    from pool_monitor.errors import PoolError

    try:
        return work() or 0
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except click.ClickException as error:
        text = io.StringIO()
        error.show(file=text)
        output.remark(text.getvalue().rstrip())
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        output.remark("interrupted")
        return EXIT_INTERRUPTED
    except (BrokenPipeError, output.ReaderGone):
        output.discard(sys.stdout)
        return EXIT_PIPE
    except PoolError as error:
        return _failed(error)
    except OSError as error:
        if error.filename is not None or error.errno not in _OF_STREAMS:
            raise
        output.discard(sys.stdout)
        output.remark(f"Error: stdout: writing failed: {error.strerror}")
        return EXIT_FAILED


def _failed(error: PoolError) -> int:
    """Report *error* and return its exit code."""
    from pool_monitor.errors import ConfigError, ConnectError, StartError, UnknownOperation

    output.remark(f"Error: {error}")
    for note in getattr(error, "__notes__", []):
        if "Traceback" in note:  # any other note repeats the message
            output.remark(note)
    if isinstance(error, ConfigError | StartError | UnknownOperation):
        return EXIT_USAGE
    return EXIT_UNREACHABLE if isinstance(error, ConnectError) else EXIT_FAILED
