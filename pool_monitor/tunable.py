"""`Tunable`: one setting of a running pool that may be changed, and the only way back from a monitor to a pool."""

from __future__ import annotations

from typing import Literal, Protocol

TunableUnit = Literal["count", "s", "ratio", "bytes"]


class Tunable(Protocol):
    """One setting of a pool that may be changed while it runs. Any pool may offer some, from its method ``tunables``.

    The attributes are read and never set from outside: only the pool changes them, in `set`.
    """

    @property
    def name(self) -> str:
        """The name of the setting, such as ``size`` or ``health_interval``. Unique within its pool."""

    @property
    def unit(self) -> TunableUnit:
        """The unit of all numbers here."""

    @property
    def value(self) -> float:
        """The value now."""

    @property
    def low(self) -> float:
        """The lowest value that is safe."""

    @property
    def high(self) -> float:
        """The highest value that is safe."""

    @property
    def step(self) -> float:
        """The smallest change that makes sense. A ``count`` has whole steps."""

    @property
    def live(self) -> bool:
        """Whether a change applies to everything that begins after it. False: it applies to processes started later."""

    @property
    def effect_delay(self) -> float:
        """Seconds until a change has had its effect, such as the time until a new worker is ready.

        A pool may leave it out: it is 0 then.
        """

    def set(self, value: float) -> None:
        """Change the value. To be called in the event loop of the pool. Returns at once.

        Raises ConfigError for a value outside *low* to *high*, and PoolClosed once the pool drains. Then nothing has
        changed.
        """


def effect_delay(tunable: Tunable) -> float:
    """Seconds until a change of *tunable* has had its effect; 0 where its pool does not say so."""
    delay: float = getattr(tunable, "effect_delay", 0.0)
    return delay
