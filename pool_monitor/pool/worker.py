"""A worker as the pool sees it: a slot, and the processes that fill it in turn."""

from __future__ import annotations

import asyncio
import random
import sys
from typing import TYPE_CHECKING

from pool_monitor.pool.policy.lifecycle import Lifecycle
from pool_monitor.pool.policy.queue import WaitQueue
from pool_monitor.pool.policy.restarts import Backoff, RestartIntensity

if TYPE_CHECKING:
    from pool_monitor.config import PoolConfig
    from pool_monitor.errors import ProtocolError
    from pool_monitor.pool.call import Call
    from pool_monitor.pool.policy.health import Health, Verdict
    from pool_monitor.pool.policy.recycle import RecycleLimits
    from pool_monitor.pool.transport.base import Ready, Transport
    from pool_monitor.telemetry import Record, Series


class WorkerProcess:
    """One process of a slot, from its start to its end. Plain state: the pool changes it, on the event loop."""

    __slots__ = (
        "culprit",
        "due",
        "end_reason",
        "handed",
        "health",
        "limits",
        "number",
        "protocol_error",
        "ready",
        "ready_ns",
        "rss",
        "served",
        "started_ns",
        "transport",
        "verdict",
    )

    def __init__(self, number: int, now_ns: int, health: Health, limits: RecycleLimits) -> None:
        self.number = number  # which of its slot's processes
        self.started_ns = now_ns
        self.health, self.limits = health, limits
        self.transport: Transport | None = None  # None before it is made, and once the process is gone
        self.ready: Ready | None = None
        self.ready_ns = 0  # since when
        self.handed = 0  # calls handed to it
        self.due = sys.maxsize if limits.calls is None else limits.calls  # of those, before it is to be replaced
        self.served = 0  # calls it has answered
        self.rss: int | None = None  # bytes, by its latest answer
        self.verdict: Verdict | None = None  # how it answered, last time it was looked at
        self.end_reason: str | None = None  # why it is being ended, if we end it
        self.culprit = ""  # the operation that is the reason
        self.protocol_error: ProtocolError | None = None  # what its calls fail with once it broke the protocol

    @property
    def recycle_due(self) -> bool:
        """Whether it has been handed as many calls as it may have before it is replaced."""
        return self.handed >= self.due

    @property
    def used_up(self) -> bool:
        """Whether it has been handed as many calls as it may ever have."""
        most = self.limits.most_calls
        return most is not None and self.handed >= most


class Worker:
    """One slot of a pool. The slot's id is stable; processes come and go.

    Plain state: the pool changes it, on the event loop.
    """

    def __init__(self, pool: str, index: int, now_ns: int, config: PoolConfig) -> None:
        self.id = f"{pool}-{index}"
        self.index = index
        self.lifecycle = Lifecycle(now_ns)
        self.keep = True  # False: the slot goes when its process ends
        self.retiring = asyncio.Event()  # the slot is to go; wakes its keeper from a pause between two starts
        self.process: WorkerProcess | None = None  # the present one, starting or started
        self.transport: Transport | None = None  # its; None unless it can be handed calls
        self.successor: WorkerProcess | None = None  # takes its place as soon as it is ready and the slot is idle
        self.recycling = False
        self.replacing = asyncio.Lock()  # held while another process is started beside the present one
        self.process_gone = asyncio.Event()  # the present process has gone
        self.calls_done = asyncio.Event()  # it may have no calls left; a waiter has to look
        self.intensity = RestartIntensity(config.restart_limit, config.restart_period)
        self.backoff = Backoff(config.backoff_min, config.backoff_max, random.Random())  # noqa: S311 - jitter, no secret
        self.last_end = (False, 0)  # of the last process that went: whether we had asked it to, and calls it answered
        self.accepting = False  # may be handed calls
        self.recalling = False  # was asked to give calls back, and takes no others while it has any
        self.reports_progress = False  # says which call it has begun, so that it may be handed calls ahead of time
        self.calls: dict[int, Call] = {}  # in the order handed over; one that has ended may still hold the slot up
        self.records: dict[str, dict[str, Record]] = {}  # of its calls that end well, by session kind and operation
        self.records_of: Series | None = None  # where they are from; with another one they are stale
        self.pinned: WaitQueue[Call] = WaitQueue()  # calls that insist on this slot
        self.processes = 0  # how many it has had, the present one included
        self.restarts = 0  # of those, how many were started because the one before had gone
        self.died_ns: int | None = None  # of the latest crash, until the next process is ready
        self.starts = 0  # since then
        self.crash_loop = False  # restarted more often than the limit allows; pauses before the next try

    @property
    def call(self) -> Call | None:
        """What it is running: the first of its calls."""
        return next(iter(self.calls.values()), None)

    def has_begun(self, call: Call) -> bool:
        """Whether it may have begun a call it was handed."""
        begun = None if self.transport is None else self.transport.begun
        return begun is None or call.nth <= begun

    def __repr__(self) -> str:
        return f"<Worker {self.id} {self.lifecycle.state.value}>"
