"""The form of a scenario: what arrives, how long it takes, what goes wrong, and which findings would be right.

A file holds a list of scenarios in JSON. A field or a kind that is not known is refused with its name, because a
scenario whose fault is not played would be scored as healthy.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias, get_args

import msgspec
import numpy as np
from msgspec import Struct

from pool_monitor.snapshot.advice import Pattern

HERE = Path(__file__).parent / "scenarios"
POOL_SIZE, ADVICE = HERE / "pool_size.json", HERE / "advice.json"
WORK = "work"
"""The operation of a scenario that names none."""
EVERYTHING = "*"
CALLS_MAX = 20_000_000
"""Most calls of a scenario: what is drawn has to fit into memory."""


class ScenarioError(ValueError):
    """A scenario that cannot be played. The text names the place, the value and the remedy."""


class _Form(Struct, frozen=True, forbid_unknown_fields=True):
    pass


class LogNormal(_Form, frozen=True, kw_only=True, tag="lognormal", tag_field="kind"):
    mean_s: float
    cv: float
    """Standard deviation / mean."""
    weight: float = 1.0
    """In a mixture: the share of its calls."""

    @property
    def cv2(self) -> float:
        """Variance / mean squared."""
        return self.cv**2


class Exponential(_Form, frozen=True, kw_only=True, tag="exponential", tag_field="kind"):
    mean_s: float
    weight: float = 1.0
    cv2: ClassVar[float] = 1.0


class Constant(_Form, frozen=True, kw_only=True, tag="constant", tag_field="kind"):
    mean_s: float
    weight: float = 1.0
    cv2: ClassVar[float] = 0.0


Simple: TypeAlias = LogNormal | Exponential | Constant


class Mixture(_Form, frozen=True, kw_only=True, tag="mixture", tag_field="kind"):
    parts: tuple[Simple, ...]

    @property
    def mean_s(self) -> float:
        return sum(part.weight * part.mean_s for part in self.parts)

    @property
    def cv2(self) -> float:
        return sum(part.weight * part.mean_s**2 * (1 + part.cv2) for part in self.parts) / self.mean_s**2 - 1


Service: TypeAlias = LogNormal | Exponential | Constant | Mixture


class LinearRate(_Form, frozen=True, kw_only=True, tag="linear", tag_field="kind"):
    """Straight lines between points. Two points at one time make a step."""

    points: tuple[tuple[float, float], ...]


class SineRate(_Form, frozen=True, kw_only=True, tag="sine", tag_field="kind"):
    """``mean * (1 + amplitude * sin(2 pi (t - offset_s) / period_s))``."""

    mean: float
    amplitude: float
    period_s: float
    offset_s: float = 0.0


class MmppRate(_Form, frozen=True, kw_only=True, tag="mmpp", tag_field="kind"):
    """Alternates between two rates, and stays at each for an exponential time. The times depend on the seed."""

    low: float
    high: float
    mean_sojourn_s: float
    seed_base: int = 0


Rate: TypeAlias = LinearRate | SineRate | MmppRate


class Operation(_Form, frozen=True, kw_only=True):
    name: str
    share: float
    """Of all calls."""
    service: Service
    timeout_s: float | None = None


class Rss(_Form, frozen=True, kw_only=True):
    """The resident memory of each worker. See `benchmarks.lab.memory`."""

    base_bytes: float
    noise_bytes: float = 0.0
    ar: float = 0.0
    every_s: float = 10.0
    warmup_bytes: float = 0.0
    warmup_tau_s: float = 600.0
    saw_bytes: float = 0.0
    saw_every_s: float = 3600.0


class _Fault(_Form, frozen=True, kw_only=True, tag_field="kind"):
    at_s: float = 0.0
    until_s: float | None = None
    """None: to the end."""
    subject: str = EVERYTHING


class Slow(_Fault, frozen=True, kw_only=True, tag="slow"):
    factor: float


class Pin(_Fault, frozen=True, kw_only=True, tag="pin"):
    share: float


class Leak(_Fault, frozen=True, kw_only=True, tag="leak"):
    bytes_per_hour: float


class Errors(_Fault, frozen=True, kw_only=True, tag="errors"):
    ratio: float
    type: str = "RuntimeError"
    burst_mean: float | None = None


class Hang(_Fault, frozen=True, kw_only=True, tag="hang"):
    share: float


class Restart(_Fault, frozen=True, kw_only=True, tag="restart"):
    every_s: float | None = None
    planned: bool = False
    rolling: bool = False


class Throttle(_Fault, frozen=True, kw_only=True, tag="throttle"):
    periods_ratio: float
    slowdown: float = 1.0


class BlockLoop(_Fault, frozen=True, kw_only=True, tag="block_loop"):
    block_s: float
    every_s: float


class Neighbour(_Fault, frozen=True, kw_only=True, tag="neighbour"):
    cores: float
    slowdown: float = 1.0
    pressure: float = 0.0


Fault: TypeAlias = Slow | Pin | Leak | Errors | Hang | Restart | Throttle | BlockLoop | Neighbour


class Label(_Form, frozen=True, kw_only=True):
    pattern: Pattern
    subject: str


class Scenario(_Form, frozen=True, kw_only=True):
    """One scenario. Times are seconds from its beginning, rates are calls per second."""

    name: str
    duration_s: float
    wait_target_s: float
    cold_start_s: float = 2.0
    n0: int
    n_min: int = 1
    n_max: int = 64
    queue_limit: int = 5000
    patience_s: float = 30.0
    cores: float | None = None
    kappa: float = 0.0
    service: Service
    rate: Rate
    slowdown: tuple[tuple[float, float], ...] = ()
    """From when on service times are multiplied by what."""
    pool: str = "text"
    size: tuple[tuple[float, int], ...] = ()
    operations: tuple[Operation, ...] = ()
    timeout_s: float | None = None
    cpu_fraction: float | None = None
    cpu_quota: float | None = None
    rss: Rss | None = None
    faults: tuple[Fault, ...] = ()
    labels: tuple[Label, ...] = ()
    also_true: tuple[Label, ...] = ()
    wall_s: float = 1_735_689_600.0
    """The wall clock at the beginning: Wednesday, 2025-01-01, 00:00 UTC."""

    @property
    def mixed(self) -> tuple[Operation, ...]:
        """The operations; `WORK` alone if the scenario names none."""
        return self.operations or (Operation(name=WORK, share=1.0, service=self.service, timeout_s=self.timeout_s),)

    @property
    def most(self) -> int:
        """The most workers that there can be, and so the number of slots."""
        return max(self.n_max, self.n0, *(count for _at, count in self.size), 1)

    @property
    def cpu_share(self) -> float:
        """Processor-seconds per busy second of a worker."""
        return 1.0 if self.cpu_fraction is None else self.cpu_fraction

    @property
    def peak(self) -> float:
        """A bound of the rate, for the thinning of `benchmarks.lab.traffic`. 1 more for a sine."""
        rate = self.rate
        if isinstance(rate, LinearRate):
            return max(value for _at, value in rate.points)
        if isinstance(rate, MmppRate):
            return max(rate.low, rate.high)
        return rate.mean * (1 + abs(rate.amplitude)) + 1

    def rates(self, times: np.ndarray[Any, np.dtype[np.float64]], seed: int) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return the rate at each of *times*."""
        rate = self.rate
        if isinstance(rate, LinearRate):
            at, value = np.array(rate.points, dtype=np.float64).T
            return np.asarray(np.interp(times, at, value))
        if isinstance(rate, SineRate):
            phase = 2 * math.pi * (times - rate.offset_s) / rate.period_s
            return np.asarray(rate.mean * (1 + rate.amplitude * np.sin(phase)))
        begins = mmpp_begins(rate, seed, self.duration_s)
        high = (np.searchsorted(begins, times, side="right") - 1) % 2 == 1
        return np.where(high, rate.high, rate.low)

    def rate_at(self, time: float, seed: int) -> float:
        return float(self.rates(np.array([time]), seed)[0])

    def slowdown_at(self, time: float) -> float:
        """By what service times are multiplied at *time*, by `slowdown` alone."""
        factor = 1.0
        for at, value in self.slowdown:
            if at <= time:
                factor = value
        return factor


