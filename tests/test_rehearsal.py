"""Delivery in virtual time: whatever receivers answer, each knows in the end what is true."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from hypothesis import example, given, settings
from hypothesis import strategies as st

from pool_monitor.alerts.delivery.notification import SENT, Notification, Outcome
from pool_monitor.alerts.delivery.targets import routing_of
from pool_monitor.alerts.engine import Engine
from pool_monitor.alerts.lifecycle import FIRING_PHASES
from pool_monitor.alerts.overlays import Overlays
from pool_monitor.alerts.rehearsal import Attempt, Rehearsal, Upshot, arrives
from pool_monitor.alerts.rule_file import RuleFile, check
from pool_monitor.alerts.rule_tests.faults import WITHOUT_ANSWER, answered, broken
from pool_monitor.alerts.rule_tests.series import course_of
from pool_monitor.alerts.rule_tests.written import WrittenReader, WrittenSeries
from pool_monitor.alerts.wording import worded

STEP = 30.0
FAULTS_END, END = 1800.0, 2 * 3600.0
RULES = """
rules:
  - {alert: Big, threshold: {metric: pool.size, levels: {warning: 3, critical: 8}}}
  - {alert: Huge, threshold: {metric: pool.size, above: 8}, for: 1m}
route:
  receiver: ops
  group_by: [alertname]
  group_wait: 30s
  group_interval: 2m
  repeat_interval: 1h
  routes:
    - {match: {severity: critical}, receiver: pager, group_by: [pool], group_wait: 0s, continue: true}
    - {match: {alertname: Huge}, receiver: chat, escalate_after: 5m, escalate_to: boss}
receivers:
  - {name: ops, webhook: {url: "https://ops.example/"}, fallback: [log]}
  - {name: pager, webhook: {url: "https://pager.example/"}, page: true, fallback: [ops]}
  - {name: chat, webhook: {url: "https://chat.example/"}}
  - {name: boss, webhook: {url: "https://boss.example/"}}
