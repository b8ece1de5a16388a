"""A real process that is stopped, or whose event loop is blocked: what is told afterwards is true."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.helpers.gates import IN_GATES
from tests.helpers.programs import ROOT

pytestmark = IN_GATES
SERVICE = """
import asyncio, json, sys, time
from pool_monitor import Monitor, telemetry
from pool_monitor.config import MonitorConfig, ServiceConfig
from pool_monitor.config.alerts import AlertsConfig
from tests.test_monitor import Gauges

def told(**what):
    print(json.dumps(what), flush=True)

async def main(blocks):
    pool = Gauges("text")
    pool.of_pool["waiting"] = 6
    def tell(_event, _numbers, about, _config):
        told(alert=about["alert"], to=about["to"])

    telemetry.attach("told", ("alert", "transition"), tell)
    alerts = AlertsConfig(interval=0.2, default_rules=False)
    config = MonitorConfig(service=ServiceConfig(socket=False), alerts=alerts)
    async with Monitor(pool, config=config) as monitor:
        monitor.alerts.add({"alert": "Waiting", "threshold": {"metric": "pool.waiting", "above": 3}, "for": "3s"})
        if blocks:  # the lag of a process that was stopped counts once, so only a share of it is about blocks
            lag = {"metric": "loop.lag.p50", "window": "1m", "above": "500ms"}
            monitor.alerts.add({"alert": "Blocked", "threshold": lag})
        while True:
            await asyncio.sleep(0.05)
            view = monitor.alerts.view()
            told(evaluations=view.evaluations, paused=view.paused)
            if blocks and view.evaluations == 4:
                time.sleep(2.8)
                blocks = False

asyncio.run(main(sys.argv[1] == "block"))
"""


class Service:
    """The process, and what it says."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process, self.said = process, []
        self._rest = b""

    def until(self, wanted: Any, seconds: float = 20.0) -> None:
        """Read until *wanted* holds for what was said."""
        assert self.process.stdout is not None
        end = time.monotonic() + seconds
        while not any(map(wanted, self.said)):
            assert time.monotonic() < end, self.said[-5:]
            if select.select([self.process.stdout], [], [], 0.1)[0]:
                *lines, self._rest = (self._rest + os.read(self.process.stdout.fileno(), 65536)).split(b"\n")
                self.said += map(json.loads, lines)

    def told(self) -> list[tuple[str, str]]:
        return [(one["alert"], one["to"]) for one in self.said if "alert" in one]


@contextmanager
def service(mode: str) -> Iterator[Service]:
    with subprocess.Popen([sys.executable, "-c", SERVICE, mode], stdout=subprocess.PIPE, cwd=ROOT) as process:
        try:
            yield Service(process)
        finally:
            process.kill()


def test_a_process_that_was_stopped_fires_nothing_and_pauses_first():
    with service("stop") as running:
        running.until(lambda one: one.get("to") == "pending")
        os.kill(running.process.pid, signal.SIGSTOP)
        time.sleep(3.2)  # longer than `for`
        os.kill(running.process.pid, signal.SIGCONT)
        running.until(lambda one: bool(one.get("paused")))
        assert running.told() == [("Waiting", "pending")]
        running.until(lambda one: one.get("to") == "firing")  # by what was seen after the pause
        assert running.told() == [("Waiting", "pending"), ("Waiting", "firing")]
        before = [one for one in running.said if "paused" in one]
        assert max(one["paused"] or 0.0 for one in before) > 2.2


def test_a_blocked_event_loop_is_told_without_a_pause():
    with service("block") as running:
        running.until(lambda one: one.get("alert") == "Blocked" and one["to"] == "firing")
        assert not any(one.get("paused") for one in running.said)
