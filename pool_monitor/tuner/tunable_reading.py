"""`TunableReading`: the figures of a tunable at one moment. It may be of another package, and raise at any time."""

from __future__ import annotations

from typing import NamedTuple, NoReturn

from pool_monitor.tunable import Tunable, TunableUnit, effect_delay


class TunableReading(NamedTuple):
    """A `Tunable` to read, and to read only."""

    name: str
    unit: TunableUnit
    value: float
    low: float
    high: float
    step: float
    live: bool
    effect_delay: float

    def set(self, value: float) -> NoReturn:
        """Raise TypeError: the driver sets the tunable itself."""
        raise TypeError(f"{self.name} = {value:g}: a reading cannot be set")


def read(tunable: Tunable) -> TunableReading | None:
    """Read *tunable*; None: it cannot be read."""
    try:
        return TunableReading(
            tunable.name,
            tunable.unit,
            float(tunable.value),
            float(tunable.low),
            float(tunable.high),
            float(tunable.step),
            bool(tunable.live),
            float(effect_delay(tunable)),
        )
    except Exception:  # noqa: BLE001 (the code of another package)
        return None
