"""The advisor in virtual time: what it recommends in one run of a labelled scenario."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from benchmarks.lab.scenario import EVERYTHING, Label, Scenario
from benchmarks.lab.simulator import Simulator, Watch
from pool_monitor.advisor.history import History
from pool_monitor.advisor.patterns import PATTERNS
from pool_monitor.tunable import Tunable

OFTEN_S, OFTEN_UNTIL_S, SELDOM_S = 60.0, 900.0, 300.0
"""Seconds between two passes at the beginning, how long that is, and afterwards."""


class Subject(NamedTuple):
    """What a label or a recommendation is: a pattern, and what shows it."""

    pattern: str
    subject: str


class Passes:
    """Stands in for the core of the advisor: a pattern that was found in 3 of the last 5 passes is recommended."""

    def __init__(self) -> None:
        self._seen: dict[Subject, deque[bool]] = {}
        self.opened: set[Subject] = set()

    def step(self, history: History) -> None:
        found = {Subject(one.pattern, one.subject) for check in PATTERNS.values() for one in check(history)}
        for subject in found - self._seen.keys():
            self._seen[subject] = deque(maxlen=5)
        for subject, passes in self._seen.items():
            passes.append(subject in found)
            if sum(passes) >= 3:
                self.opened.add(subject)


class AdviceDriver:
    """Lets the advisor look at a run whose size nobody chooses, and notes whatever it has ever recommended."""

    def __init__(self) -> None:
        self._watch: Watch | None = None
        self._passes = Passes()
        self._due = OFTEN_S

    @property
    def opened(self) -> set[Subject]:
        return self._passes.opened

    def begin(self, simulator: Simulator) -> None:
        self._watch = Watch(simulator, windows=False)
        self._watch.attach()

    def second(self, simulator: Simulator) -> None:
        assert self._watch is not None
        self._watch.tick()
        now = simulator.clock.now
        if now >= self._due:
            self._due = now + (OFTEN_S if now < OFTEN_UNTIL_S else SELDOM_S)
            tunables: tuple[Tunable, ...] = tuple(simulator.pool.tunables())
            self._passes.step(self._watch.journal.history(simulator.scenario.pool, tunables))

    def end(self, _simulator: Simulator) -> None:
        if self._watch is not None:
            self._watch.detach()


class Verdict(NamedTuple):
    """A run beside its labels. The fields are those of the JSON form; a finding that is true as well is in none."""

    scenario: str
    seed: int
    expected: tuple[Subject, ...]
    found: tuple[Subject, ...]
    """Whatever was recommended: what was expected, and what is false."""
    missed: tuple[Subject, ...]
    false: tuple[Subject, ...]


def advised(scenario: Scenario, seed: int) -> Verdict:
    """Play *scenario* once, and compare what was recommended with its labels."""
    driver = AdviceDriver()
    Simulator(scenario, seed).play(driver)
    return judge(scenario, seed, driver.opened)


def judge(scenario: Scenario, seed: int, opened: Iterable[Subject]) -> Verdict:
    """Compare with the labels. A label about ``*`` is met by any subject."""
    expected = tuple(sorted({Subject(one.pattern, one.subject) for one in scenario.labels}))
    found = sorted({one for one in opened if not _meets(one, scenario.also_true) or _meets(one, scenario.labels)})
    missed = [one for one in expected if not any(_matches(other, one) for other in found)]
    false = [one for one in found if not _meets(one, scenario.labels)]
    return Verdict(scenario.name, seed, expected, tuple(found), tuple(missed), tuple(false))


def _meets(found: Subject, labels: Iterable[Label]) -> bool:
    return any(_matches(found, Subject(one.pattern, one.subject)) for one in labels)


def _matches(found: Subject, label: Subject) -> bool:
    return found.pattern == label.pattern and label.subject in (found.subject, EVERYTHING)
