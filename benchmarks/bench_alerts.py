"""What an evaluation of alert rules costs, and their delivery, and for how long each holds the event loop at once."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from benchmarks import tables
from benchmarks.calls import PAST, Past
from benchmarks.delivery import delivery_table
from benchmarks.metrics_queries import Watched, watched
from benchmarks.tables import Table
from pool_monitor.alerts.engine import Engine
from pool_monitor.alerts.inputs import Inputs
from pool_monitor.alerts.reader import LiveReader
from pool_monitor.alerts.rule import Absolute, CheckedRule, Level, Matcher, Threshold

RULES, SERIES, ROUNDS, INTERVAL = 1000, 200, 15, 5.0
OPERATIONS = range(10, 60)
"""Those whose names a pattern like ``operation_3?`` chooses ten of."""
HIGH, LOW = 3600.0, -1.0
"""A bound that nothing is above, and one that everything is above."""


def rules(instances: int, bound: float, count: int = RULES) -> list[CheckedRule]:
    """Return rules over a third of the operations' series each, with 1 or 10 *instances*."""
    found = []
    for number in range(count):
        series = ("latency", "queue", "execution")[number % 3]
        operation = OPERATIONS[number // 3 % len(OPERATIONS)]
        pattern = f"operation_{operation}" if instances == 1 else f"operation_{operation // 10}?"
        levels = (Level("warning", Absolute(bound)), Level("critical", Absolute(2 * bound + 10)))
        found.append(
            CheckedRule(
                alert=f"Rule{number}",
                kind=Threshold(metric=f"operation.{series}.p95", window="5m", above=True, levels=levels),
                match=(Matcher("operation", pattern),),
                severities=("warning", "critical"),
                for_=15.0,
            )
        )
    return found


class Evaluation(NamedTuple):
    """An engine, and the monitor that it reads."""

    engine: Engine
    reader: LiveReader
    one: Watched

    def read(self) -> Inputs:
        return self.reader.inputs(self.engine.wanted, INTERVAL)

    def evaluate(self) -> None:
        """Evaluate all rules, from the first read to the last transition."""
        self.engine.step(self.read())


@contextmanager
def evaluation(chosen: list[CheckedRule], series: int = SERIES, past: Past = PAST) -> Iterator[Evaluation]:
    with watched(series, 50, past=past) as one:
        engine = Engine(INTERVAL)
        engine.set_rules(chosen, 0.0)
        gc.collect()
        yield Evaluation(engine, LiveReader(one.monitor.context.snapshot_in_steps), one)


class Took(NamedTuple):
    """Seconds."""

    read: float
    step: float
    held: float
    """The longest stretch between two moments at which others may work, of the step."""


def took(now: Evaluation) -> Took:
    began = time.thread_time()
    inputs = now.read()
    last = read = time.thread_time()
    held = 0.0
    for _ in now.engine.stepping(inputs):
        moment = time.thread_time()
        held, last = max(held, moment - last), moment
    return Took(read - began, last - read, held)


CASES: dict[str, tuple[int, float, int]] = {
    "1,000 rules x 1 instance, all good": (1, HIGH, ROUNDS),
    "1,000 rules x 10 instances, all good": (10, HIGH, ROUNDS),
    "1,000 rules x 10 instances, all begin to be bad": (10, LOW, 1),
    "1,000 rules x 10 instances, all bad": (10, LOW, ROUNDS),
}


def cost_table(rounds: int = ROUNDS, count: int = RULES, past: Past = PAST) -> Table:
    rows = []
    for name, (instances, bound, times) in CASES.items():
        with evaluation(rules(instances, bound, count), past=past) as now:
            if bound == LOW and times > 1:
                now.evaluate()
            found = []
            for _ in range(min(times, rounds)):
                now.one.go_on()
                found.append(took(now))
        best = [min(figures) for figures in zip(*found, strict=True)]
        rows.append([name, *(f"{seconds * 1e3:.1f}" for seconds in (best[0] + best[1], *best))])
    about = (
        f"Milliseconds of processor time of one evaluation over {SERIES} series, the best of {rounds}; of the third "
        "row, the only one. All: the values are read and judged, and the lives of the alerts go on. Held: the longest "
        "stretch of judging without a moment for others. Garbage that was there before is collected before."
    )
    return Table("evaluation of alert rules", about, ["", "all", "read", "judge and step", "held"], rows)


def work_table(count: int = RULES) -> Table:
    with evaluation(rules(10, LOW, count)) as now:
        now.evaluate()
        now.engine.changed()
        again = rules(10, LOW, count)
        changed = rules(10, LOW + 0.5, count)
        rows = [
            ["the same rules again", _ms(lambda: now.engine.set_rules(again, 0.0))],
            ["all rules with other bounds", _ms(lambda: now.engine.set_rules(changed, 0.0))],
            ["list of all alerts", _ms(lambda: now.engine.alerts)],
        ]
    about = "Milliseconds of processor time, once, with 10,000 alerts."
    return Table("other work of the engine", about, ["", "ms"], rows)


def _ms(act: Callable[[], object]) -> str:
    began = time.thread_time()
    act()
    return f"{(time.thread_time() - began) * 1e3:.1f}"


def main(*, as_markdown: bool) -> None:
    tables.show((make() for make in (cost_table, work_table, delivery_table)), as_markdown=as_markdown)
