"""A process that evaluates rules on the values that a test tells it, and sends real messages, until it is killed.

The nursery forks a child for each line ``STATE RULES`` on stdin. The child reads commands from the same stdin, one JSON
list a line, and answers each with a line. It knows nothing of the test but that: its clock, its state file and its
network are real.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import select
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

# What a life imports when it needs it is imported once, before a child is made.
import anyio._backends._asyncio  # noqa: F401
import httpcore  # noqa: F401
import msgspec
import yaml  # noqa: F401

from pool_monitor.alerts.inputs import Input, Inputs, Sample
from pool_monitor.alerts.manager import AlertManager
from pool_monitor.clock import Clock, SystemClock
from pool_monitor.config import AlertsConfig, MonitorConfig, StateConfig
from pool_monitor.storage.shared_state import SharedState

INTERVAL = 5.0
FD = 0


class ToldReader:
    """Reads the values that the test has told, by pool, in place of Snapshots."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or SystemClock()
        self.values: dict[str, float] = {}

    async def prepare(self, wanted: Iterable[Input]) -> None:
        """Nothing has to be prepared."""

    async def close(self) -> None:
        """Nothing has to be closed."""

    def reading(self, wanted: Iterable[Input], elapsed: float) -> Iterator[Inputs | None]:
        found = tuple(Sample((("pool", pool),), value) for pool, value in self.values.items())
        yield Inputs(self.clock.wall_ns() / 1e9, elapsed, dict.fromkeys(wanted, found), 1e6)


def manager_of(state: str, rules: Path, reader: ToldReader) -> AlertManager:
    context: Any = SimpleNamespace(
        clock=reader.clock,
        service="service",
        monitor="monitor",
        metrics=None,
        history=lambda: None,
        snapshot_in_steps=None,
        record=lambda: None,
        degraded=lambda *_said: None,
        recovered=lambda *_said: None,
        outages=lambda: (),
        spent=lambda _seconds: None,
    )
    saved = SharedState(None if state == "-" else state, context)
    context.state = lambda: saved
    alerts = AlertsConfig(interval=INTERVAL, default_rules=False, log=False, rules=(str(rules),))
    config = MonitorConfig(alerts=alerts, state=StateConfig(path=None if state == "-" else state))
    return AlertManager(config, context, reader=reader)


async def live(state: str, rules: Path) -> None:
    reader = ToldReader()
    manager = manager_of(state, rules, reader)
    await manager.open()
    lines = Lines()
    say("pid", os.getpid())
    while (command := await lines.next()) is not None:
        say(*await obey(manager, reader, *command))
    await manager.close()


async def obey(manager: AlertManager, reader: ToldReader, what: str, *rest: Any) -> list[Any]:
    if what == "values":
        reader.values |= rest[0]
        await manager.evaluate()
        return ["done"]
    if what == "silence":
        silence = manager.silence(rest[0], duration="1h")
        await manager.settled()
        return ["silence", silence]
    if what == "unsilence":
        manager.unsilence(rest[0])
        await manager.settled()
        return ["done"]
    if what == "reload":
        await manager.reload()
        await manager.settled()
        return ["done"]
    if what == "test":
        return ["outcome", *(await manager.test_receiver(rest[0]))]
    manager.tick()
    return ["view", msgspec.to_builtins(manager.view())]


class Lines:
    """The commands, as they come. Not read ahead: what follows a kill is for the nursery."""

    def __init__(self) -> None:
        self._buffer = b""
        self._ready = asyncio.Event()
        asyncio.get_running_loop().add_reader(FD, self._ready.set)

    async def next(self) -> list[Any] | None:
        """Return the next command; None: the child is to end in order."""
        while b"\n" not in self._buffer:
            await self._ready.wait()
            self._ready.clear()
            if not select.select([FD], [], [], 0)[0]:
                continue
            read = os.read(FD, 65536)
            if not read:
                return None
            self._buffer += read
        line, _, self._buffer = self._buffer.partition(b"\n")
        command: list[Any] | None = json.loads(line)
        return command


def nursery() -> None:
    logging.getLogger("pool_monitor").setLevel(logging.CRITICAL)  # thousands of lines that no test reads
    while line := readline():
        state, rules = line.split()
        child = os.fork()
        if not child:
            asyncio.run(live(state, Path(rules)))
            os._exit(0)
        _pid, status = os.waitpid(child, 0)
        say("dead" if os.WIFSIGNALED(status) else "ended", os.waitstatus_to_exitcode(status))


def readline() -> str:
    """Read one line, and no byte more."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(FD, 1)
        if not byte:
            return ""
        line += byte
    return line.decode()


def say(*answer: Any) -> None:
    os.write(1, json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(nursery())
