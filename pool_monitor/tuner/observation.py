"""`Observation`: what a policy is given. The laboratory and the tuner give the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class EndedCall(NamedTuple):
    """One call that has ended on a worker. Times are seconds on the clock of `Observation.now`."""

    arrived: float
    started: float
    """When a worker was free for it. The wait is ``started - arrived``."""
    ended: float

    @property
    def wait(self) -> float:
        return self.started - self.arrived

    @property
    def service(self) -> float:
        return self.ended - self.started


class Observation(NamedTuple):
    """What is known of one pool at one moment, and what has happened since the observation before."""

    now: float
    """Monotonic seconds."""
    wall: float
    """Seconds since the epoch."""
    interval: float
    """Seconds since the observation before; it may be longer than the interval of the configuration."""
    size: int
    """Workers wanted now."""
    low: int
    high: int
    """The range in which the answer must be."""
    busy: int
    idle: int
    starting: int
    waiting: int
    """Calls in the queue."""
    arrivals: int
    """Calls that have arrived in the interval, also those that were refused."""
    refused: int
    """Calls that were refused in the interval."""
    calls: Sequence[EndedCall]
    """The calls that have ended on a worker in the interval. Above 5,000 per second, a share of them."""
    wait_target: float
    """The wait, in seconds, that 95 % of the calls may have at most."""
    cold_start: float
    """Seconds from the wish for a worker until it is ready, as last measured or expected."""
    cpus: float | None
    """Processors that the pool may use: those that other pools of the service leave; None: not known."""
    cpu_fraction: float | None
    """Processor-seconds per busy second of a worker; None: not known."""
    worker_memory: int | None
    """Bytes of a large worker (95th percentile); None: not known."""
    memory_free: int | None
    """Bytes that more workers may take; None: not known."""
    failed: int = 0
    """Calls of *ended* that have ended with an error."""
    crash_loops: int = 0
    """Workers that die again and again as they start, or soon after."""
    ended: int | None = None
    """Calls that have ended on a worker in the interval, also those that *calls* lacks, such as those whose events are
    filtered; None: not known.
    """

    @property
    def utilisation(self) -> float | None:
        """The share of the workers that are ready which is busy; None: none is ready."""
        ready = self.busy + self.idle
        return self.busy / ready if ready else None
