"""A service with a tuner that kills itself at a given point, for test_tuner_kill.py.

It has the core of the tuner, its driver and the state file, and time that is passed in. Its points are all moments at
which something outside of the core happens: before and after each row is stored, before and after each setting is
changed, and each event. Run as a program, it is a nursery: see `nursery`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec

from pool_monitor import telemetry
from pool_monitor.clock import SystemClock
from pool_monitor.config.tuner import TunerConfig
from pool_monitor.storage.shared_state import SharedState
from pool_monitor.storage.state import Changes
from pool_monitor.testing import InlinePool
from pool_monitor.tuner.core import TunerCore
from pool_monitor.tuner.driver import TunerDriver
from pool_monitor.tuner.intents import TunerInputs
from pool_monitor.tuner.pace import Pace

PACE = Pace(warm_up=1, validation=4, validation_max=8, look=1, verify=1, settle=0, pool_pause=0)
STEPS = 40
"""Seconds of a life. A trial takes less."""
BEFORE, AFTER = 20.0, 22.0
KNOB = {"kept": "health_interval", "rolled_back": "max_wait", "undone": "health_interval"}
"""The setting that is tried, by how the trial ends. Nothing is measured here. So a setting that is not risky is kept,
and a risky one is rolled back; ``undone``: a person rolls it back after it was kept.
"""


class Points:
    """Counts the points, and ends the process at the point *last*; 0: at none."""

    def __init__(self, last: int) -> None:
        self._last, self._count = last, 0

    def __call__(self, label: str) -> None:
        self._count += 1
        say(f"point {label}")
        if self._count == self._last:
            os.kill(os.getpid(), signal.SIGKILL)


class KnobInFile:
    """A setting of something that goes on when the service ends, such as a proxy. Its value is in a file."""

    unit, low, high, step, live, effect_delay = "s", 1.0, 60.0, 0.5, True, 0.0

    def __init__(self, name: str, path: Path) -> None:
        self.name, self._path = name, path

    @property
    def value(self) -> float:
        return float(self._path.read_text()) if self._path.exists() else BEFORE

    def set(self, value: float) -> None:
        beside = self._path.with_suffix(".new")
        beside.write_text(str(value))
        beside.replace(self._path)


class KnobWithPoints:
    """The same setting, with a point before and after each change."""

    def __init__(self, knob: Any, points: Points) -> None:
        self._knob, self._points = knob, points

    def __getattr__(self, name: str) -> Any:
        return getattr(self._knob, name)

    def set(self, value: float) -> None:
        self._points(f"before_set {value:g}")
        self._knob.set(value)
        self._points(f"after_set {value:g}")


async def live(path: Path, end: str, last: int, *, survives: bool) -> None:
    """One life: propose and approve a change, unless there is a trial already, and go on until it has ended."""
    points = Points(last)
    telemetry.attach("points", ("tuning", "transition"), lambda _e, _m, about, _c: points(f"event {about['to']}"))
    nothing: Any = lambda *_: None  # noqa: E731
    context = SimpleNamespace(clock=SystemClock(), degraded=nothing, recovered=nothing, spent=nothing)
    keeper = await SharedState(path, context).open("tuner")
    pool = InlinePool(SimpleNamespace(echo=lambda: 1), name="text", size=1, health_interval=BEFORE, max_wait=BEFORE)

    async def commit(rows: Mapping[str, Mapping[str, bytes | None]]) -> bool:
        about = " ".join(msgspec.json.decode(row)["trial"]["stage"] for row in rows.get("trials", {}).values() if row)
        points(f"before_commit {about or '-'}")
        kept = await keeper.commit(Changes(rows))  # type: ignore[arg-type]
        points(f"after_commit {about or '-'}")
        return kept

    async with pool:
        name = KNOB[end]
        own = next(one for one in pool.tunables() if one.name == name)
        knob = KnobWithPoints(KnobInFile(name, path.with_suffix(".value")) if survives else own, points)
        core = TunerCore(TunerConfig(mode="recommend"), rows=keeper.load().rows, pace=PACE)
        driver = TunerDriver(core, commit, lambda: {"text": [knob]})
        for now in range(STEPS):
            await driver.step(float(now), 1e9 + now, TunerInputs({"text": [knob]}))
            views = [*core.pending(), *core.history()]
            if not views:
                core.propose("text", name, AFTER)
            elif views[0].state in ("proposed", "awaiting_approval"):
                core.approve(views[0].id)
            elif end == "undone" and views[0].state == "kept" and now % 5 == 4:
                core.rollback(views[0].id)
            await driver.settle()
        states = " ".join(view.state for view in [*core.pending(), *core.history()])
        say(f"end {knob.value:g} {states or 'none'}")
    await keeper.close()


def nursery() -> None:
    """For every line ``PATH END LAST SURVIVES`` on stdin, fork a child that lives so, and say how it has ended."""
    for line in sys.stdin:
        path, end, last, survives = line.split()
        child = os.fork()
        if not child:
            asyncio.run(live(Path(path), end, int(last), survives=survives == "1"))
            os._exit(0)
        _pid, status = os.waitpid(child, 0)
        say("dead" if os.WIFSIGNALED(status) else f"ended {os.waitstatus_to_exitcode(status)}")


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


if __name__ == "__main__":
    nursery()
