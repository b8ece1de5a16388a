"""One worker process without a pool, and a record of what its transport reports."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Any

from pool_monitor.pool.transport.interface import Reply
from pool_monitor.pool.transport.launcher import LaunchSpec, ProcessLauncher, import_path
from pool_monitor.pool.transport.process import ProcessTransport
from tests.helpers.support import OPS, eventually


class Record:
    """A sink that records every method called on it, with its arguments."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def returned(self, replies: Sequence[Reply]) -> None:
        self.told += [("replied", reply.call_id, reply.result, None, reply.times) for reply in replies]

    def __getattr__(self, name: str) -> Any:
        return lambda *values: self.told.append((name, *values))

    def of(self, name: str) -> list[list[Any]]:
        return [values for what, *values in self.told if what == name]

    def answered(self) -> list[int]:
        """Return the ids of the answered calls, in the order of the answers."""
        return [told[1] for told in self.told if told[0] in ("replied", "failed")]

    def results(self) -> dict[int, Any]:
        return {call_id: result for call_id, result, *_ in self.of("replied")}


def launch(**fields: Any) -> LaunchSpec:
    """Return the launch specification of a worker with the operations of targets/ops.py."""
    return LaunchSpec(
        **{
            "target": OPS,
            "python": sys.executable,
            "path": import_path(sys.executable, []),
            "env": {},
            "init": ((), {}),
            "codecs": ["msgpack", "json"],
            "frame_limit": 1 << 20,
            "session_data_limit": 1 << 10,
            **fields,
        }
    )


class Line:
    """A started transport and its sink."""

    def __init__(self, transport: ProcessTransport, record: Record) -> None:
        self.transport, self.record = transport, record
        self.last = 0

    def call(self, operation: str, *args: Any, stream: bool = False, session: Any = None, **kwargs: Any) -> int:
        """Hand over a call and return its id."""
        self.last += 1
        self.transport.call(self.last, operation, args, kwargs, stream, session)
        return self.last

    async def run(self, operation: str, *args: Any, **kwargs: Any) -> Any:
        """Make a call and return its result."""
        call_id = self.call(operation, *args, **kwargs)
        await eventually(lambda: call_id in self.record.answered())
        return self.record.results()[call_id]


@contextlib.asynccontextmanager
async def started(**fields: Any) -> AsyncIterator[Line]:
    """Run a worker until the end of the block."""
    record, settings = Record(), launch(**fields)
    launcher = ProcessLauncher(settings._replace(start_method="exec"))
    transport = ProcessTransport(settings, record, launcher)
    try:
        await transport.start()
        yield Line(transport, record)
        await transport.stop(5.0, 1.0)
    finally:
        transport.kill()
        await eventually(lambda: record.of("gone"))
        launcher.abandon()
