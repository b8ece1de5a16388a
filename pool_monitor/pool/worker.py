"""The state of a worker in the pool: a slot, and the process that fills it."""

from __future__ import annotations

import asyncio
import random
import sys
from typing import TYPE_CHECKING

from pool_monitor.pool.policy.lifecycle import Lifecycle
from pool_monitor.pool.policy.queue import WaitQueue
from pool_monitor.pool.policy.restarts import Backoff, RestartIntensity
from pool_monitor.snapshot import WorkerView

if TYPE_CHECKING:
    from pool_monitor.config import PoolConfig
    from pool_monitor.errors import ProtocolError
    from pool_monitor.pool.call import Call
    from pool_monitor.pool.kernel_kills import Ending
    from pool_monitor.pool.policy.health import Health, Verdict
    from pool_monitor.pool.policy.recycle import RecycleLimits
    from pool_monitor.pool.transport.interface import Ready, Transport
    from pool_monitor.telemetry import Record, Series


class WorkerProcess:
    """One process of a slot, from its start to its end. Plain state: the pool changes it, on the event loop."""

    __slots__ = (
        "concurrency",
        "culprit",
        "due",
        "end_reason",
        "ending",
        "exit_code",
        "handed",
        "health",
        "limits",
        "number",
        "protocol_error",
        "ready",
        "ready_ns",
        "rss",
        "served",
        "stack",
        "started_ns",
        "transport",
        "verdict",
    )

    def __init__(self, number: int, now_ns: int, health: Health, limits: RecycleLimits, concurrency: int = 1) -> None:
        self.number = number  # its ordinal among the slot's processes
        self.started_ns = now_ns
        self.health, self.limits = health, limits
        self.concurrency = concurrency  # calls that it can run at once
        self.transport: Transport | None = None  # None before it is made, and once the process is gone
        self.ready: Ready | None = None  # None until it has loaded the target
        self.ready_ns = 0  # when it had
        self.handed = 0  # calls handed to it
        self.due = sys.maxsize if limits.calls is None else limits.calls  # calls handed to it at which it is recycled
        self.served = 0  # calls it has answered
        self.rss: int | None = None  # bytes, by its latest answer to a ping
        self.verdict: Verdict | None = None  # of the latest checkup
        self.end_reason: str | None = None  # why the pool ends it; None if the pool does not
        self.ending: Ending | None = None  # how it ended; None while it runs, and if the pool ended it
        self.exit_code: int | None = None  # once it has gone; None: unknown
        self.culprit = ""  # the operation that is the reason
        self.stack: str | None = None  # taken before the pool killed it
        self.protocol_error: ProtocolError | None = None  # set once it has violated the protocol: its calls' error

    @property
    def recycle_due(self) -> bool:
        """Whether it has been handed the number of calls at which it is recycled."""
        return self.handed >= self.due

    @property
    def used_up(self) -> bool:
        """Whether it may be handed no more calls, even without a successor."""
        most = self.limits.most_calls
        return most is not None and self.handed >= most


class Worker:
    """One slot of a pool. The slot and its id stay; its processes are replaced.

    Plain state: the pool changes it, on the event loop.
    """

    def __init__(self, pool: str, index: int, now_ns: int, config: PoolConfig) -> None:
        self.id = f"{pool}-{index}"
        self.index = index
        self.lifecycle = Lifecycle(now_ns)
        self.keep = True  # False: the slot is retired when its process ends
        self.retiring = asyncio.Event()  # the slot is being retired; ends its keeper's pause between two starts
        self.process: WorkerProcess | None = None  # the present process, starting or started
        self.transport: Transport | None = None  # of this process; None unless it can be handed calls
        self.successor: WorkerProcess | None = None  # the process that takes over once it is ready and the slot is idle
        self.recycling = False
        self.replacing = asyncio.Lock()  # held while a successor is started beside the present process
        self.process_gone = asyncio.Event()  # the present process has gone
        self.calls_done = asyncio.Event()  # the slot may have no calls left; its waiter must check `calls`
        self.intensity = RestartIntensity(config.restart_limit, config.restart_period)
        self.backoff = Backoff(config.backoff_min, config.backoff_max, random.Random())  # noqa: S311 - jitter only
        self.last_end = (False, 0)  # of the last process: whether the pool ended it, and the calls it answered
        self.accepting = False  # may be handed calls
        self.most_calls = 1  # it may hold, unless it reports its progress
        self.recalling = False  # was asked to give calls back, and is handed no others while it holds any
        self.reports_progress = False  # reports which call it has begun, so that it can be handed calls ahead of time
        self.calls: dict[int, Call] = {}  # in the order of hand-over; some may have ended for their callers
        self.records: dict[str, dict[str, Record]] = {}  # of its calls that end well, by session kind and operation
        self.records_of: Series | None = None  # the series that `records` belong to; with any other they are stale
        self.pinned: WaitQueue[Call] = WaitQueue()  # calls that may run only on this slot
        self.processes = 0  # the number of processes so far, with the present one
        self.restarts = 0  # the number of processes that were started because the one before had gone
        self.died_ns: int | None = None  # when it last crashed; None once the next process is ready
        self.starts = 0  # starts since it was last ready
        self.crash_loop = False  # restarted more often than the limit allows: its keeper pauses before the next start

    @property
    def call(self) -> Call | None:
        """The first of its calls, which it runs or will run next; None if it has none."""
        return next(iter(self.calls.values()), None)

    def has_begun(self, call: Call) -> bool:
        """Whether the worker has begun *call*, or may have, if it does not report its progress."""
        begun = None if self.transport is None else self.transport.begun
        return begun is None or call.nth <= begun

    def __repr__(self) -> str:
        return f"<Worker {self.id} {self.lifecycle.state.value}>"


def view_of(worker: Worker, now_ns: int) -> WorkerView:
    """Return the gauges of a slot at *now_ns*. The statistics of calls are left empty."""
    process, call = worker.process, worker.call
    return WorkerView(
        id=worker.id,
        state=worker.lifecycle.state.value,
        state_age=(now_ns - worker.lifecycle.since_ns) / 1e9,
        pid=None if process is None or process.ready is None else process.ready.pid,
        age=None if process is None else (now_ns - process.started_ns) / 1e9,
        restarts=worker.restarts,
        operation=None if call is None else call.operation,
        call_age=None if call is None else (now_ns - call.sent_ns) / 1e9,
        calls_held=len(worker.calls),
        health=None if process is None or process.verdict is None else process.verdict.value,
        rss=None if process is None else process.rss,
        rss_limit=None if process is None else process.limits.rss,
        crash_loop=worker.crash_loop,
    )
