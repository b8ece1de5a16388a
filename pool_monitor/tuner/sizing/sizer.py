"""`Sizer`: the size that one pool should have, from its policy, the schedule and the season."""

from __future__ import annotations

from datetime import tzinfo
from typing import Literal, NamedTuple

from pool_monitor.config.tuner import TunerConfig
from pool_monitor.tuner.observation import Observation
from pool_monitor.tuner.policy import Policy
from pool_monitor.tuner.sizing.loading import make_policy


class Sizing(NamedTuple):
    """What a `Sizer` wants."""

    wanted: int | None
    """The size that the pool should have, in the range of the observation; None: leave it."""
    origin: Literal["policy", "schedule", "season"]
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
    """Chooses the size of one pool. Serves one pool, in the event loop of the service; no I/O, under a millisecond."""

    def __init__(
        self, pool: str, config: TunerConfig, policy: Policy | None = None, zone: tzinfo | None = None
    ) -> None:
        """*policy*: in the place of the one that *config* names. *zone*: in the place of the local time zone.

        Raises ConfigError for a policy that cannot be made.
        """
        self._pool = pool
        self._zone = zone
        self.policy = policy if policy is not None else make_policy(config.policy)

    def decide(self, observation: Observation, follow_season: bool = True) -> Sizing:
        """Return what the pool should have now. *follow_season* False: the season is learned and not followed."""
        wanted = self.policy.decide(observation)
        if wanted is not None:
            wanted = min(max(wanted, observation.low), observation.high)
        return Sizing(wanted, "policy", None, getattr(self.policy, "ceiling", None), getattr(self.policy, "why", ""))

    def upcoming(self, wall: float) -> Upcoming | None:
        """Return the next rise that the season expects within a day from *wall*; None: it expects none."""
        return None

    def state(self) -> bytes:
        """Return what was learned, to be given to `restore` after a restart: at most 64 KiB."""
        return b""

    def restore(self, state: bytes) -> None:
        """Take over what `state` returned. Bytes that are not its own, or of another version, are ignored."""
