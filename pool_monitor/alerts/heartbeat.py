"""A beat that somebody outside expects, so that the end of the service, or of its monitor, is noticed.

Theory of operation
-------------------
The event loop writes a *pulse* every second (`Heartbeat.pulse`): that it runs, and what is wrong with the monitor. A
thread with a loop of its own sends a beat every *every* seconds, but only with a fresh pulse (pulse.py). So there are
three messages:

- A POST to the URL: the service lives, and its monitor can be relied on.
- A POST to the URL with ``/fail`` after its path, as healthchecks.io has it: the service lives, and its monitor is
  degraded, does not evaluate its rules, or owes messages that it cannot deliver. The body says which.
- Nothing: the event loop is blocked, the process is stopped, suspended or gone, or the network is.

A monitor that is left in order sends one more beat, with the status ``stopping``: its successor has a whole interval to
begin. One that is left because it failed sends none.

The thread does all that may hang: reading the URL from a file, looking up names, sending. At most one beat is under
way. A forked process has no such thread, and sends nothing.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from pool_monitor.alerts.pulse import Beat, Beats, Pulse, Standing, troubles
from pool_monitor.alerts.routing import Secret
from pool_monitor.clock import Clock, WakefulClock
from pool_monitor.errors import ConfigError
from pool_monitor.log import logger
from pool_monitor.parts import PartUnavailable
from pool_monitor.snapshot import HeartbeatView
from pool_monitor.telemetry import describe
from pool_monitor.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pool_monitor.alerts.channels.http import HttpClient
    from pool_monitor.config.alerts import HeartbeatConfig
    from pool_monitor.snapshot import AlertingView

SEND_MAX_S = 10.0
"""How long one beat may take at most; with a short interval, half of it."""
LEAVE_S = 1.0
"""How long leaving waits for the last beat."""
GRACE_MAX_S = 10.0
"""A trouble has to stand for an interval, at most for this long, before a beat tells of it."""
_STEP_S = 0.5


class _State(NamedTuple):
    """What the thread shows of itself: replaced as a whole, so that no lock is needed."""

    arrived_at: float | None = None
    error: str | None = None


class Heartbeat:
    """Sends the beats of *service*. All methods are called in its event loop; none blocks.

    *clock* has to advance while the machine is suspended.
    """

    def __init__(self, config: HeartbeatConfig, service: str, clock: Clock | None = None) -> None:
        self._config, self._service, self._clock = config, service, clock or WakefulClock()
        self._limit = min(SEND_MAX_S, config.every / 2)
        self._standing = Standing(min(GRACE_MAX_S, config.every))
        self._pulse: Pulse | None = None
        self._state = _State()
        self._thread: _Thread | None = None

    async def start(self) -> None:
        """Start the thread. Raises ConfigError when there is no URL: a heartbeat that never beats is worse than none.
        Raises PartUnavailable when the system refuses a thread.
        """
        self._pulse = None
        thread = _Thread(self)
        await thread.start()
        self._thread = thread

    async def stop(self, *, in_order: bool) -> None:
        """End the thread, within `LEAVE_S`. *in_order*: nothing has failed, so the receiver is told that it ends."""
        thread, self._thread = self._thread, None
        if thread is not None:
            await thread.stop(in_order=in_order)

    def pulse(self, alerting: AlertingView | None, degraded: Mapping[str, str]) -> None:
        """The event loop runs. To be called about once a second. Raises PartUnavailable when the thread has ended."""
        now = self.now()
        self._pulse = Pulse(now, self._standing.note(dict(troubles(alerting, degraded)), now))
        if self._thread is not None and not self._thread.is_alive():
            raise PartUnavailable("the thread of the heartbeat has ended")

    def view(self) -> HeartbeatView:
        """The state of the heartbeat."""
        state, pulse = self._state, self._pulse
        return HeartbeatView(
            every=self._config.every,
            failing=() if pulse is None else pulse.failing,
            last_success_age=None if state.arrived_at is None else max(self.now() - state.arrived_at, 0.0),
            last_error=state.error,
        )

    def now(self) -> float:
        """Seconds of the monotonic clock."""
        return self._clock.monotonic_ns() / 1e9

    # -- in the thread --------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise ConfigError when there is no URL, without any part of what is there."""
        from pool_monitor.alerts.channels.address_guard import url_problem
        from pool_monitor.alerts.channels.secrets import SecretMissing, place_of, value_of

        secret = self._secret()
        try:
            url = value_of(secret)
        except SecretMissing as error:
            raise ConfigError(f"[alerts] heartbeat: {error}, so no beat could be sent") from None
        if url_problem(url):
            raise ConfigError(f"[alerts] heartbeat: {place_of(secret)} has no URL, such as https://beats.example/1234")

    def _secret(self) -> Secret:
        path = self._config.url_file
        return Secret(variable=self._config.url_env, file=None if path is None else str(path))

    async def beat_until(self, ending: asyncio.Event, in_order: threading.Event) -> None:
        """Send beats until *ending* is set, and a last one if *in_order* is set then."""
        from pool_monitor.alerts.channels import http

        beats, client = Beats(self._config.every), http.HttpClient(self._secret())
        try:
            while not ending.is_set():
                began = self.now()
                beat = beats.due(self._pulse, began)
                if beat is not None:
                    beats.sent(beat, began, arrived=await self._sent(client, beat, ending))
                with suppress(TimeoutError):
                    async with asyncio.timeout(_STEP_S):
                        await ending.wait()
            pulse = self._pulse
            if in_order.is_set() and pulse is not None and not pulse.failing:
                await self._sent(client, Beat("stopping"), None)
        finally:
            await client.aclose()

    async def _sent(self, client: HttpClient, beat: Beat, ending: asyncio.Event | None) -> bool:
        """Send *beat*, unless *ending* comes first. Return whether it has arrived."""
        sending = asyncio.ensure_future(self._send(client, beat))
        waiting = [] if ending is None else [asyncio.ensure_future(ending.wait())]
        await asyncio.wait([sending, *waiting], timeout=self._limit, return_when=asyncio.FIRST_COMPLETED)
        for one in (sending, *waiting):
            one.cancel()
        await asyncio.wait([sending, *waiting])
        if sending.cancelled():
            if ending is not None and ending.is_set():
                return False
            error: str | None = f"not done within {self._limit:g} s"
        else:
            error = sending.result()
        self._note(error)
        return error is None

    async def _send(self, client: HttpClient, beat: Beat) -> str | None:
        """Return why *beat* has not arrived, in words; None: it has."""
        from pool_monitor.alerts.channels.http import Message

        body = msgspec.json.encode(
            {
                "service": self._service,
                "status": beat.status,
                "reasons": beat.reasons,
                "at": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                "version": __version__,
            }
        )
        outcome = await client.post(lambda _: Message(body), path="/fail" if beat.status == "failing" else "")
        return None if outcome.result == "sent" else outcome.reason or outcome.result

    def _note(self, error: str | None) -> None:
        """Take account of what came of a beat, and log it where that changes."""
        before = self._state
        if error is None:
            self._state = _State(self.now(), None)
            if before.error is not None:
                logger("alerts").warning("the heartbeat arrives again")
        else:
            self._state = before._replace(error=error)
            if before.error is None:
                logger("alerts").warning("the heartbeat does not arrive", reason=error)


