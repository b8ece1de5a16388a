"""The calls and the workers of a `SimulatedPool`, and what faults change for single calls."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

STARTING, IDLE, BUSY, GONE = range(4)
"""The states of a worker."""


class SimulatedCall:
    """A call. It waits, runs or has ended."""

    __slots__ = ("arrived", "cpu_rate", "deadline", "ends", "expects", "id", "operation", "pinned", "started", "waits")

    priority = 0
    key = ""

    def __init__(self, number: int, arrived: float, operation: int) -> None:
        self.id, self.arrived, self.operation = number, arrived, operation
        self.deadline = self.ends = self.started = 0.0
        self.pinned: SimulatedWorker | None = None
        self.waits = False
        self.expects = (0.0, 0.0)
        self.cpu_rate = 0.0  # processor-seconds per second that it runs


class SimulatedWorker:
    """A slot, with the process that is in it."""

    __slots__ = (
        *("busy_s", "call", "calls", "cpu_s", "epoch", "factor", "id", "number", "pid", "pinned", "records"),
        *("records_of", "replace", "restarts", "retiring", "since", "started", "state"),
    )

    def __init__(self, pool: str, number: int) -> None:
        self.id, self.number, self.state = f"{pool}-{number}", number, GONE
        self.call: SimulatedCall | None = None
        self.pinned: deque[SimulatedCall] = deque()
        self.retiring = False  # it ends after its call
        self.replace = ""  # why it is to be replaced after its call; empty: it is not
        self.factor = 1.0  # by which its calls take longer
        self.epoch = self.restarts = self.calls = self.pid = 0
        self.since = self.started = 0.0  # when its process became ready, and was started
        self.busy_s = self.cpu_s = 0.0  # of its process, without the current call
        self.records: list[Callable[..., object] | None] = []
        self.records_of: object = None


class CallRules(Protocol):
    """What faults change for single calls. The simulator asks only where a scenario has such faults."""

    def pinned(self, call: SimulatedCall) -> SimulatedWorker | None:
        """The worker that *call* waits for; None: any."""

    def hangs(self, call: SimulatedCall, worker: SimulatedWorker) -> bool:
        """Whether only its time-out ends *call*."""

    def error(self, call: SimulatedCall, worker: SimulatedWorker) -> str | None:
        """The error with which *call* ends on *worker*; None: it ends well."""
