"""What of a pool may be tuned while it runs: the table `KNOBS`, and the `Tunable` that a row of it makes of a pool.

The ranges are those in which a wrong value does harm that can be measured and taken back. They begin at what the pool
was made with, because that is the word of the operator: a value that the operator chose is always within its range.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from pool_monitor.errors import ConfigError

if TYPE_CHECKING:
    from pool_monitor.config import PoolConfig
    from pool_monitor.pool.settings import PoolSettings
    from pool_monitor.tunable import Tunable, TunableUnit

TURNOVER_S = 3600.0
"""The effect delay of a setting of processes that are started later: nobody knows when the present ones end."""
QUEUE_LEAST, QUEUE_MOST = 16, 10_000
"""The range of ``queue_limit``. Waiting calls take memory, so only an operator sets a higher limit than the default."""

MEMORY_SHARE = 0.9
"""The share of the memory that the limits of all workers may take together."""

Range = tuple[float, float]


class Knob(NamedTuple):
    """One setting that a pool may offer."""

    name: str
    """The argument of `Pool`: ``size``, or a field of the configuration."""
    unit: TunableUnit
    span: Callable[[PoolSettings], Range]
    """The safe range. The value that the pool was made with is added to it."""
    step: Callable[[PoolSettings], float]
    safe: str
    """The safe range in words, for the guide."""
    effect: str
    """From when a change applies, in words, for the guide."""
    delay: Callable[[PoolSettings], float] = lambda _settings: 0.0
    live: bool = True
    offered: Callable[[PoolConfig], bool] = lambda _config: True
    offered_when: str = ""
    """When it is offered, in words; empty: always."""
    read: Callable[[PoolSettings], float] | None = None
    """Returns the value; None: the field of the configuration."""
    write: Callable[[PoolSettings, float], None] | None = None
    """Sets it; None: sets the field."""


def _around(name: str, below: float, above: float) -> Callable[[PoolSettings], Range]:
    """Return a range that goes from a share of the value that the pool was made with to a multiple of it."""

    def span(settings: PoolSettings) -> Range:
        value = getattr(settings.configured, name)
        low, high = value * below, value * above
        return (max(1, math.ceil(low)), math.floor(high)) if isinstance(value, int) else (low, high)

    return span


def _fixed(low: float, high: float) -> Callable[[PoolSettings], Range]:
    return lambda _settings: (low, high)


def _share(name: str, share: float) -> Callable[[PoolSettings], float]:
    """Return a step: a *share* of the value that the pool was made with."""

    def step(settings: PoolSettings) -> float:
        value = getattr(settings.configured, name)
        return max(1, round(value * share)) if isinstance(value, int) else value * share

    return step


def _whole(_settings: PoolSettings) -> float:
    return 1.0


def _is_set(name: str) -> Callable[[PoolConfig], bool]:
    return lambda config: getattr(config, name) is not None


def _rss_span(settings: PoolSettings) -> Range:
    """All workers together must leave a tenth of the memory free."""
    low, high = _around("recycle_rss", 0.5, 1.5)(settings)
    most = settings.memory_limit
    return low, high if most is None else min(high, max(low, MEMORY_SHARE * most // max(1, settings.size)))


def _wait_span(settings: PoolSettings) -> Range:
    """A wait shorter than two calls would refuse what comes in the ordinary course; a call's deadline is the end."""
    mean, timeout = settings.mean_seconds, settings.config.timeout
    return min(timeout, max(0.01, 2 * (mean or 0.0))), timeout


def _wait(settings: PoolSettings) -> float:
    timeout = settings.config.timeout
    return min(settings.config.max_wait or timeout, timeout)


def _set_wait(settings: PoolSettings, value: float) -> None:
    """Without a limit at first, the limit that is as long as the deadline is none again: it undoes a change exactly."""
    unlimited = settings.configured.max_wait is None and value >= settings.config.timeout
    settings.change(max_wait=None if unlimited else value)