"""


class Lived:
    """A service whose pools have had *sizes*, one for each step, and whose receivers answered with *answer*. It was
    started again before the steps *restarts*.
    """

    def __init__(
        self, sizes: list[list[int]], answer: Callable[[Notification, float], Upshot], restarts: Collection[int] = ()
    ) -> None:
        self._restarts = restarts
        file, problems = check(RULES, "rules.yaml")
        assert file is not None, problems
        self._file: RuleFile = file
        self.engine, self._overlays = Engine(STEP), Overlays()
        self._rehearsal = Rehearsal(routing_of(file.route, file.receivers), file.inhibit, self._overlays, answer)
        self._reader = WrittenReader(
            [
                WrittenSeries(
                    "pool.size",
                    None,
                    (("pool", f"p{number}"),),
                    course_of(f"{' '.join(map(str, values))} {values[-1]}x9999", STEP, "count"),
                )
                for number, values in enumerate(sizes)
            ],
            STEP,
            0.0,
        )
        self.attempts = list(self._live())

    def _live(self) -> Iterator[Attempt]:
        self.engine.set_rules(self._file.rules, 0.0)
        for number in range(int(END / STEP)):
            at = number * STEP
            if number in self._restarts:
                yield from self._rehearsal.restart(at, keeps_state=True)
            else:
                yield from self._rehearsal.until(at)
            inputs = self._reader.inputs(self.engine.wanted, at, STEP if number else 0.0)
            changes = [worded(one, self.engine.rules) for one in self.engine.step(inputs)]
            self._overlays.note(changes, inputs.elapsed)
            yield from self._rehearsal.step(at, changes, self.engine)

    def firing(self) -> dict[str, str]:
        """The alerts that fire at the end, with their levels."""
        return {one.fingerprint: one.severity for one in self.engine.each() if one.state in FIRING_PHASES}

    def arrived(self, receiver: str) -> list[Notification]:
        return [one.notification for one in self.attempts if one.arrived and one.notification.receiver == receiver]


sizes = st.lists(st.lists(st.sampled_from([0, 5, 9]), min_size=1, max_size=80), min_size=1, max_size=3)
upshots = st.sampled_from(
    [
        *map(broken, WITHOUT_ANSWER),
        *(Upshot(answered(status, None)) for status in (200, 301, 404, 500, 503)),
        Upshot(answered(429, 40.0)),
        Upshot(answered(503, 600.0)),
        Upshot(Outcome("refused", "not now"), 5.0),
    ]
)


@settings(max_examples=15, deadline=None)
@example(  # the end of an alert that flaps waits, and is superseded by the notice that it flaps
    [[5], [9, 5, 0, 5, 0, 9, 0]],
    [(True, Upshot(answered(503, 600.0))), (False, Upshot(SENT)), (True, Upshot(answered(301, None)))],
    set(),
)
@given(sizes, st.lists(st.tuples(st.booleans(), upshots), max_size=60), st.sets(st.integers(1, 90), max_size=4))
def test_whatever_receivers_answer_each_knows_the_truth_in_the_end(
    sizes: list[list[int]], answers: list[tuple[bool, Upshot]], restarts: set[int]
) -> None:
    left = list(answers)

    def answer(notification: Notification, at: float) -> Upshot:
        fails, upshot = left.pop() if left and at < FAULTS_END else (False, None)
        return upshot if fails and upshot is not None else arrives(notification, at)

    lived = Lived(sizes, answer, restarts)
    firing, heard = lived.firing(), set[str]()
    known: dict[tuple[str, str, str], str] = {}  # by receiver, group and fingerprint: the severity, or that it ended
    maybe = set[tuple[str, str, str]]()
    for one in lived.attempts:
        told = one.notification
        assert (told.receiver, told.reason) != ("pager", "digest")
        for alert in told.alerts:
            key = (told.receiver, told.group_key, alert.fingerprint)
            if one.arrived:
                assert alert.status == "firing" or alert.delayed or key in maybe | known.keys()
                known[key] = alert.severity if alert.status == "firing" else "resolved"
            elif one.outcome.unsure:
                maybe.add(key)
    for (_receiver, _group, fingerprint), severity in known.items():
        if severity != "resolved":
            assert firing.get(fingerprint) == severity
            heard.add(fingerprint)
    assert heard == firing.keys()


def test_an_alert_that_fires_again_reaches_the_fallback_while_its_receiver_refuses() -> None:
    def answer(notification: Notification, at: float) -> Upshot:
        return Upshot(answered(404, None)) if notification.receiver == "pager" else arrives(notification, at)

    for quiet in (1, 3, 4, 11):  # until the fallback is told that it ended, and after that
        for restart in (None, 1, 2, 5):
            lived = Lived([[9, *[0] * quiet, 9]], answer, () if restart is None else (restart,))
            last = {alert.alertname: alert.status for one in lived.arrived("ops") for alert in one.alerts}
            assert last == {"Big": "firing"}, (quiet, restart)


@settings(max_examples=15, deadline=None)
@given(sizes, st.lists(upshots, min_size=1, max_size=30))
def test_a_notification_never_changes_and_a_pause_is_kept(sizes: list[list[int]], answers: list[Upshot]) -> None:
    left = list(answers)

    def answer(notification: Notification, at: float) -> Upshot:
        return left.pop() if left else arrives(notification, at)

    lived = Lived(sizes, answer)
    seen: dict[str, Notification] = {}
    paused: dict[str, float] = {}
    for one in lived.attempts:
        name = one.notification.receiver
        assert seen.setdefault(one.notification.id, one.notification) == one.notification
        assert one.at >= paused.get(name, 0.0)
        if one.outcome.retry_after is not None:
            paused[name] = one.at + one.outcome.retry_after
    ends = [one.at for one in lived.attempts]
    assert ends == sorted(ends)


def test_the_same_life_is_told_in_the_same_way() -> None:
    def life() -> list[tuple[float, str, str, str]]:
        left = [Upshot(answered(503, None))] * 7
        lived = Lived([[0, 9, 5, 0] * 20], lambda *_: left.pop() if left else arrives(*_))
        return [
            (one.at, one.notification.receiver, one.notification.reason, one.outcome.result) for one in lived.attempts
        ]

    assert life() == life()
