"""A small pool in virtual time for tests of the tuner: queue, workers, settings with effects, and its history."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from pool_monitor.advisor.history import (
    ERROR,
    OK,
    TIMEOUT,
    Buckets,
    Calls,
    PoolHistory,
    Spans,
)
from pool_monitor.config.tuner import TunerConfig
from pool_monitor.errors import ConfigError, PoolClosed
from pool_monitor.snapshot.alerts import AlertView
from pool_monitor.tuner.core import TunerCore
from pool_monitor.tuner.driver import act
from pool_monitor.tuner.intents import Emit, Intent, StoreRows, TunerInputs
from pool_monitor.tuner.observation import EndedCall, Observation
from pool_monitor.tuner.pace import Pace

WALL = 1_700_000_000.0


@dataclass
class FakeTunable:
    """A setting that keeps its range, and remembers what was set."""

    name: str = "size"
    value: float = 4.0
    low: float = 1.0
    high: float = 16.0
    step: float = 1.0
    unit: Any = "count"
    live: bool = True
    effect_delay: float = 0.0
    closed: bool = False
    broken: str = ""
    seen: list[float] = field(default_factory=list)

    def set(self, value: float) -> None:
        if self.closed:
            raise PoolClosed("closed", pool="text", waited_s=0.0, waiting=0, size=1)
        if self.broken:
            raise RuntimeError(self.broken)
        if not self.low <= value <= self.high:
            raise ConfigError(f"{self.name} = {value}")
        self.value = value
        self.seen.append(value)


class Effects(NamedTuple):
    """What the settings do to the calls."""

    slower: float = 1.0
    """Factor of the service times."""
    failing: float = 0.0
    """The share of the calls that fails."""
    deaths: float = 0.0
    """Workers that die per second."""


class MiniPool:
    """Calls of a Poisson process, first come, first served. Calls that are longer than the setting ``timeout`` fail."""

    def __init__(
        self,
        seed: int,
        *,
        size: int = 4,
        rate: float = 20.0,
        service: float = 0.1,
        knobs: Sequence[FakeTunable] = (),
        effects: Callable[[Mapping[str, float], int], Effects] = lambda _settings, _busy: Effects(),
        rate_at: Callable[[float], float] | None = None,
        spread: float = 0.5,
        target: float = 0.1,
    ) -> None:
        self.random = np.random.default_rng(seed)
        self.size = FakeTunable(value=float(size), high=64.0)
        self.knobs = [self.size, *knobs]
        self.rate_at = rate_at or (lambda _now: rate)
        self.service, self.spread, self.effects, self.target = service, spread, effects, target
        self.now = 0.0
        self.free = [0.0] * size
        self.rows: list[tuple[float, float, float, int]] = []  # arrived, started, ended, outcome
        self.bucket_rows: list[list[float]] = []  # arrivals, size, deaths, for each second
        self.under_way: list[tuple[float, float, float, int]] = []

    def advance(self, seconds: float = 1.0) -> Observation:
        """Let time pass, and return what has happened."""
        settings = {knob.name: knob.value for knob in self.knobs}
        size = round(settings["size"])
        while len(self.free) < size:
            heapq.heappush(self.free, self.now)
        while len(self.free) > size:
            heapq.heappop(self.free)
        arrivals = self.random.poisson(self.rate_at(self.now) * seconds)
        times = np.sort(self.now + self.random.random(arrivals) * seconds).tolist()
        sigma = math.sqrt(math.log(1 + self.spread**2))
        draws = np.exp(self.random.normal(-sigma * sigma / 2, sigma, arrivals)) * self.service
        luck = self.random.random(arrivals)
        deaths = 0
        for at, draw, chance in zip(times, draws.tolist(), luck.tolist(), strict=True):
            started = max(at, self.free[0])
            busy = 1 + sum(end > started for end in self.free)
            effect = self.effects(settings, busy)
            service = draw * effect.slower
            outcome = ERROR if chance < effect.failing else OK
            limit = settings.get("timeout", math.inf)
            if service > limit:
                service, outcome = limit, TIMEOUT
            heapq.heapreplace(self.free, started + service)
            self.rows.append((at, started, started + service, outcome))
        deaths = int(self.random.poisson(self.effects(settings, 1).deaths * seconds))
        self.bucket_rows.append([float(arrivals), float(size), float(deaths)])
        self.now += seconds
        self.under_way += self.rows[len(self.rows) - len(times) :]
        ended = [row for row in self.under_way if row[2] <= self.now]
        self.under_way = [row for row in self.under_way if row[2] > self.now]
        waiting = sum(self.now < row[1] for row in self.under_way)
        busy = sum(end > self.now for end in self.free)
        return Observation(
            now=self.now,
            wall=WALL + self.now,
            interval=seconds,
            size=size,
            low=1,
            high=64,
            busy=busy,
            idle=size - busy,
            starting=0,
            waiting=waiting,
            arrivals=int(arrivals),
            refused=0,
            calls=[EndedCall(*row[:3]) for row in ended],
            wait_target=self.target,
            cold_start=0.0,
            cpus=None,
            cpu_fraction=None,
            worker_memory=None,
            memory_free=None,
            failed=sum(row[3] == ERROR for row in ended),
        )

    def history(self) -> PoolHistory:
        """What an advisor would know now."""
        rows = np.array([row for row in self.rows[-50_000:] if row[2] <= self.now] or np.zeros((0, 4)), dtype=float)
        rows = rows[np.argsort(rows[:, 2], kind="stable")]
        none = np.full(len(rows), -1, dtype=np.int32)
        calls = Calls(
            rows[:, 0],
            rows[:, 1],
            rows[:, 2],
            np.zeros(len(rows), dtype=np.int32),
            none,
            rows[:, 3].astype(np.int32),
            none,
        )
        return history_of(calls, self.now, np.array(self.bucket_rows[-4000:]), self.target, self.size.value)


def history_of(calls: Calls, now: float, seconds: Any, target: float, size: float) -> PoolHistory:
    """Make a PoolHistory of *calls*, and of rows of arrivals, size and deaths for each second up to *now*."""
    blocks = len(seconds) // 10
    by_block = seconds[len(seconds) - blocks * 10 :].reshape(blocks, 10, 3)
    unknown = np.full(blocks, math.nan)
    columns = dict.fromkeys(Buckets._fields, unknown)
    columns |= {
        "at": now - 10.0 * np.arange(blocks, 0, -1),
        "arrivals": by_block[:, :, 0].sum(1),
        "refused": np.zeros(blocks),
        "size": by_block[:, :, 1].mean(1),
        "ready": by_block[:, :, 1].mean(1),
        "deaths": by_block[:, :, 2].sum(1),
    }
    return PoolHistory(
        pool="text",
        now=now,
        wall=WALL + now,
        since=0.0,
        wait_target=target,
        cold_start=0.0,
        low=1,
        high=64,
        settings={"size": size},
        calls=calls,
        buckets=Buckets(**columns),
        spans=Spans(*(np.zeros(0) for _ in Spans._fields)),
        operations=("op",),
        workers=("0",),
        errors=(),
        by_operation={},
        by_worker={},
        incidents=(),
    )


class Silent:
    """A policy that leaves the size alone."""

    def decide(self, observation: Observation) -> int | None:
        return None


class Rig:
    """A core with one pool, `text`, in virtual time. What the core has told is in *events*."""

    def __init__(
        self,
        pool: MiniPool,
        mode: Any = "recommend",
        *,
        policy: Any = None,
        pace: Pace | None = None,
        rows: Mapping[str, Mapping[str, bytes]] | None = None,
        config: TunerConfig | None = None,
    ) -> None:
        self.pool = pool
        self.rows: dict[str, dict[str, Any]] = {table: dict(found) for table, found in (rows or {}).items()}
        self.config = config or TunerConfig(mode=mode, season=False)
        self.policy = policy or Silent()
        self.pace = pace or Pace()
        self.alerts: list[AlertView] = []
        self.recommendations: list[Any] = []
        self.outage: str | None = None
        self.killed = False
        self.intents: list[Intent] = []
        self.core = self.fresh()

    def fresh(self) -> TunerCore:
        """A core that begins with what was stored."""
        return TunerCore(
            self.config, policies=lambda _pool: self.policy, rows=self.rows, pace=self.pace, killed=lambda: self.killed
        )

    def inputs(self, observation: Observation | None = None) -> TunerInputs:
        return TunerInputs(
            tunables={"text": self.pool.knobs},
            observations={} if observation is None else {"text": observation},
            history=lambda _pool: self.pool.history(),
            recommendations=self.recommendations,
            alerts=self.alerts,
            outage=self.outage,
        )

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        """Let time pass in steps of a second, until *until* holds."""
        for _ in range(round(seconds)):
            observation = self.pool.advance()
            self.do(self.core.step(self.pool.now, WALL + self.pool.now, self.inputs(observation)))
            if until():
                return

    def do(self, intents: Sequence[Intent]) -> None:
        """Carry out *intents* and what follows, and keep what is stored."""
        todo = list(intents)
        while todo:
            for intent in todo:
                self.intents.append(intent)
                if isinstance(intent, StoreRows):
                    self.store(intent)
                else:
                    act(self.core, intent, {"text": self.pool.knobs})
            todo = self.core.take()

    def store(self, intent: StoreRows) -> None:
        for table, rows in intent.rows.items():
            for key, value in rows.items():
                self.rows.setdefault(table, {})[key] = value
                if value is None:
                    del self.rows[table][key]

    def events(self) -> list[tuple[str, str, str]]:
        """The changes so far: setting, from, to."""
        found = [one.metadata for one in self.intents if isinstance(one, Emit)]
        return [(one["knob"], one["from"], one["to"]) for one in found]
