"""Runs a watch: polls, evaluates its rules, and tells, with the parts of a service's alerts."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from pool_monitor import telemetry
from pool_monitor.alerts.inputs import Input, Inputs, Sample, Samples
from pool_monitor.alerts.lifecycle import FIRING_PHASES
from pool_monitor.alerts.manager import AlertManager
from pool_monitor.alerts.part import AlertsPart
from pool_monitor.clock import WakefulClock
from pool_monitor.config import AlertsConfig, MonitorConfig, StateConfig
from pool_monitor.config.alerts import HeartbeatConfig
from pool_monitor.events import ALERT_TRANSITION
from pool_monitor.log import logger
from pool_monitor.parts import Context
from pool_monitor.snapshot.validation import plain_text
from pool_monitor.storage.shared_state import SharedState
from pool_monitor.watch.polling import Poller, Wanted
from pool_monitor.watch.rules import WatchFiles
from pool_monitor.watch.watch_list import WatchList

TICK_S = 1.0
PATIENCE = 3
"""Intervals after which a service of which nothing can be said delays the judgement of the others no longer."""


class WatchOptions(NamedTuple):
    """What a watch is asked for."""

    rules: str
    """The file with route and receivers."""
    wanted: Sequence[Wanted] = ()
    """Empty: all services that are discovered."""
    interval: float = 15.0
    """A service that is gone or frozen is found within two of these. Seconds."""
    state: Path | None = None
    """The file with what was told and what is owed; None: it is kept in memory."""
    heartbeat: HeartbeatConfig | None = None


class Watcher:
    """Watches until `run` is cancelled. *say* is called with a line for each change, which may have foreign text."""

    def __init__(self, options: WatchOptions, say: Callable[[str], object] = lambda _line: None) -> None:
        self._options, self._say = options, say
        self.watch_list = WatchList()
        self._poller = Poller(self.watch_list, options.wanted, options.interval)
        self._clock, self._id = WakefulClock(), f"watch-{os.getpid()}-{secrets.token_hex(4)}"
        self._degraded: dict[str, str] = {}
        state = None if options.state is None else str(options.state)
        config = MonitorConfig(
            alerts=AlertsConfig(
                rules=(options.rules,),
                default_rules=False,
                # Judging costs little, and each second that it waits comes on top of the polls.
                interval=min(max(options.interval / 8, 0.1), 1.0),
                log=False,
                heartbeat=options.heartbeat,
            ),
            state=StateConfig(path=state),
        )
        context = self._context()
        self._state = SharedState(state, context)
        reader = PollReader(self.watch_list, self._why_unknown, lambda: self._clock.wall_ns() / 1e9)
        self.alerts = AlertManager(config, context, files=WatchFiles(options.rules), reader=reader)
        self._part = AlertsPart(self.alerts, config.alerts, context)
        self._began = 0.0

    async def run(self) -> None:
        """Watch until this is cancelled; then what has begun is stored. Raises ConfigError for a bad rule file and for
        a state file that another watch uses, and PartUnavailable when rules can be evaluated no more.
        """
        self._began = asyncio.get_running_loop().time()
        telemetry.attach(f"pool_monitor {self._id}", ALERT_TRANSITION.name, self._tell)
        try:
            async with self._part:
                for one in self.alerts.active():
                    if one.alertname == "ServiceGone" and one.state in FIRING_PHASES:
                        self.watch_list.restore(one.labels["service"])
                await self._watch()
        finally:
            telemetry.detach(f"pool_monitor {self._id}")

    async def _watch(self) -> None:
        polling = asyncio.get_running_loop().create_task(self._poller.run(), name="watch")
        await asyncio.sleep(0)  # it begins to look
        known: list[str] | None = None
        try:
            while True:
                if polling.done():
                    polling.result()
                if self._poller.trouble:
                    self._degraded["discovery"] = self._poller.trouble
                else:
                    self._degraded.pop("discovery", None)
                if (left_out := self.watch_list.trouble) and "services" not in self._degraded:
                    self._degrade("services", left_out)
                elif not left_out and "services" in self._degraded:
                    self._recover("services", "there is room for all of them")
                self._part.tick()
                if self.watch_list.services != known:
                    known = self.watch_list.services
                    self._say(f"watching {', '.join(known) or 'nothing: no service is found'}")
                await asyncio.wait([polling], timeout=TICK_S)
        finally:
            polling.cancel()
            await asyncio.wait([polling])

    def _why_unknown(self) -> str | None:
        """Why nothing can be said now, in words; None: something can."""
        if self._poller.trouble:
            return self._poller.trouble
        waited = asyncio.get_running_loop().time() - self._began
        if not self._poller.is_settled and waited < PATIENCE * self._options.interval:
            return "the services have not been polled often enough yet"
        return None

    def _tell(self, _event: object, _measurements: object, about: Mapping[str, Any], _config: object) -> None:
        if about["monitor"] != self._id:
            return
        if about["to"] == "firing":
            self._say(f"{about['alert']} fires: {about['summary']}")
        elif about["from"] in FIRING_PHASES:
            more = f" ({about['reason']})" if about["reason"] else ""
            self._say(f"{about['alert']} is over: {about['labels'].get('service', '')}{more}")

    def _context(self) -> Context:
        """What the alerts may use of the monitor that hosts them. Here it is little."""
        nothing: Any = None
        return Context(
            service=f"watch on {plain_text(socket.gethostname())}",
            monitor=self._id,
            clock=self._clock,
            snapshot=nothing,
            snapshot_in_steps=nothing,
            metrics=nothing,
            workers=nothing,
            pool_names=(),
            pool_instances={},
            on_second=nothing,
            know_errors=nothing,
            on_gauges=nothing,
            asgi=nothing,
            degraded=self._degrade,
            recovered=self._recover,
            outages=lambda: self._degraded,
            alerts=lambda: self.alerts,
            advisor=nothing,
            tuner=nothing,
            statuses=nothing,
            history=lambda: None,
            record=lambda: None,
            tunables=dict,
            state=lambda: self._state,
            spent=lambda _seconds: None,
        )

    def _degrade(self, part: str, reason: str) -> None:
        self._degraded[part] = reason
        logger("watch").warning(f"{part} degraded", reason=reason)

    def _recover(self, part: str, what: str) -> None:
        self._degraded.pop(part, None)
        logger("watch").warning(f"{part} recovered", reason=what)


class PollReader:
    """Reads what the list has found, in place of Snapshots. *why_unknown*: why nothing can be said now."""

    def __init__(self, watch_list: WatchList, why_unknown: Callable[[], str | None], now: Callable[[], float]) -> None:
        self._list, self._why_unknown, self._now = watch_list, why_unknown, now

    async def prepare(self, wanted: Iterable[Input]) -> None:
        """Nothing has to be prepared."""

    def reading(self, wanted: Iterable[Input], elapsed: float) -> Iterator[Inputs | None]:
        """Yield the inputs. What cannot be said is an error of each input, and costs no alert its state."""
        why = self._why_unknown()
        if why is not None:
            yield Inputs(self._now(), elapsed, {}, 0.0, dict.fromkeys(wanted, why))
            return
        found = self._list.found()
        yield Inputs(
            self._now(),
            elapsed,
            {
                one: Samples(
                    Sample((("service", each.service),), None, None, (1.0,), each.reason)
                    for each in found
                    if each.kind == one.metric
                )
                for one in wanted
            },
        )

    async def close(self) -> None:
        """Nothing has to be closed."""


def default_state() -> Path:
    """Return the state file where the user names none: it outlives a restart of the machine."""
    home = os.environ.get("XDG_STATE_HOME")
    with suppress(RuntimeError):  # no home can be found
        base = Path(home) if home and Path(home).is_absolute() else Path.home() / ".local" / "state"
        return base / "pool-monitor" / "watch.db"
    return Path("watch.db")
