"""The alerts of a monitor: `Monitor.alerts`."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING

from pool_monitor.alerts.engine import Engine
from pool_monitor.alerts.past import Past
from pool_monitor.alerts.reader import LiveReader
from pool_monitor.alerts.recording import Recorder, encode_transition
from pool_monitor.events import ALERT_TRANSITION
from pool_monitor.snapshot import AlertingView, AlertTransition, AlertView

if TYPE_CHECKING:
    from pool_monitor.alerts.rule import CheckedRule
    from pool_monitor.config import MonitorConfig
    from pool_monitor.parts import Context

_HISTORY = 10_000


class AlertManager:
    """Evaluates the rules of one monitor and keeps what follows. It outlives the part that drives it.

    All methods must be called in the event loop of the monitor. None of them blocks.
    """

    def __init__(self, config: MonitorConfig, context: Context) -> None:
        self._config, self._context = config, context
        self._engine = Engine(config.alerts.interval)
        self._reader = LiveReader(
            context.snapshot,
            Past(context.metrics, context.history, context.clock, config.alerts.interval, config.history),
        )
        self._recorder = Recorder()
        self._history: deque[AlertTransition] = deque(maxlen=_HISTORY)
        self._evaluating = asyncio.Lock()
        self._evaluated_ns: int | None = None
        self._took: float | None = None
        self._views: tuple[AlertView, ...] = ()

    def add(self, rule: CheckedRule) -> None:
        """Evaluate *rule* too. Raises ConfigError."""
        rules = {**self._engine.rules, rule.alert: rule}
        self._engine.set_rules(list(rules.values()), self._now())

    def remove(self, alert: str) -> None:
        """Stop evaluating the rule *alert*. Raises UnknownName."""
        self._engine.set_rules([rule for name, rule in self._engine.rules.items() if name != alert], self._now())

    def active(self) -> tuple[AlertView, ...]:
        """The alerts that are pending, firing or recovering."""
        return self._views

    def history(self, limit: int = 100) -> tuple[AlertTransition, ...]:
        """The latest changes, the newest first."""
        return tuple(self._history)[-limit:][::-1]

    async def evaluate(self) -> None:
        """Evaluate all rules now."""
        async with self._evaluating:
            began, now_ns = time.perf_counter(), self._context.clock.monotonic_ns()
            elapsed = 0.0 if self._evaluated_ns is None else (now_ns - self._evaluated_ns) / 1e9
            self._evaluated_ns = now_ns
            wanted = self._engine.wanted
            await self._reader.prepare(wanted)
            inputs = self._reader.inputs(wanted, elapsed)
            transitions = self._engine.step(inputs)
            for transition in transitions:
                self._history.append(transition)
                self._emit(transition)
            if (record := self._context.record()) is not None:
                record(inputs.at, self._recorder.encode(inputs), [*map(encode_transition, transitions)])
            self._views = tuple(
                AlertView(
                    alertname=alert.alert,
                    labels={**alert.labels, "severity": alert.severity},
                    state=alert.state.value,
                    severity=alert.severity,
                    value=alert.value,
                    since=alert.since,
                    fingerprint=alert.fingerprint,
                )
                for alert in self._engine.alerts.values()
            )
            self._took = time.perf_counter() - began

    def view(self) -> AlertingView:
        """The state of the evaluation."""
        return AlertingView(
            rules=len(self._engine.rules),
            interval=self._engine.interval,
            failing=dict(self._engine.failing),
            evaluation_seconds=self._took,
        )

    def _emit(self, transition: AlertTransition) -> None:
        measurements = {"system_time": round(transition.at * 1e9)}
        more = {} if transition.value is None else {"value": transition.value}
        about = {
            "monitor": self._context.monitor,
            "service": self._context.service,
            "alert": transition.alert,
            "labels": dict(transition.labels),
            "fingerprint": transition.fingerprint,
            "from": transition.from_state,
            "to": transition.to_state,
            "severity": transition.severity,
            "reason": transition.reason,
            "summary": transition.summary,
        }
        ALERT_TRANSITION.event.emit({**measurements, **more}, about)

    def _now(self) -> float:
        return self._context.clock.wall_ns() / 1e9
