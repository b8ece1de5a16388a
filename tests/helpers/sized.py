"""A pool of a test that a policy sizes: a queue in virtual time, small and without events.

It is no laboratory: calls are served in the order of their arrival, and what a worker costs to start is only time.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from pool_monitor.tuner.observation import EndedCall, Observation
from pool_monitor.tuner.policy import Policy

QUIET = Observation(
    now=0.0,
    wall=1_700_000_000.0,
    interval=1.0,
    size=4,
    low=2,
    high=64,
    busy=0,
    idle=4,
    starting=0,
    waiting=0,
    arrivals=0,
    refused=0,
    calls=(),
    wait_target=0.1,
    cold_start=2.0,
    cpus=None,
    cpu_fraction=None,
    worker_memory=None,
    memory_free=None,
)
"""An observation of a pool in which nothing happens."""


class Load(NamedTuple):
    """What a test lets happen to a pool."""

    rate: Callable[[float], float]
    """Calls per second at a time."""
    service: Callable[[random.Random, int, float], float]
    """The seconds of one call, from the random numbers, the workers that are busy and the time."""


class Life(NamedTuple):
    """What came of it, a row for each second."""

    sizes: list[int]
    late: float
    """The share of the calls that waited longer than the target."""

    @property
    def reversals(self) -> int:
        steps = [b - a for a, b in zip(self.sizes, self.sizes[1:], strict=False) if a != b]
        return sum((a > 0) != (b > 0) for a, b in itertools.pairwise(steps))


def exponential(mean: float) -> Callable[[random.Random, int, float], float]:
    """Calls of exponential length."""
    return lambda chance, _busy, _now: chance.expovariate(1 / mean)


def live(policy: Policy, load: Load, seconds: int, seed: int = 1, first: Observation = QUIET) -> Life:
    """Let *policy* size a pool for *seconds*; *first* has its beginning, its range, its target and its cold start."""
    chance = random.Random(seed)
    queue: deque[float] = deque()
    running: list[tuple[float, float, float]] = []  # end, start, arrival
    starting: list[float] = []
    size, ready, late, total = first.size, first.size, 0, 0
    sizes: list[int] = []
    following = chance.expovariate(max(load.rate(0.0), 1e-9))
    for second in range(1, seconds + 1):
        now, arrivals, ended = float(second), 0, []
        while True:
            at = min(following, running[0][0] if running else now, starting[0] if starting else now)
            if at >= now:
                break
            if starting and at == starting[0]:
                heapq.heappop(starting)
                ready += 1
            elif at == following:
                arrivals += 1
                queue.append(at)
                following = at + chance.expovariate(max(load.rate(at), 1e-9))
            else:
                end, began, arrived = heapq.heappop(running)
                ended.append(EndedCall(arrived, began, end))
            while queue and len(running) < ready:
                arrived = queue.popleft()
                total, late = total + 1, late + (at - arrived > first.wait_target)
                heapq.heappush(running, (at + load.service(chance, len(running) + 1, at), at, arrived))
        busy = min(len(running), ready)
        wanted = policy.decide(
            first._replace(
                now=first.now + now,
                wall=first.wall + now,
                size=size,
                busy=busy,
                idle=max(0, ready - len(running)),
                starting=len(starting),
                waiting=len(queue),
                arrivals=arrivals,
                calls=ended,
            )
        )
        if wanted is not None:
            while size < wanted:
                size += 1
                heapq.heappush(starting, now + first.cold_start)
            while size > wanted:
                size -= 1
                if starting:
                    starting.pop()
                    heapq.heapify(starting)
                else:
                    ready -= 1
        sizes.append(size)
    return Life(sizes, late / max(1, total))
