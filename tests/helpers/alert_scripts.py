"""An engine of alerts whose inputs a test writes: rules with bounds 10, 20, ... and values of instances by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from pool_monitor.alerts.alert import Alert
from pool_monitor.alerts.engine import Engine
from pool_monitor.alerts.inputs import Inputs, Labels, Sample
from pool_monitor.alerts.rule import Absolute, CheckedRule, Kind, Level, Threshold
from pool_monitor.snapshot import AlertTransition

INTERVAL = 5.0
SEVERITIES = ("warning", "critical", "emergency")
START = 1_000_000.0


def threshold(metric: str = "pool.waiting", levels: int = 2, window: str | None = None, *, above: bool = True) -> Kind:
    """Levels at 10, 20, ...: so 15 reaches the first one, 25 the second."""
    bounds = tuple(Level(SEVERITIES[number], Absolute(10.0 * (number + 1))) for number in range(levels))
    return Threshold(metric=metric, window=window, above=above, levels=bounds)


def rule(alert: str = "A", kind: Kind | None = None, **fields: Any) -> CheckedRule:
    """A rule of the kind `threshold`, with as many severities as it has levels."""
    kind = kind or threshold()
    levels = len(kind.levels) if isinstance(kind, Threshold) else 1
    return CheckedRule(**{"alert": alert, "kind": kind, "severities": SEVERITIES[:levels], **fields})


def instance(pool: str) -> Labels:
    return (("pool", pool),)


class Script:
    """An engine with *rules*. The wall clock and the counted time go on together."""

    def __init__(self, *rules: CheckedRule) -> None:
        self.engine = Engine(INTERVAL)
        self.at = START
        self.rules(*rules)

    def rules(self, *rules: CheckedRule) -> list[AlertTransition]:
        return self.engine.set_rules(rules, self.at)

    def inputs(
        self, values: Mapping[str, float | None], elapsed: float = INTERVAL, calls: int | None = None, error: str = ""
    ) -> Inputs:
        samples = tuple(Sample(instance(name), value, calls) for name, value in values.items())
        wanted = self.engine.wanted
        if error:
            return Inputs(self.at, elapsed, {}, errors=dict.fromkeys(wanted, error))
        return Inputs(self.at, elapsed, dict.fromkeys(wanted, samples))

    def see(
        self, values: Mapping[str, float | None], elapsed: float = INTERVAL, calls: int | None = None, error: str = ""
    ) -> list[AlertTransition]:
        """Let *elapsed* seconds pass, and evaluate all rules on *values*."""
        self.at += elapsed
        return self.engine.step(self.inputs(values, elapsed, calls, error))

    def play(self, *values: float | None, elapsed: float = INTERVAL) -> list[str]:
        """See *values* of the instance ``p``, one after the other. Return what `told` returns for each transition."""
        return [told(found) for value in values for found in self.see({"p": value}, elapsed)]

    def alert(self, pool: str = "p", alert: str = "A") -> Alert | None:
        return self.engine.alerts.get((alert, instance(pool)))  # type: ignore[call-overload, no-any-return]

    @property
    def state(self) -> str:
        alert = self.alert()
        return "inactive" if alert is None else alert.state.value

    def restarted(self, *rules: CheckedRule) -> Script:
        """A new life with what the state file has."""
        saved = msgspec.json.decode(msgspec.json.encode(list(self.engine.alerts.values())), type=list[Alert])
        other = Script(*(rules or self.engine.rules.values()))
        other.at = self.at
        dumps = {name: memory.dump() for name, memory in self.engine.memories().items()}
        other.restored = other.engine.restore(saved, dumps, self.engine.seq, self.at)  # type: ignore[attr-defined]
        return other


def told(found: AlertTransition) -> str:
    """A transition in short, such as ``firing>resolved no_data``."""
    return f"{found.from_state}>{found.to_state} {found.severity[0]} {found.reason}".rstrip()