KNOBS: tuple[Knob, ...] = (
    Knob(
        "size",
        "count",
        lambda settings: (max(1, settings.min_size), settings.max_size),
        _whole,
        "`min_size` (at least 1) to `max_size`",
        "when the new workers are ready; a surplus worker ends after its call",
        delay=lambda settings: settings.start_seconds,
        read=lambda settings: settings.size,
        write=lambda settings, value: settings.resize(int(value)),
    ),
    Knob(
        "queue_limit",
        "count",
        _fixed(QUEUE_LEAST, QUEUE_MOST),
        _share("queue_limit", 0.05),
        "16 to 10,000",
        "for the next call",
    ),
    Knob(
        "max_wait",
        "s",
        _wait_span,
        lambda settings: settings.configured.timeout * 0.01,
        "twice the mean execution time to `timeout`; without a limit its value is `timeout`",
        "for the next call",
        read=_wait,
        write=_set_wait,
    ),
    Knob(
        "timeout",
        "s",
        _around("timeout", 0.5, 4.0),
        _share("timeout", 0.05),
        "half to 4 times the configured value",
        "for the next call",
    ),
    *(
        Knob(
            name,
            "s",
            _around(name, 0.5, 4.0),
            _share(name, 0.05),
            "half to 4 times the configured value",
            "for the next stream",
            offered=_is_set(name),
            offered_when="it is set",
        )
        for name in ("first_item_timeout", "item_timeout")
    ),
    Knob(
        "retry_delay",
        "s",
        _fixed(0.01, 30.0),
        lambda _settings: 0.01,
        "0.01 to 30",
        "for the next retry",
    ),
    Knob(
        "retry_budget",
        "ratio",
        _fixed(0.0, 0.2),
        lambda _settings: 0.01,
        "0 to 0.2",
        "for the next call; what is left of the budget stays",
    ),
    Knob(
        "backoff_min",
        "s",
        lambda settings: (0.01, min(30.0, settings.config.backoff_max)),
        lambda _settings: 0.01,
        "0.01 to 30, and at most `backoff_max`",
        "for the next pause",
    ),
    Knob(
        "health_interval",
        "s",
        _fixed(1.0, 60.0),
        lambda _settings: 0.5,
        "1 to 60",
        "for the next ping",
        delay=lambda settings: settings.config.health_interval,
    ),
    Knob(
        "recycle_calls",
        "count",
        _around("recycle_calls", 0.5, 4.0),
        _share("recycle_calls", 0.05),
        "half to 4 times the configured value",
        "for processes that are started later",
        delay=lambda _settings: TURNOVER_S,
        live=False,
        offered=_is_set("recycle_calls"),
        offered_when="it is set",
    ),
    Knob(
        "recycle_age",
        "s",
        _around("recycle_age", 0.5, 4.0),
        _share("recycle_age", 0.05),
        "half to 4 times the configured value",
        "at the next checkup; one process is replaced at a time",
        delay=lambda settings: settings.config.recycle_age or 0.0,
        offered=_is_set("recycle_age"),
        offered_when="it is set",
    ),
    Knob(
        "recycle_rss",
        "bytes",
        _rss_span,
        _share("recycle_rss", 0.05),
        "half to 1.5 times the configured value, and for all workers together 90 % of the memory",
        "at the next checkup; one process is replaced at a time",
        delay=lambda settings: settings.config.health_interval + settings.start_seconds,
        offered=_is_set("recycle_rss"),
        offered_when="it is set",
    ),
    Knob(
        "concurrency",
        "count",
        lambda settings: (2, 4 * settings.configured.concurrency),
        _whole,
        "2 to 4 times the configured value",
        "at once where it is lowered; else for processes that are started later",
        delay=lambda _settings: TURNOVER_S,
        live=False,
        offered=lambda config: config.concurrency > 1,
        offered_when="it is above 1: a worker with 1 is of another kind",
    ),
    Knob(
        "prefetch",
        "count",
        _fixed(1, 64),
        _whole,
        "1 to 64",
        "within 32 calls",
        offered=lambda config: config.concurrency == 1,
        offered_when="`concurrency` is 1",
    ),
)
"""Everything that a pool may offer, in the order in which it is offered."""


class PoolTunable:
    """One setting of one pool: a `Tunable`. *check* raises when the pool must not be changed now."""

    def __init__(self, pool: str, knob: Knob, settings: PoolSettings, check: Callable[[], object]) -> None:
        self._pool, self._knob, self._settings, self._check = pool, knob, settings, check
        self._first = self.value
        self.name = knob.name
        self.unit: TunableUnit = knob.unit
        self.live = knob.live

    def __repr__(self) -> str:
        return f"<PoolTunable {self.name} of {self._pool!r}: {self.value:g} of {self.low:g} to {self.high:g}>"

    @property
    def value(self) -> float:
        read = self._knob.read
        return float(getattr(self._settings.config, self._knob.name) if read is None else read(self._settings))

    @property
    def low(self) -> float:
        return float(min(self._knob.span(self._settings)[0], self._first, self.value))

    @property
    def high(self) -> float:
        return float(max(self._knob.span(self._settings)[1], self._first, self.value))

    @property
    def step(self) -> float:
        return float(self._knob.step(self._settings))

    @property
    def effect_delay(self) -> float:
        return float(self._knob.delay(self._settings))

    def set(self, value: float) -> None:
        """Change the value, as `Tunable.set` says. Setting the value that it has changes nothing."""
        self._check()
        checked = self._checked(value)
        if checked == self.value:
            return
        if self._knob.write is not None:
            self._knob.write(self._settings, checked)
        else:
            self._settings.change(**{self.name: checked})

    def _checked(self, value: Any) -> float:
        low, high = self.low, self.high
        if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
            raise ConfigError(f"pool {self._pool!r}: {self.name}={value!r:.80}: must lie from {low:g} to {high:g}")
        if self.unit in ("s", "ratio"):
            return float(value)
        if value != int(value):
            raise ConfigError(f"pool {self._pool!r}: {self.name}={value!r}: needs a whole number")
        return int(value)


def tunables_of(pool: str, settings: PoolSettings, check: Callable[[], object]) -> list[Tunable]:
    """Return what the pool named *pool* offers."""
    return [PoolTunable(pool, knob, settings, check) for knob in KNOBS if knob.offered(settings.configured)]
