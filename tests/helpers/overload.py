"""A simulation of overload: calls arrive at random, wait, and are served or refused. No processes, no real time.

Ten workers that take 20 ms per call on average serve 500 calls a second. The deadline of a call is 250 ms.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from typing import NamedTuple

from pool_monitor.pool.policy.queue import WaitQueue, WorkAhead
from pool_monitor.pool.policy.service_times import ServiceTimes

WORKERS = 10
SERVICE = 0.02
DEADLINE = 0.25
RATE = WORKERS / SERVICE  # calls per second that the workers can serve


class Arrival(NamedTuple):
    """A call of the simulation. Times are seconds since the start of the simulation."""

    id: int
    at: float
    takes: float
    priority: int = 0
    key: str = ""
    expects: tuple[float, float] = (0.0, 0.0)


class Ended(NamedTuple):
    """How many calls ended in which way."""

    calls: int
    in_time: int
    """Answered within their deadline."""
    late: int
    """Served after their deadline: wasted time of a worker."""
    dropped: int
    """Accepted, and dropped while they waited."""
    refused: int
    """Refused on arrival."""

    @property
    def share(self) -> float:
        """The share of all calls that were answered in time."""
        return self.in_time / self.calls


Admit = Callable[[WorkAhead, ServiceTimes], bool]
"""Decides whether a call may wait behind the work ahead of it."""


def by_prediction(ahead: WorkAhead, times: ServiceTimes) -> bool:
    estimate = times.estimate(ahead, 0, WORKERS, "op")
    return estimate is None or estimate.total <= DEADLINE


def everybody(ahead: WorkAhead, times: ServiceTimes) -> bool:
    return True


def arrivals(seconds: float, load: Callable[[float], float], rng: random.Random) -> list[Arrival]:
    """Return Poisson arrivals. *load* returns, for a time, the rate as a multiple of `RATE`; at most 3."""
    calls: list[Arrival] = []
    now, most = 0.0, 3.0
    while (now := now + rng.expovariate(RATE * most)) < seconds:
        if rng.random() * most < load(now):
            calls.append(Arrival(len(calls), now, rng.expovariate(1 / SERVICE)))
    return calls


def steady(load: float) -> Callable[[float], float]:
    return lambda now: load


def bursts(now: float) -> float:
    """Return half of what the workers can serve, but three times their capacity in one second of ten."""
    return 3.0 if now % 10 >= 9 else 0.5


def simulate(calls: list[Arrival], admit: Admit, times: ServiceTimes, stall: tuple[float, float] = (0.0, 0.0)) -> Ended:
    """Serve *calls*. Between the two times of *stall*, no worker makes progress."""
    waiting: WaitQueue[Arrival] = WaitQueue()
    serving: list[tuple[float, float, Arrival]] = []  # a heap: when it ends, when it began
    in_time = late = dropped = refused = 0

    def serve(call: Arrival, now: float) -> None:
        begin = stall[1] if stall[0] <= now < stall[1] else now
        end = begin + call.takes
        if begin < stall[0] < end:
            end += stall[1] - stall[0]
        heapq.heappush(serving, (end, now, call))

    def finish_until(now: float) -> None:
        nonlocal in_time, late, dropped
        while serving and serving[0][0] <= now:
            end, begin, call = heapq.heappop(serving)
            times.add("op", end - begin)
            if end <= call.at + DEADLINE:
                in_time += 1
            else:
                late += 1
            while waiting:
                call = waiting.pop()
                left = call.at + DEADLINE - end
                if left > 0 and left >= (times.mean_of("op") or 0.0) / 2:
                    serve(call, end)
                    break
                dropped += 1

    for call in calls:
        finish_until(call.at)
        # Drop calls whose deadline has passed. All calls have the same timeout, so these are the first in the queue.
        while waiting and next(iter(waiting)).at + DEADLINE <= call.at:
            waiting.pop()
            dropped += 1
        if len(serving) < WORKERS:
            serve(call, call.at)
        elif admit(waiting.ahead(call), times):
            waiting.push(call._replace(expects=times.expects("op")))
        else:
            refused += 1
    finish_until(float("inf"))
    return Ended(len(calls), in_time, late, dropped, refused)
