"""`Sizer`: the size that one pool should have, from its policy, the schedule and the season."""

from __future__ import annotations

import math
from datetime import datetime, tzinfo
from typing import Literal, NamedTuple, SupportsFloat

from pool_monitor.config.tuner import TunerConfig
from pool_monitor.tuner.observation import Observation
from pool_monitor.tuner.policy import Policy
from pool_monitor.tuner.sizing import caps
from pool_monitor.tuner.sizing.loading import make_policy
from pool_monitor.tuner.sizing.schedule import Schedule, local
from pool_monitor.tuner.sizing.season import PoolSeason, Rise
from pool_monitor.tuner.sizing.size_policy import SizePolicy

Origin = Literal["policy", "schedule", "season"]
_LAST_WALL = 32_503_680_000.0
"""The year 3000: a wall clock beyond it, or before 1970, is wrong, and no time of day follows from it."""


class Sizing(NamedTuple):
    """What a `Sizer` wants."""

    wanted: int | None
    """The size that the pool should have, in the range of the observation; None: leave it."""
    origin: Origin
    """What decided."""
    floor: int | None
    """The lowest size by the schedule, and by the season where it is followed; None: there is none now."""
    ceiling: int | None
    """The highest size by a limit that was measured; None: there is none now."""
    why: str
    """What decided, in words. It may hold text of a user's policy."""
    error: Exception | None = None
    """What the policy has raised. The schedule and the season hold all the same."""


class Upcoming(NamedTuple):
    """A rise that comes at this time on most days."""

    at: float
    """Wall-clock time at which the workers should be ready."""
    size: int
    why: str
    """In words, with how many days have shown it."""


class Sizer:
    """Chooses the size of one pool. Serves one pool, in the event loop of the service; no I/O, under a millisecond.

    The schedule and the season raise the size that the policy wants, within the range and the memory. They stand above
    a ceiling that was measured: the operator's word does.
    """

    def __init__(
        self, pool: str, config: TunerConfig, policy: Policy | None = None, zone: tzinfo | None = None
    ) -> None:
        """*policy*: in the place of the one that *config* names. *zone*: in the place of the local time zone.

        Raises ConfigError for a policy that cannot be made.
        """
        self._pool = pool
        self._zone = zone
        self.resting = False
        """Whether the policy is not asked. The schedule and the season hold all the same."""
        self.policy = policy if policy is not None else make_policy(config.policy)
        self._measure = self.policy if isinstance(self.policy, SizePolicy) else SizePolicy()
        self._schedule = Schedule(pool, config.schedule, zone)
        self._season = PoolSeason(zone) if config.season else None

    def decide(self, observation: Observation, follow_season: bool = True) -> Sizing:
        """Return what the pool should have now. *follow_season* False: the season is learned and not followed."""
        wanted, error = self._ask(observation)
        why, ceiling = _text(getattr(self.policy, "why", "")), getattr(self.policy, "ceiling", None)
        if self._measure is not self.policy:
            self._measure.decide(observation)
        floor, origin = self._floor(observation, follow_season)
        if not isinstance(ceiling, int):
            ceiling = None
        if floor is None:
            return Sizing(wanted, "policy", None, ceiling, why, error)
        if floor > (observation.size if wanted is None else wanted):
            why = f"the {origin} asks for at least {floor}" + (f"; {why}" if why else "")
            return Sizing(floor, origin, floor, ceiling, why, error)
        return Sizing(wanted, "policy", floor, ceiling, why, error)

    def upcoming(self, wall: float) -> Upcoming | None:
        """Return the next rise that the season expects within a day from *wall*; None: it expects none."""
        if self._season is None or not 0 <= wall < _LAST_WALL:
            return None
        rise = self._season.upcoming(wall)
        return None if rise is None else Upcoming(rise.at, rise.size, self._words(rise))

    def state(self) -> bytes:
        """Return what was learned, to be given to `restore` after a restart: at most 17 KiB; empty: nothing is."""
        return self._season.state() if self._season is not None else b""

    def restore(self, state: bytes) -> None:
        """Take over what `state` returned. Bytes that are not its own, or of another version, are ignored."""
        if self._season is not None:
            self._season.restore(state)

    def _ask(self, observation: Observation) -> tuple[int | None, Exception | None]:
        if self.resting:
            return None, None
        try:
            wanted = whole(self.policy.decide(observation))
            return None if wanted is None else min(max(wanted, observation.low), observation.high), None
        except Exception as error:  # noqa: BLE001 - the policy may be the user's
            return None, error

    def _floor(self, seen: Observation, follow_season: bool) -> tuple[int | None, Origin]:
        """Return the floor and what it comes from."""
        wall = seen.wall
        if not 0 <= wall < _LAST_WALL:
            return None, "policy"
        cold_start = seen.cold_start if 0 <= seen.cold_start < 86400 else 0.0
        floors: list[tuple[int, Origin]] = []
        scheduled = self._schedule.floor_at(wall, cold_start)
        if scheduled is not None:
            floors.append((scheduled, "schedule"))
        if self._season is not None:
            self._season.observe(wall, seen.interval, self._measure.needed)
            expected = self._season.floor_at(wall, cold_start) if follow_season else None
            if expected is not None:
                floors.append((expected, "season"))
        if not floors:
            return None, "policy"
        floor, origin = max(floors, key=lambda one: one[0])
        memory = caps.memory(seen)
        if memory is not None:
            floor = min(floor, max(memory.size, seen.size))
        return min(max(floor, seen.low), seen.high), origin

    def _words(self, rise: Rise) -> str:
        at: datetime = local(rise.at, self._zone)
        return f"be at {rise.size} by {at:%H:%M}: so it was on {rise.days} of the last {rise.of} days"


def whole(answer: object) -> int | None:
    """Return what a policy has answered as a number of workers, or None. Raises TypeError for anything else."""
    if answer is None or type(answer) is int:  # nearly always; to look at a protocol takes 10 us
        return answer
    if isinstance(answer, bool) or not isinstance(answer, SupportsFloat) or not math.isfinite(answer):
        raise TypeError(f"decide() returned {answer!r:.80}: a number of workers or None is needed")
    return round(float(answer))


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
