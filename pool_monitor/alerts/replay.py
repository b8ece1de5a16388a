"""Runs the engine over recorded evaluations: what rules would have done, or did.

Theory of operation
-------------------
A recorded evaluation has everything that rules read. The engine looks at nothing else, so the same rules come to the
same transitions as in the service, to the last one.

- A restart of the service is in the recording. The engine is made anew there, from what the state file had at that
  moment: the replay keeps the same versions of alerts and memories as the state file did.
- A rule is in force for as long as all that it reads is in the recording. It is added and removed as by a reload.
- The replay knows nothing of what was before the first record: an alert that was firing then begins anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from pool_monitor.alerts.alert import Alert
from pool_monitor.alerts.engine import AlertKey, Engine
from pool_monitor.alerts.evaluation import inputs_of
from pool_monitor.alerts.inputs import Input
from pool_monitor.alerts.recording import Recorded
from pool_monitor.alerts.rule import CheckedRule
from pool_monitor.alerts.ruling import names_in
from pool_monitor.alerts.wording import worded
from pool_monitor.snapshot import AlertTransition

_encode = msgspec.json.encode
_decode_alert = msgspec.json.Decoder(Alert).decode


class _State:
    """What the state file of the service would have. Bounded as the engine is."""

    def __init__(self) -> None:
        self._alerts: dict[AlertKey, bytes] = {}
        self._memories: dict[str, bytes] = {}
        self._versions: dict[str, int] = {}

    def note(self, engine: Engine) -> None:
        """Keep what has changed. Called after each evaluation, as the service does."""
        for alert in engine.changed():
            self._alerts[AlertKey(alert.alert, alert.instance)] = _encode(alert)
        for key in engine.removed():
            self._alerts.pop(key, None)
        memories = engine.memories()
        for name, memory in memories.items():
            if self._versions.get(name) != memory.version:
                self._versions[name] = memory.version
                self._memories[name] = _encode(memory.dump())
        for name in self._versions.keys() - memories.keys():
            del self._versions[name]
            self._memories.pop(name, None)

    def restore(self, engine: Engine, seq: int, at: float) -> list[AlertTransition]:
        memories: Mapping[str, Any] = {name: msgspec.json.decode(dump) for name, dump in self._memories.items()}
        found = engine.restore(map(_decode_alert, self._alerts.values()), memories, seq, at)
        self._versions = {}  # a service stores everything anew when it begins
        return found.transitions


class Replay:
    """The rules of a service, replayed. Bounded as the engine is; records are not kept."""

    def __init__(self, rules: Iterable[CheckedRule]) -> None:
        self.rules = {rule.alert: rule for rule in rules}
        self.evaluations = 0
        self.restarts = 0
        self.first: float | None = None
        self.last: float | None = None
        """Wall-clock times of the first and the latest evaluation."""
        self.evaluated: dict[str, int] = dict.fromkeys(self.rules, 0)
        """In how many evaluations each rule was in force."""
        self.failed: dict[str, str] = {}
        """Why a rule could not be evaluated at times: the latest reason, by its name."""
        self._needs = {name: _needs(rule, self.rules) for name, rule in self.rules.items()}
        self._engine: Engine | None = None
        self._state = _State()
        self._readable: frozenset[Input] = frozenset()
        self._force: list[str] = []

    @property
    def wanted(self) -> frozenset[Input]:
        """All that the rules read."""
        return frozenset().union(*self._needs.values())

    def needs(self, name: str) -> frozenset[Input]:
        """What the rule *name* reads, and those that it names."""
        return self._needs[name]

    def missing(self, name: str) -> frozenset[Input]:
        """What the rule *name* reads and the latest evaluation does not have."""
        return self._needs[name] - self._readable

    @property
    def engine(self) -> Engine | None:
        """The engine that has evaluated last; None: none has yet. A restart of the service makes a new one."""
        return self._engine

    @property
    def alerts(self) -> Iterable[Alert]:
        """The alerts after the latest evaluation."""
        return () if self._engine is None else self._engine.alerts.values()

    def step(self, one: Recorded) -> list[AlertTransition]:
        """Evaluate the rules that are in force, and return what has changed."""
        inputs, engine = one.inputs, self._engine
        readable = frozenset(inputs.samples) | inputs.errors.keys()
        changed: list[AlertTransition] = []
        if engine is None or one.restarted:
            engine, changed = self._begun(one, readable)
        elif readable != self._readable:
            changed = self._use(engine, readable, inputs.at)
        changed += engine.step(inputs)
        self._state.note(engine)
        self.evaluations += 1
        self.first = inputs.at if self.first is None else self.first
        self.last = inputs.at
        for name in self._force:
            self.evaluated[name] += 1
        self.failed |= engine.failing
        return [worded(found, self.rules) for found in changed]

    def _begun(self, one: Recorded, readable: frozenset[Input]) -> tuple[Engine, list[AlertTransition]]:
        """Make the engine anew."""
        before, at = self._engine, one.inputs.at
        self.restarts += before is not None
        self._engine = engine = Engine(one.interval)
        changed = self._use(engine, readable, at)
        if before is not None and one.keeps_state:
            changed += self._state.restore(engine, before.seq, at)
        else:
            self._state = _State()
        return engine, changed

    def _use(self, engine: Engine, readable: frozenset[Input], at: float) -> list[AlertTransition]:
        """Put the rules in force that read *readable* alone."""
        self._readable = readable
        self._force = [name for name, needs in self._needs.items() if needs <= readable]
        return engine.set_rules([self.rules[name] for name in self._force], at)


def _needs(rule: CheckedRule, rules: Mapping[str, CheckedRule]) -> frozenset[Input]:
    """Return what is read for *rule*, and for the rules that it names."""
    needs = set(inputs_of(rule))
    seen: set[str] = set()
    open_ = [*names_in(rule.kind)]
    while open_:
        name = open_.pop()
        if name not in seen and name in rules:
            seen.add(name)
            needs |= inputs_of(rules[name])
            open_ += names_in(rules[name].kind)
    return frozenset(needs)
