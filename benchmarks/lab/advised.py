"""The advisor in virtual time: what it recommends in one run of a labelled scenario."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from benchmarks.lab.scenario import EVERYTHING, Scenario
from benchmarks.lab.simulator import Simulator, Watch
from pool_monitor.advisor.core import AdvisorCore
from pool_monitor.snapshot.advice import Pattern


class Subject(NamedTuple):
    """What a label or a recommendation is: a pattern, and what shows it."""

    pattern: str
    subject: str


class AdviceDriver:
    """Lets the advisor look at a run whose size nobody chooses, and notes whatever it has ever recommended."""

    def __init__(self) -> None:
        self.opened: set[Subject] = set()
        self.failures: dict[Pattern, str] = {}
        """Patterns that have raised, and what."""

    def begin(self, simulator: Simulator) -> None:
        self._watch = Watch(simulator, simulator.scenario.wait_target_s, windows=False)
        self._core = AdvisorCore(self._watch.journal.since)
        self._watch.attach()

    def second(self, simulator: Simulator) -> None:
        watch, pool = self._watch, simulator.pool
        watch.tick()
        changes, seen = self._core.step(
            watch.journal.now(), lambda: [watch.journal.history(pool.identity.name, pool.tunables())]
        )
        self.opened |= {Subject(told.pattern, told.subject) for told, _before in changes}
        if seen is not None:
            self.failures.update(seen.failures)
            for name, needed in seen.needed.items():
                watch.journal.note_needed(name, needed)

    def end(self, _simulator: Simulator) -> None:
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
    if driver.failures:
        raise RuntimeError(f"{scenario.name}, seed {seed}: patterns have raised: {driver.failures}")
    return judge(scenario, seed, driver.opened)


def judge(scenario: Scenario, seed: int, opened: Iterable[Subject]) -> Verdict:
    """Compare with the labels. A label about ``*`` is met by any subject, and the whole is the same as all its parts:
    a pool as each of its workers, and as each of its operations.
    """
    expected = tuple(sorted({Subject(one.pattern, one.subject) for one in scenario.labels}))
    right = _spread({Subject(one.pattern, one.subject) for one in scenario.labels}, scenario)
    also = _spread({Subject(one.pattern, one.subject) for one in scenario.also_true}, scenario)
    found = sorted({one for one in opened if not _meets(one, also) or _meets(one, right)})
    false = [one for one in found if not _meets(one, right)]
    said = _spread(set(found) - set(false), scenario)
    missed = [one for one in expected if not any(_matches(other, one) for other in said)]
    return Verdict(scenario.name, seed, expected, tuple(found), tuple(missed), tuple(false))


def _spread(subjects: set[Subject], scenario: Scenario) -> set[Subject]:
    """Return *subjects*, with the parts of each whole, and the whole where all its parts are there."""
    whole = f"pool {scenario.pool}"
    workers = [f"worker {scenario.pool}-{slot}" for slot in range(scenario.n0)]
    kinds = [workers, [f"operation {one.name}" for one in scenario.mixed]]
    spread = set(subjects)
    for pattern, subject in subjects:
        for parts in kinds:
            if subject == whole:
                spread |= {Subject(pattern, part) for part in parts}
            elif subject in parts and all(Subject(pattern, part) in subjects for part in parts):
                spread.add(Subject(pattern, whole))
    return spread


def _meets(found: Subject, labels: Iterable[Subject]) -> bool:
    return any(_matches(found, label) for label in labels)


def _matches(found: Subject, label: Subject) -> bool:
    return found.pattern == label.pattern and label.subject in (found.subject, EVERYTHING)
