"""A process that evaluates real rules on scripted values until it is killed. The next one goes on with its state file.

The script: 200 rules, one pool each. The values of most go up and down, each at a pace of its own, so states change at
every step. Some are always bad: `SLOW` of them fire after a longer time than one life has, and `ETERNAL` never.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pool_monitor import telemetry
from pool_monitor.alerts.alert import fingerprint_of
from pool_monitor.alerts.inputs import Input, Inputs, Sample
from pool_monitor.alerts.manager import AlertManager
from pool_monitor.alerts.rule_file import Rule
from pool_monitor.clock import ManualClock
from pool_monitor.config import AlertsConfig, MonitorConfig, StateConfig
from pool_monitor.storage.shared_state import SharedState

INTERVAL = 5.0
RULES = 200
SLOW = 10
"""Rules 1 to `SLOW` are always bad and fire after ten steps for each."""
ETERNAL = "Rule0"
FOR_ETERNITY = "1000d"
ETERNAL_FINGERPRINT = fingerprint_of(ETERNAL, {"pool": "p0"})


METRICS = ("pool.waiting", "pool.busy", "pool.idle", "pool.dead", "pool.sessions")
"""Each has the instances of a fifth of the rules."""


def rule(number: int) -> Rule:
    held = FOR_ETERNITY if not number else f"{number * 50}s" if number <= SLOW else f"{number % 4 * 5}s"
    return Rule(
        alert=f"Rule{number}",
        threshold={"metric": METRICS[number % 5], "levels": {"warning": {"above": 10}, "critical": {"above": 20}}},
        match={"pool": f"p{number}"},
        for_=held,
        keep_firing_for=f"{number % 3 * 5}s",
    )


def value(number: int, step: int) -> float:
    """The value of the pool of a rule: 5 is good, 15 and 25 are the two levels."""
    if number <= SLOW:
        return 15.0
    phase = (step + number) // (2 + number % 11) % 4
    return (5.0, 15.0, 25.0, 15.0)[phase]


class ScriptedReader:
    """Reads the script in place of Snapshots."""

    def __init__(self, clock: ManualClock, step: int) -> None:
        self._clock, self.step = clock, step

    async def prepare(self, wanted: Iterable[Input]) -> None:
        """Nothing has to be prepared."""

    async def close(self) -> None:
        """Nothing has to be closed."""

    def reading(self, wanted: Iterable[Input], elapsed: float) -> Iterator[Inputs | None]:
        samples = {one: self._samples(METRICS.index(one.metric)) for one in wanted}
        yield Inputs(self._clock.wall_ns() / 1e9, elapsed, samples, 1e6)

    def _samples(self, first: int) -> tuple[Sample, ...]:
        numbers = range(first, RULES, len(METRICS))
        return tuple(Sample((("pool", f"p{number}"),), value(number, self.step)) for number in numbers)


def manager_of(state: Path, clock: ManualClock, reader: ScriptedReader, rules: Sequence[Rule]) -> AlertManager:
    context: Any = SimpleNamespace(
        clock=clock,
        service="service",
        monitor="monitor",
        metrics=None,
        history=lambda: None,
        snapshot_in_steps=None,
        record=lambda: None,
        degraded=lambda *said: say(f"degraded {said}"),
        recovered=lambda *said: say(f"recovered {said}"),
        spent=lambda _seconds: None,
    )
    saved = SharedState(state, context)
    context.state = lambda: saved
    alerts = AlertsConfig(interval=INTERVAL, default_rules=False, log=False, file=str(state.with_suffix(".jsonl")))
    made = AlertManager(MonitorConfig(alerts=alerts, state=StateConfig(path=str(state))), context, reader=reader)
    for one in rules:
        made.add(one)
    return made


async def live(path: Path, step: int, wall: float, last: int, rules: Sequence[Rule]) -> None:
    """Evaluate at once again and again, and tell every change, every step, and a silence. *last*: after so many steps,
    end as a service does; 0: never.
    """
    say(f"pid {os.getpid()}")
    telemetry.attach("told", ("alert", "transition"), tell)
    clock = ManualClock(wall)
    reader = ScriptedReader(clock, step)
    manager = manager_of(path, clock, reader, rules)
    await manager.open()
    silence = manager.silence({"alertname": "Rule5"}, duration="1h", comment=f"life from step {step}")
    await manager.settled()
    say(f"silence {silence}")
    for done in count(1):
        clock.advance(INTERVAL)
        await manager.evaluate()
        say("step")
        if done == 1:
            manager.ack(ETERNAL_FINGERPRINT, author="test")
            await manager.settled()
            say("ack")
        if done == last:
            break
        reader.step += 1
    await manager.close()


def tell(_event: object, _measurements: object, metadata: dict[str, Any], _config: object) -> None:
    say(f"change {metadata['fingerprint']} {metadata['from']} {metadata['to']} {metadata['severity']}")


def nursery() -> None:
    """For every line ``PATH STEP WALL LAST`` on stdin, fork a child that lives from there on, and print how it has
    ended. It forks because the imports of a new interpreter would take longer than a life.
    """
    rules = [rule(number) for number in range(RULES)]
    for line in sys.stdin:
        path, step, wall, last = line.split()
        child = os.fork()
        if not child:
            asyncio.run(live(Path(path), int(step), float(wall), int(last), rules))
            os._exit(0)
        _pid, status = os.waitpid(child, 0)
        say("dead" if os.WIFSIGNALED(status) else f"ended {os.waitstatus_to_exitcode(status)}")


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


if __name__ == "__main__":
    nursery()