class _Thread:
    """One thread of a heartbeat, from its start to its end."""

    def __init__(self, heartbeat: Heartbeat) -> None:
        self._heartbeat = heartbeat
        self._home = asyncio.get_running_loop()
        self._begun: asyncio.Future[None] = self._home.create_future()
        self._ended = asyncio.Event()
        self._in_order = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="pool_monitor heartbeat", daemon=True)

    async def start(self) -> None:
        """Start, and wait until there is a URL. Raises what keeps it from beginning."""
        try:
            self._thread.start()
        except RuntimeError as error:
            raise PartUnavailable(f"no thread for the heartbeat: {error}") from error
        await self._begun

    async def stop(self, *, in_order: bool) -> None:
        """End. A thread that hangs is left behind; it ends after what it does."""
        if in_order:
            self._in_order.set()
        if self._loop is not None and self._ending is not None:
            with suppress(RuntimeError):  # it has ended
                self._loop.call_soon_threadsafe(self._ending.set)
        with suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_S):
                await self._ended.wait()

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        try:
            with asyncio.Runner() as runner:
                runner.run(self._live())
        except Exception as error:  # noqa: BLE001 - a thread has no caller: `Heartbeat.pulse` tells that it has ended
            logger("alerts").error("the thread of the heartbeat failed", reason=describe(error))
            self._tell(_fail, self._begun, PartUnavailable("the thread of the heartbeat failed"))
        finally:
            self._tell(self._ended.set)

    async def _live(self) -> None:
        self._loop, self._ending = asyncio.get_running_loop(), asyncio.Event()
        try:
            self._heartbeat.check()
        except ConfigError as error:
            self._tell(_fail, self._begun, error)
            return
        self._tell(_succeed, self._begun)
        await self._heartbeat.beat_until(self._ending, self._in_order)

    def _tell(self, function: object, *arguments: object) -> None:
        with suppress(RuntimeError):  # the loop of the service has ended
            self._home.call_soon_threadsafe(function, *arguments)  # type: ignore[arg-type]


def _succeed(begun: asyncio.Future[None]) -> None:
    if not begun.done():
        begun.set_result(None)


def _fail(begun: asyncio.Future[None], error: Exception) -> None:
    if not begun.done():
        begun.set_exception(error)
        begun.exception()  # retrieved here, if nobody waits for it any more