def mmpp_begins(rate: MmppRate, seed: int, duration: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return when each stay begins. The first is at the low rate."""
    rng = np.random.default_rng(rate.seed_base + seed)
    begins, at = [0.0], 0.0
    while (at := at + float(rng.exponential(rate.mean_sojourn_s))) < duration:
        begins.append(at)
    return np.array(begins)


# -- reading ----------------------------------------------------------------------------------------------------------


def load(path: Path | str) -> list[Scenario]:
    """Read the scenarios of a file. Raises ScenarioError for one that cannot be played."""
    try:
        rows = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ScenarioError(f"{path} cannot be read ({error.strerror}): give a file of scenarios") from None
    except ValueError as error:
        raise ScenarioError(f"{path} is not JSON ({error}): it has to hold a list of scenarios") from None
    if not isinstance(rows, list) or not rows:
        raise ScenarioError(f"{path}: it has to hold a list of scenarios, as {POOL_SIZE.name} does")
    found = [parse(row, f"{path}[{number}]") for number, row in enumerate(rows)]
    twice = {one.name for one in found if sum(other.name == one.name for other in found) > 1}
    if twice:
        raise ScenarioError(f"{path}: name = {min(twice)!r} is there twice: names have to differ")
    return found


def parse(row: object, place: str = "scenario") -> Scenario:
    """Return the scenario that *row*, decoded from JSON, describes. *place* is for the text of ScenarioError."""
    if isinstance(row, dict) and isinstance(row.get("name"), str):
        place = f"{place} {row['name']!r}"
    try:
        found = msgspec.convert(row, Scenario)
    except msgspec.ValidationError as error:
        raise ScenarioError(f"{place}: {error}: {_remedy(str(error))}") from None
    for wrong in _wrong(found):
        raise ScenarioError(f"{place}: {wrong}")
    return found


def _remedy(message: str) -> str:
    if "unknown field" in message:
        return "this laboratory does not play it; leave it out"
    if ".kind`" in message:
        kinds = next(of for place, of in (("faults", Fault), ("rate", Rate), ("", Service)) if f".{place}" in message)
        return f"the kinds are {', '.join(str(one.__struct_config__.tag) for one in get_args(kinds))}"
    if ".pattern`" in message:
        return f"the patterns are {', '.join(get_args(Pattern))}"
    return "correct it, as benchmarks/lab/scenario.py describes the form"


def _wrong(scenario: Scenario) -> Iterable[str]:
    """Yield what no type can say: place, value and remedy."""
    if scenario.operations:
        total = sum(one.share for one in scenario.operations)
        if abs(total - 1) > 1e-6:
            yield f"operations: the shares add up to {total:g}: they have to add up to 1"
        names = [one.name for one in scenario.operations]
        if len(set(names)) < len(names):
            yield f"operations: names = {names}: they have to differ"
    rate = scenario.rate
    if isinstance(rate, LinearRate):
        yield from _wrong_times("rate.points", rate.points, 2)
    elif isinstance(rate, SineRate) and not (rate.mean >= 0 and rate.period_s > 0):
        yield f"rate: mean = {rate.mean:g}, period_s = {rate.period_s:g}: a mean has to be at least 0, a period above"
    elif isinstance(rate, MmppRate) and not (rate.low >= 0 and rate.high >= 0 and rate.mean_sojourn_s > 0):
        yield f"rate: mean_sojourn_s = {rate.mean_sojourn_s:g}: it has to be above 0, and rates have to be at least 0"
    yield from _wrong_numbers(scenario)
    yield from _wrong_times("slowdown", scenario.slowdown, 0)
    yield from _wrong_times("size", scenario.size, 0)
    services = [scenario.service, *(one.service for one in scenario.operations)]
    for service in services:
        for part in service.parts if isinstance(service, Mixture) else (service,):
            if not (part.mean_s > 0 and part.weight >= 0 and getattr(part, "cv", 0.0) >= 0):
                yield f"service: mean_s = {part.mean_s:g}: mean and weight have to be above 0, cv at least 0"
        if isinstance(service, Mixture) and abs(sum(part.weight for part in service.parts) - 1) > 1e-6:
            yield f"service: the weights add up to {sum(part.weight for part in service.parts):g}: they have to be 1"
    for number, fault in enumerate(scenario.faults):
        yield from (f"faults[{number}]: {wrong}" for wrong in _wrong_fault(fault, scenario))
    yield from _wrong_labels(scenario)


def _wrong_numbers(scenario: Scenario) -> Iterable[str]:
    at_least = {"n0": 0, "n_min": 0, "n_max": 1, "queue_limit": 0, "kappa": 0, "cold_start_s": 0, "wait_target_s": 0}
    above = ("duration_s", "patience_s", "cores", "cpu_fraction", "cpu_quota", "timeout_s")
    for field, bound in at_least.items():
        if not getattr(scenario, field) >= bound:
            yield f"{field} = {getattr(scenario, field):g}: it has to be at least {bound}"
    for field in above:
        value = getattr(scenario, field)
        if value is not None and not 0 < value < math.inf:
            yield f"{field} = {value:g}: it has to be above 0"
    if scenario.n_min > scenario.n_max:
        yield f"n_min = {scenario.n_min}: it has to be at most n_max = {scenario.n_max}"
    if scenario.duration_s * max(scenario.peak, 0) > CALLS_MAX:
        yield f"rate: about {scenario.duration_s * scenario.peak:.0f} calls: there may be at most {CALLS_MAX}"


def _wrong_times(field: str, points: Sequence[tuple[float, float]], fewest: int) -> Iterable[str]:
    if len(points) < fewest:
        yield f"{field}: {len(points)} points: there have to be at least {fewest}"
    times = [at for at, _value in points]
    if times != sorted(times):
        yield f"{field}: the times go back: put the points in order of time"
    if any(not 0 <= value < math.inf for _at, value in points):
        yield f"{field}: a value is below 0 or infinite: values have to be at least 0"


_SUBJECTS: dict[type[_Fault], tuple[str, ...]] = {
    Slow: ("pool", "worker", "operation", EVERYTHING),
    Pin: ("worker",),
    Leak: ("pool", "worker", EVERYTHING),
    Errors: ("pool", "worker", "operation", EVERYTHING),
    Hang: ("pool", "worker", "operation", EVERYTHING),
    Restart: ("pool", "worker", EVERYTHING),
    Throttle: ("host", "pool", "process", EVERYTHING),
    BlockLoop: ("loop", "process", "pool", EVERYTHING),
    Neighbour: ("host", "pool", EVERYTHING),
}
"""What a fault may be about."""
_LABELLED = "pool NAME, worker SLOT, operation NAME, host, process and loop"
_Kind = Literal["pool", "worker", "operation", "host", "loop", "process", "*"]


def _wrong_labels(scenario: Scenario) -> Iterable[str]:
    for field, labels in (("labels", scenario.labels), ("also_true", scenario.also_true)):
        for number, label in enumerate(labels):
            if label.subject.partition(" ")[0] not in get_args(_Kind):
                yield f"{field}[{number}]: subject = {label.subject!r}: subjects are {_LABELLED}"


def _wrong_fault(fault: _Fault, scenario: Scenario) -> Iterable[str]:
    if fault.until_s is not None and fault.until_s < fault.at_s:
        yield f"until_s = {fault.until_s:g}: it has to be at least at_s = {fault.at_s:g}"
    kind, _, name = fault.subject.partition(" ")
    if kind not in _SUBJECTS[type(fault)]:
        yield f"subject = {fault.subject!r}: this kind is about {', '.join(_SUBJECTS[type(fault)])}"
    elif kind == "pool" and name != scenario.pool:
        yield f"subject = {fault.subject!r}: the pool is {scenario.pool!r}"
    elif kind == "worker" and name not in {f"{scenario.pool}-{slot}" for slot in range(scenario.most)}:
        yield f"subject = {fault.subject!r}: workers are {scenario.pool}-0 to {scenario.pool}-{scenario.most - 1}"
    elif kind == "operation" and name not in {one.name for one in scenario.mixed}:
        yield f"subject = {fault.subject!r}: operations are {', '.join(one.name for one in scenario.mixed)}"
    for field in ("share", "ratio", "periods_ratio", "pressure"):
        value = getattr(fault, field, 0.0)
        if not 0 <= value <= 1:
            yield f"{field} = {value:g}: it has to be from 0 to 1"
    for field in ("factor", "slowdown", "block_s", "every_s"):
        value = getattr(fault, field, None)
        if value is not None and not 0 < value < math.inf:
            yield f"{field} = {value:g}: it has to be above 0"
    if isinstance(fault, Errors) and fault.burst_mean is not None and not fault.burst_mean >= 1:
        yield f"burst_mean = {fault.burst_mean:g}: it has to be at least 1"
    if isinstance(fault, Restart) and fault.every_s is None and not (fault.planned or fault.rolling):
        yield "every_s is missing: give it, or planned or rolling = true for all workers once"
