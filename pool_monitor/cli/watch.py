"""``pool-monitor watch``: tell when a service is gone, frozen or stale."""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import click

from pool_monitor.alerts.quantity import parse
from pool_monitor.cli import EXIT_INTERRUPTED
from pool_monitor.cli.output import print_text, printable
from pool_monitor.config.alerts import HeartbeatConfig
from pool_monitor.errors import ConfigError, PoolError
from pool_monitor.log import is_writable
from pool_monitor.parts import PartUnavailable
from pool_monitor.watch.polling import wanted_of
from pool_monitor.watch.watcher import Watcher, WatchOptions, default_state

INTERVAL_MIN_S, INTERVAL_MAX_S = 1.0, 3600.0


def _seconds(_ctx: click.Context, _param: click.Parameter, value: str) -> float:
    """The callback of an option that is a duration."""
    try:
        seconds = parse(value, "s")
    except ValueError as error:
        raise click.BadParameter(f"{value!r}: {error}") from None
    if not INTERVAL_MIN_S <= seconds <= INTERVAL_MAX_S:
        raise click.BadParameter(f"{value!r}: needs a duration from 1s to 1h")
    return seconds


@click.command("watch")
@click.argument("addresses", nargs=-1, metavar="[ADDRESS...]")
@click.option("--rules", required=True, metavar="FILE", help="The rule file with the route and the receivers.")
@click.option(
    "--interval",
    default="15s",
    show_default=True,
    callback=_seconds,
    help="A service that is gone or frozen is told within two of these.",
)
@click.option("--state", metavar="FILE", help="Where to keep what was told and is owed. [default: in ~/.local/state]")
@click.option("--heartbeat-env", metavar="NAME", help="The variable with the URL of a heartbeat of this watch.")
@click.option(
    "--heartbeat-every", default="30s", show_default=True, callback=_seconds, help="Time between two of its beats."
)
def command(
    addresses: tuple[str, ...],
    rules: str,
    interval: float,
    state: str | None,
    heartbeat_env: str | None,
    heartbeat_every: float,
) -> None:
    """Watch services from outside, and tell the receivers of FILE when one is gone, frozen or stale.

    ServiceGone: nobody takes a connection, or the process was killed. ServiceFrozen: it takes connections and does not
    answer, because its event loop is blocked or its process is stopped. ServiceStale: it answers, and its monitor is
    degraded, does not evaluate its rules, or owes messages that it cannot deliver. The rules of FILE are for the
    services themselves, and are not evaluated here.

    ADDRESS is a service's name, the path of its socket, a URL or HOST:PORT. Such a service has to be there. Without
    ADDRESS, all services of this user are watched, those that begin later too. One that leaves in order is forgotten.

    A restart goes on with the state file: what is owed is told. Exit codes: 0 it was ended by SIGTERM; 1 it cannot go
    on; 2 FILE or an option is wrong, or another watch uses the state file; 130 it was interrupted.
    """
    path = default_state() if state is None else Path(state)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{path.parent}: cannot be made: {error.strerror}; choose another file with --state"
        ) from None
    heartbeat = None if heartbeat_env is None else HeartbeatConfig(url_env=heartbeat_env, every=heartbeat_every)
    options = WatchOptions(rules, [wanted_of(one) for one in addresses], interval, path, heartbeat)
    code = asyncio.run(_run(options))
    if code:
        raise click.exceptions.Exit(code)


async def _run(options: WatchOptions) -> int:
    """Watch until a signal comes, and return the exit code."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[int] = loop.create_future()

    def end(code: int) -> None:
        if not ended.done():
            ended.set_result(code)

    loop.add_signal_handler(signal.SIGTERM, end, 0)
    loop.add_signal_handler(signal.SIGINT, end, EXIT_INTERRUPTED)
    watching: asyncio.Future[None] = loop.create_task(Watcher(options, _say).run(), name="watch")
    await asyncio.wait((watching, ended), return_when=asyncio.FIRST_COMPLETED)
    if not watching.done():
        watching.cancel()
        await asyncio.wait([watching])
    if not watching.cancelled() and (error := watching.exception()) is not None:
        if isinstance(error, PartUnavailable):
            raise PoolError(f"the watch cannot go on: {error}") from error
        raise error
    return ended.result() if ended.done() else 1


def _say(line: str) -> None:
    """Print *line*, unless nobody takes it: a watch does not wait for its reader, and goes on without."""
    if is_writable(sys.stdout):
        with suppress(OSError, PoolError):
            print_text(f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S}  {printable(line)}\n")
