"""Reads the findings of a Snapshot as inputs of rules: the same checks, with the same levels, as the dashboard."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from pool_monitor import findings
from pool_monitor.alerts.inputs import Labels, Sample
from pool_monitor.alerts.instances import labels_for
from pool_monitor.errors import UnknownName
from pool_monitor.findings import CAUSES, CONDITIONS, DOUBTS, EFFECTS, STRAINS, Finding

if TYPE_CHECKING:
    from pool_monitor.snapshot import Snapshot

NOTE_MAX = 500
"""Most characters of a note."""
_NAMED_MAX = 10_000
"""Most workers that are remembered because a finding named them."""
_FAULTS_AFTER = 10
"""Without a sample for this many intervals, a Snapshot shows no faults that samples decide."""
_LEVEL = {"warn": 1.0, "bad": 2.0}


class FindingReader:
    """Reads findings as samples.

    A finding is about a pool, or about the service. Where it names workers, each of them has a sample of its own. A
    pool in which nothing was found has a sample of level 0, and so does a worker that was named before, as long as its
    slot exists. So a finding that is over is known to be over, and one that cannot be checked is not.

    The levels of shares keep their hysteresis from one Snapshot to the next. Bound: `_NAMED_MAX` workers.
    """

    def __init__(self) -> None:
        self._levels = findings.NO_LEVELS
        self._levels_of = -1
        """The number of the Snapshot that the levels are of."""
        self._named: dict[tuple[str, str, str], None] = {}
        """Kind, pool and slot of each worker that was named, the oldest first."""

    def samples(self, kind: str, snapshot: Snapshot) -> Iterable[Sample]:
        """Return the findings of *kind* in *snapshot*, by pool and worker. Raises UnknownName for an unknown kind."""
        if kind not in CONDITIONS:
            raise UnknownName(f"there is no finding {kind!r:.100}; there are: {', '.join(CONDITIONS)}")
        if self._levels_of != snapshot.seq:
            self._levels, self._levels_of = findings.levels(snapshot, self._levels), snapshot.seq
        found: dict[Labels, Sample] = {}
        for finding in self._found(kind, snapshot):
            for sample in self._samples_of(finding, snapshot):
                found[sample.labels] = _worse(found.get(sample.labels), sample)
        checked = _checked(kind, snapshot)
        for _kind, pool, slot in [named for named in self._named if named[0] == kind]:
            if pool in checked and slot in snapshot.pools[pool].workers:
                labels = labels_for("worker", pool, slot)
                found.setdefault(labels, Sample(labels, None, more=(0.0,)))
        with_findings = {dict(labels).get("pool") for labels, sample in found.items() if sample.more[0]}
        for name in checked:
            if name not in with_findings:
                labels = () if name is None else labels_for("pool", name)
                found[labels] = Sample(labels, None, more=(0.0,))
        return found.values()

    def _found(self, kind: str, snapshot: Snapshot) -> Iterator[Finding]:
        if kind in DOUBTS:
            yield from DOUBTS[kind](snapshot.monitor)
        elif kind in STRAINS:
            # A finding covers all faults of its kind in a pool; here each of them counts with its own numbers.
            for fault in snapshot.resources.faults:
                if fault.kind == kind:
                    names = (fault.worker or fault.subject,)
                    yield Finding(kind, fault.level, fault.pool, names, fault.value, fault.limit, reason=fault.reason)
        else:
            check = CAUSES.get(kind) or EFFECTS[kind]
            for pool in snapshot.pools.values():
                yield from check(snapshot, pool, self._levels)

    def _samples_of(self, finding: Finding, snapshot: Snapshot) -> Iterator[Sample]:
        level = _LEVEL[finding.level]
        more = (level,) if finding.limit is None else (level, float(finding.limit))
        value = None if finding.value is None else float(finding.value)
        pool = finding.pool
        slots = snapshot.pools[pool].workers if pool in snapshot.pools else {}
        workers = [name for name in finding.names if name in slots]
        if pool is None or not workers:
            labels = () if pool is None else labels_for("pool", pool)
            yield Sample(labels, value, None, more, _note(finding))
            return
        for slot in workers:
            self._remember(finding.kind, pool, slot)
            yield Sample(labels_for("worker", pool, slot), value, None, more, _note(finding))

    def _remember(self, kind: str, pool: str, slot: str) -> None:
        self._named.pop((kind, pool, slot), None)
        if len(self._named) >= _NAMED_MAX:
            del self._named[next(iter(self._named))]
        self._named[kind, pool, slot] = None


def _checked(kind: str, snapshot: Snapshot) -> list[str | None]:
    """Return the pools of which it is known whether they have a finding of *kind*; None in it: the service."""
    if kind in DOUBTS:
        return [None]
    if kind in STRAINS:
        return [None, *snapshot.pools] if _measured(kind, snapshot) else []
    return list(snapshot.pools)


def _measured(kind: str, snapshot: Snapshot) -> bool:
    """Return whether faults of *kind* would be seen. Those of the event loop do not come from samples."""
    resources, sampling = snapshot.resources, snapshot.monitor.resources
    if kind in ("blocked", "lag"):
        return resources.loop.blocks is not None
    if resources.sampled_age is None or sampling is None:
        return False
    return resources.sampled_age <= _FAULTS_AFTER * sampling.interval


def _worse(one: Sample | None, other: Sample) -> Sample:
    """Return the worse of two samples of one instance, with the notes of both."""
    if one is None:
        return other
    first, second = (other, one) if other.more[0] > one.more[0] else (one, other)
    notes = dict.fromkeys(note for note in (first.note, second.note) if note)
    return first._replace(note="; ".join(notes)[:NOTE_MAX])


def _note(finding: Finding) -> str:
    """Return why it is, or what it is about, in plain words."""
    names = ", ".join(finding.names)
    about = "" if finding.pool is not None or not names or names == finding.reason else names
    causes = ", ".join(f"{number} {cause}" for cause, number in finding.causes.items() if number)
    text = ": ".join(part for part in (about, finding.reason or causes) if part) or names
    return "".join(char if char.isprintable() else " " for char in text)[:NOTE_MAX].strip()
