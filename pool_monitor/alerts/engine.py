"""Steps the lives of all alerts from one evaluation to the next. No I/O and no clock: the time is in the inputs."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any, NamedTuple

from pool_monitor.alerts.alert import SLACK, Alert, fingerprint_of
from pool_monitor.alerts.evaluation import Memory
from pool_monitor.alerts.inputs import Input, Inputs, Judgement, Labels
from pool_monitor.alerts.lifecycle import ACTIVE_PHASES, FIRING_PHASES, LIFE, Phase
from pool_monitor.alerts.rule import CheckedRule
from pool_monitor.alerts.ruling import Ruling, in_order
from pool_monitor.snapshot import AlertTransition

NO_DATA, ERROR, RULE_REMOVED, RULE_CHANGED, LEVEL = "no_data", "error", "rule_removed", "rule_changed", "level"
"""Reasons of transitions."""
SHOWN_FOR, SHOWN = 900.0, 1000
"""Seconds for which a resolved alert is shown, and the most of them."""
_SAVED_EVERY = 60.0
"""Seconds after which an alert that only goes on firing is saved again."""
_SLICE = 50
"""Judgements between two moments at which others may work."""


class AlertKey(NamedTuple):
    alert: str
    instance: Labels


class Restored(NamedTuple):
    """What `Engine.restore` found."""

    transitions: list[AlertTransition]
    """Ends of alerts whose rule is gone or changed."""
    refused: list[str]
    """What was saved and cannot be used, in words."""


class Engine:
    """All rules and all alerts of a service. *interval* is the time between evaluations, in seconds.

    It holds at most `CheckedRule.limit` active alerts of each rule and `SHOWN` resolved ones of all rules. A rule that
    fires for an instance that vanishes may have as many again, for the instances that it watches.
    """

    def __init__(self, interval: float) -> None:
        self.interval = interval
        self.rules: dict[str, CheckedRule] = {}
        self.failing: dict[str, str] = {}
        """Why the evaluation of a rule fails, by its name."""
        self.seq = 0
        """The number of the latest transition."""
        self.wanted: frozenset[Input] = frozenset()
        """What the next step reads."""
        self._rulings: dict[str, Ruling] = {}
        """In the order of evaluation: a rule comes after those that it names."""
        self._counted, self._at = 0.0, 0.0
        self._resolved: OrderedDict[AlertKey, float] = OrderedDict()  # of a dict, the first one is slow to find
        """The resolved alerts, the oldest first, with the counted time at which they were."""
        self._changed: dict[AlertKey, Alert] = {}
        self._saved: set[AlertKey] = set()
        """Those that `changed` returned, or that were restored."""
        self._removed: dict[AlertKey, None] = {}

    # -- what it holds

    @property
    def alerts(self) -> dict[AlertKey, Alert]:
        """The alerts that are not inactive, resolved ones for a while. Made at each call."""
        return {
            AlertKey(name, instance): alert
            for name, ruling in self._rulings.items()
            for instance, alert in ruling.alerts.items()
            if alert.state is not Phase.INACTIVE
        }

    def each(self) -> Iterator[Alert]:
        """Yield the same alerts one by one. If rules are set meanwhile, an alert that is gone by then may come too."""
        for ruling in list(self._rulings.values()):
            for alert in list(ruling.alerts.values()):
                if alert.state is not Phase.INACTIVE:
                    yield alert

    @property
    def refused(self) -> int:
        """Bad instances that have no alert, because their rules have as many as `CheckedRule.limit` allows."""
        return sum(ruling.refused for ruling in self._rulings.values())

    def firing(self, alert: str) -> Iterable[Labels]:
        """Return the instances at which the rule *alert* fires."""
        ruling = self._rulings.get(alert)
        if ruling is None:
            return ()
        return [instance for instance, found in ruling.alerts.items() if found.state in FIRING_PHASES]

    # -- what survives a restart

    def changed(self, *, whole: bool = False) -> list[Alert]:
        """Return the alerts that have changed since the last call. They change on: encode them before the next step.
        *whole*: return all that a restart has to know; nothing is removed before this call.

        Inactive ones are among them where a rule has to fire for an instance that vanishes. An alert that only goes on
        firing is among them once a minute.
        """
        if whole:
            found = [alert for ruling in self._rulings.values() for alert in ruling.alerts.values()]
            self._saved = set(map(_key, found))
            self._removed.clear()
        else:
            found = list(self._changed.values())
            self._saved.update(self._changed)
        self._changed.clear()
        return found

    def removed(self) -> list[AlertKey]:
        """Return the alerts that `changed` returned and that are gone since the last call."""
        found = list(self._removed)
        self._removed.clear()
        return found

    def memories(self) -> dict[str, Memory]:
        """The memory of each rule."""
        return {name: ruling.memory for name, ruling in self._rulings.items()}

    def restore(self, alerts: Iterable[Alert], memories: Mapping[str, Any], seq: int, at: float) -> Restored:
        """Take over what an earlier life saved; *memories* are dumps, by rule. Call it once, after `set_rules`.

        Timers go on where they were. The alerts of a rule that is gone, or that measures something else now, are
        resolved. What does not fit is left out.
        """
        self.seq, self._at = max(self.seq, seq), at
        result = Restored([], [])
        for name, dump in memories.items():
            ruling = self._rulings.get(name)
            if ruling is not None and (why := ruling.restore(dump)):
                result.refused.append(f"the memory of the rule {name} starts anew: {why}")
        for alert in sorted(alerts, key=lambda one: one.resolved_at or 0.0):
            self._saved.add(_key(alert))
            if why := _misfit(alert):
                result.refused.append(f"an alert of the rule {alert.alert} is left out: {why}")
                self._remove(alert)
            else:
                result.transitions.extend(self._restore(alert))
        return result

    def _restore(self, alert: Alert) -> Iterator[AlertTransition]:
        ruling = self._rulings.get(alert.alert)
        if ruling is None or ruling.measure != alert.measure:
            yield from self._end(alert, RULE_REMOVED if ruling is None else RULE_CHANGED)
            return
        ruling.alerts[alert.instance] = alert
        if alert.state is Phase.RESOLVED:
            if not 0 <= self._at - (alert.resolved_at or 0.0) < SHOWN_FOR:
                self._remove(alert)
                return
            self._resolved[_key(alert)] = self._counted
        yield from self._adapt(ruling, alert)

    # -- rules

    def set_rules(self, rules: Sequence[CheckedRule], at: float) -> list[AlertTransition]:
        """Use *rules* from now on; it is *at* by the wall clock.

        - A rule that is equal to one in force keeps everything.
        - A changed rule that measures the same keeps its alerts and timers; the next step judges them by its new
          bounds and times. If its labels changed, an alert ends under the old ones and goes on under the new ones,
          because who was told the old ones has to be told their end.
        - The alerts of a rule that is gone, or that measures something else, are resolved with the reason
          ``rule_removed`` or ``rule_changed``.
        """
        self._at = at
        before = self._rulings
        self.rules = {rule.alert: rule for rule in rules}
        self._rulings = {name: self._ruling(before.get(name), self.rules[name]) for name in in_order(self.rules)}
        self.wanted = frozenset().union(*(ruling.inputs for ruling in self._rulings.values()))
        found: list[AlertTransition] = []
        for name, old in before.items():
            new = self._rulings.get(name)
            if new is old:
                continue
            self.failing.pop(name, None)
            if new is not None and new.alerts is old.alerts and new.suits_alerts_of(old):
                continue  # There may be thousands.
            for alert in list(old.alerts.values()):
                if new is not None and new.alerts is old.alerts:
                    found += self._adapt(new, alert)
                else:
                    found += self._end(alert, RULE_REMOVED if new is None else RULE_CHANGED)
        return found

    def _ruling(self, old: Ruling | None, rule: CheckedRule) -> Ruling:
        if old is not None and old.rule == rule:
            return old
        new = Ruling(rule, self.interval)
        if old is not None and old.measure == new.measure:
            new.alerts, new.memory = old.alerts, old.memory
        return new

    def _adapt(self, ruling: Ruling, alert: Alert) -> Iterator[AlertTransition]:
        """Make *alert*, of an earlier form of the rule, one of *ruling*."""
        if not ruling.has(alert.instance):
            yield from self._end(alert, RULE_CHANGED)
        elif alert.state is Phase.INACTIVE and not ruling.watches:
            self._remove(alert)
        else:
            ruling.fit(alert)
            if (labels := ruling.labels(alert.instance)) != alert.labels:
                yield from self._relabel(alert, labels)
            self._mark(alert)

    def _relabel(self, alert: Alert, labels: dict[str, str]) -> Iterator[AlertTransition]:
        active = alert.state in ACTIVE_PHASES
        if active:
            yield self._transition(alert, alert.state, LIFE.step(alert.state, "over"), RULE_CHANGED, alert.value)
        alert.labels, alert.fingerprint = labels, fingerprint_of(alert.alert, labels)
        if active:
            if alert.state is Phase.RECOVERING:
                alert.state = Phase.FIRING  # A life does not begin with recovering. `good_for` goes on.
            yield self._transition(alert, Phase.INACTIVE, alert.state, RULE_CHANGED, alert.value)

    def _end(self, alert: Alert, reason: str) -> Iterator[AlertTransition]:
        """End the life of *alert*, and leave nothing to show."""
        before = alert.state
        if before in ACTIVE_PHASES:
            alert.state = LIFE.step(before, "over")
            yield self._transition(alert, before, alert.state, reason, alert.value)
        self._remove(alert)

    # -- evaluation

    def step(self, inputs: Inputs) -> list[AlertTransition]:
        """Evaluate all rules on *inputs*, and return what has changed."""
        return [found for found in self.stepping(inputs) if found is not None]

    def stepping(self, inputs: Inputs) -> Iterator[AlertTransition | None]:
        """Do what `step` does. Yields each transition, and None where the caller may let others work.

        A rule that `set_rules` changes meanwhile is not evaluated any more in this step.
        """
        self._at = inputs.at
        self._counted += inputs.elapsed
        for name, ruling in list(self._rulings.items()):
            for found in self._evaluate(ruling, inputs) if self._rulings.get(name) is ruling else ():
                yield found
                if self._rulings.get(name) is not ruling:
                    break
            yield None
        yield from self._forget()

    def _evaluate(self, ruling: Ruling, inputs: Inputs) -> Iterator[AlertTransition | None]:
        judgements = ruling.evaluate(inputs, self.firing)
        if isinstance(judgements, str):
            self.failing[ruling.rule.alert] = judgements
            yield from self._fail(ruling, inputs)
            return
        if self.failing:
            self.failing.pop(ruling.rule.alert, None)
        ruling.refused = 0
        if not ruling.alerts and not ruling.watches:
            judgements = [one for one in judgements if one.level]
        if ruling.alerts or judgements:  # Most rules have neither, most of the time.
            yield from self._judge_all(ruling, judgements, inputs)

    def _judge_all(
        self, ruling: Ruling, judgements: Sequence[Judgement], inputs: Inputs
    ) -> Iterator[AlertTransition | None]:
        rule, alerts = ruling.rule, ruling.alerts
        room = rule.limit - sum(alert.state in ACTIVE_PHASES for alert in alerts.values())
        gone = dict(alerts)
        for number, judgement in enumerate(judgements, 1):
            gone.pop(judgement.labels, None)
            alert = alerts.get(judgement.labels)
            if judgement.level and (alert is None or alert.state not in ACTIVE_PHASES):
                room -= 1
                if room < 0:
                    ruling.refused += 1
                    continue
            if alert is None and (judgement.level or (ruling.watches and len(alerts) < rule.limit)):
                alert = alerts[judgement.labels] = ruling.make(judgement.labels)
                self._mark(alert)
            found = None if alert is None else self._judge(ruling, alert, judgement, inputs)
            if found is not None or number % _SLICE == 0:
                yield found
        for alert in gone.values():
            yield self._gone(ruling, alert, inputs)

    def _fail(self, ruling: Ruling, inputs: Inputs) -> Iterator[AlertTransition | None]:
        """The rule cannot be evaluated: all its values are unknown."""
        on_error = ruling.rule.on_error
        if on_error == "fire" and not ruling.alerts:
            alert = ruling.alerts[()] = ruling.make(())
            alert.reason = ERROR
        for alert in list(ruling.alerts.values()):
            yield self._unknown(ruling, alert, on_error, ERROR, inputs)

    def _gone(self, ruling: Ruling, alert: Alert, inputs: Inputs) -> AlertTransition | None:
        """The rule was evaluated and says nothing about an instance that it had."""
        if alert.reason != ERROR:
            if ruling.silence_is_good:
                return self._judge(ruling, alert, Judgement(alert.instance, 0), inputs)
            return self._unknown(ruling, alert, ruling.rule.on_no_data, NO_DATA, inputs)
        if alert.state in ACTIVE_PHASES:  # It stood for the error alone, which is over.
            return self._move(ruling, alert, LIFE.step(alert.state, "over"), 0, ERROR)
        if alert.state is Phase.INACTIVE:
            self._remove(alert)
        return None

    def _judge(self, ruling: Ruling, alert: Alert, judgement: Judgement, inputs: Inputs) -> AlertTransition | None:
        rule = ruling.rule
        if judgement.level is None:
            return self._unknown(ruling, alert, rule.on_no_data, NO_DATA, inputs)
        value, level, elapsed = judgement.value, min(judgement.level, len(alert.bad_for)), inputs.elapsed
        if alert.unknown:
            alert.unknown, alert.unknown_for, elapsed = False, -1.0, 0.0
            self._mark(alert)
        if value is not None:
            alert.value = value
        if judgement.limit is not None:
            alert.limit = judgement.limit
        if alert.reason in (NO_DATA, ERROR) and alert.state is not Phase.RESOLVED:
            alert.reason = ""  # It is what its value says now.
        if level:
            alert.note = judgement.note
            if value is not None:
                peak = value if alert.peak is None or alert.state not in ACTIVE_PHASES else alert.peak
                alert.peak = min(peak, value) if ruling.lower_is_worse else max(peak, value)
        phase = alert.advance(level, elapsed, rule.for_, rule.keep_firing_for)
        return self._move(ruling, alert, phase, level, "", value)

    def _unknown(
        self, ruling: Ruling, alert: Alert, policy: str, reason: str, inputs: Inputs
    ) -> AlertTransition | None:
        """The value of *alert* is unknown: its state is held for a while, and then *policy* says what follows.

        The time does not count, and the time after it begins when the value is known again.
        """
        if policy != "fire" and alert.state not in ACTIVE_PHASES:
            return None
        if policy != "keep" or not alert.unknown:
            self._mark(alert)
        alert.unknown = True
        if policy == "keep":
            return None
        before = alert.unknown_for
        alert.unknown_for = before + inputs.elapsed if before >= 0 else 0.0
        if alert.unknown_for < ruling.after - SLACK:
            return None
        if policy == "resolve":
            return self._move(ruling, alert, LIFE.step(alert.state, "over"), 0, reason)
        level = alert.level if alert.state in FIRING_PHASES else 1
        elapsed = inputs.elapsed if before >= ruling.after - SLACK else 0.0
        rule = ruling.rule
        phase = alert.advance(level, elapsed, rule.for_, rule.keep_firing_for)
        return self._move(ruling, alert, phase, level, reason)

    # -- changes of state

    def _move(
        self, ruling: Ruling, alert: Alert, phase: Phase, level: int, reason: str, value: float | None = None
    ) -> AlertTransition | None:
        """Put *alert* into *phase*, where *level* is reached. Return the transition, if it is one."""
        before, had = alert.state, (alert.level, alert.severity)
        if phase is Phase.FIRING:
            alert.level = alert.reached_for(ruling.rule.for_)
        elif phase is Phase.PENDING and level:
            alert.level = level
        if alert.level:
            alert.severity = ruling.rule.severities[alert.level - 1]
        if phase is before:
            changed = phase is Phase.FIRING and had != (alert.level, alert.severity)
            if changed or self._timers_run(alert):
                self._mark(alert)
            return self._transition(alert, before, phase, LEVEL, value) if changed else None
        at = self._at
        alert.state = phase
        was_firing, is_firing = before in FIRING_PHASES, phase in FIRING_PHASES
        if was_firing and phase is Phase.PENDING:  # Its rule asks for more time now.
            alert.fired_at, alert.good_for, reason = None, -1.0, RULE_CHANGED
        alert.reason = reason
        if not (was_firing and is_firing):
            alert.since = at
        if before not in ACTIVE_PHASES:
            alert.active_since, alert.fired_at, alert.resolved_at = at, None, None
            self._resolved.pop(_key(alert), None)
        if is_firing and not was_firing:
            alert.fired_at = at
        found = self._transition(alert, before, phase, reason, value)
        if phase in ACTIVE_PHASES:
            self._mark(alert)
        else:
            self._rest(ruling, alert)
        return found

    def _rest(self, ruling: Ruling, alert: Alert) -> None:
        """The life of *alert* is over: it is shown as resolved, or kept to watch its instance, or removed."""
        alert.bad_for, alert.good_for = [-1.0] * len(alert.bad_for), -1.0
        ruling.memory.forget(alert.instance)  # The next life begins at the bound, not where this one would go on.
        if alert.state is Phase.RESOLVED:
            alert.resolved_at = self._at
            self._resolved[_key(alert)] = self._counted
        elif ruling.watches and alert.reason != ERROR:
            alert.level, alert.peak, alert.fired_at = 0, None, None
        else:
            self._remove(alert)
            return
        self._mark(alert)

    def _forget(self) -> Iterator[None]:
        """Drop the alerts that have been resolved for long enough. Yields where others may work."""
        for number in count(1):
            key, counted = next(iter(self._resolved.items()), (None, 0.0))
            if key is None or (len(self._resolved) <= SHOWN and self._counted - counted < SHOWN_FOR):
                return
            self._resolved.popitem(last=False)
            ruling = self._rulings[key.alert]
            alert = ruling.alerts[key.instance]
            alert.state = LIFE.step(alert.state, "forgotten")
            self._rest(ruling, alert)
            if number % _SLICE == 0:
                yield None

    def _timers_run(self, alert: Alert) -> bool:
        """Whether a restart has to know the timers of *alert*: they change its state some time, or a minute is over."""
        if alert.state is not Phase.FIRING:
            return alert.state in ACTIVE_PHASES
        level, bad_for = alert.level, alert.bad_for
        return (level < len(bad_for) and bad_for[level] >= 0) or bad_for[0] % _SAVED_EVERY < self.interval

    def _mark(self, alert: Alert) -> None:
        key = _key(alert)
        self._changed[key] = alert
        if key in self._removed:
            del self._removed[key]
            self._saved.add(key)

    def _remove(self, alert: Alert) -> None:
        key = _key(alert)
        ruling = self._rulings.get(alert.alert)
        if ruling is not None and ruling.alerts.get(alert.instance) is alert:
            del ruling.alerts[alert.instance]
        self._resolved.pop(key, None)
        self._changed.pop(key, None)
        if key in self._saved:
            self._saved.discard(key)
            self._removed[key] = None

    def _transition(
        self, alert: Alert, before: Phase, after: Phase, reason: str, value: float | None
    ) -> AlertTransition:
        self.seq += 1
        return AlertTransition(
            seq=self.seq,
            at=self._at,
            alert=alert.alert,
            labels={**alert.labels, "severity": alert.severity},
            fingerprint=alert.fingerprint,
            from_state=before.value,
            to_state=after.value,
            severity=alert.severity,
            value=value,
            last_value=alert.value,
            reason=reason,
            note=alert.note,
        )


def _key(alert: Alert) -> AlertKey:
    return AlertKey(alert.alert, alert.instance)


def _misfit(alert: Alert) -> str | None:
    """Return why a saved alert cannot be one; None: it can."""
    if alert.instance != tuple(sorted(alert.instance)):
        return "its labels are not in order"
    numbers = [alert.since, alert.active_since, alert.good_for, alert.unknown_for, *alert.bad_for]
    if not all(map(math.isfinite, numbers)):
        return "a time is not a number"
    if alert.state in ACTIVE_PHASES and not (alert.level >= 1 and alert.bad_for and alert.bad_for[0] >= 0):
        return f"it is {alert.state} without a level"
    if alert.fingerprint != fingerprint_of(alert.alert, alert.labels):
        return "its fingerprint is not that of its labels"
    return None
