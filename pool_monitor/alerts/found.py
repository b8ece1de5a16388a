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
_FAULTS_AFTER = 10
"""Without a sample for this many intervals, a Snapshot shows no faults that samples decide."""
_LEVEL = {"warn": 1.0, "bad": 2.0}


class FindingReader:
    """Reads findings as samples. A finding has a sample only while it is there.

    It is about a pool, or about the service. Where it names workers, each of them has a sample of its own. The levels
    of shares keep their hysteresis from one Snapshot to the next.
    """

    def __init__(self) -> None:
        self._levels = findings.NO_LEVELS
        self._levels_of = -1
        """The number of the Snapshot that the levels are of."""

    def samples(self, kind: str, snapshot: Snapshot) -> Iterable[Sample]:
        """Return the findings of *kind* in *snapshot*, by pool and worker.

        Raises LookupError with the reason for an unknown kind, and while it cannot be known what is found.
        """
        if kind not in CONDITIONS:
            raise UnknownName(f"there is no finding {kind!r:.100}; there are: {', '.join(CONDITIONS)}")
        if kind in STRAINS:
            _check_sampled(kind, snapshot)
        if self._levels_of != snapshot.seq:
            self._levels, self._levels_of = findings.levels(snapshot, self._levels), snapshot.seq
        found: dict[Labels, Sample] = {}
        for finding in self._found(kind, snapshot):
            for sample in _samples_of(finding, snapshot):
                found[sample.labels] = _worse(found.get(sample.labels), sample)
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


def _check_sampled(kind: str, snapshot: Snapshot) -> None:
    """Raise LookupError when faults of *kind* are measured, but were not for too long. They may be there, unseen."""
    sampling, age = snapshot.monitor.resources, snapshot.resources.sampled_age
    if kind in ("blocked", "lag") or sampling is None or age is None:
        return
    if age > _FAULTS_AFTER * sampling.interval:
        raise LookupError(f"resources have not been measured for {age:.0f} s")


def _samples_of(finding: Finding, snapshot: Snapshot) -> Iterator[Sample]:
    level, pool = _LEVEL[finding.level], finding.pool
    more = (level,) if finding.limit is None else (level, float(finding.limit))
    value = None if finding.value is None else float(finding.value)
    slots = snapshot.pools[pool].workers if pool in snapshot.pools else {}
    of = [labels_for("worker", pool or "", name) for name in finding.names if name in slots]
    for labels in of or [labels_for("pool", pool) if pool is not None else ()]:
        yield Sample(labels, value, None, more, _note(finding))


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
    causes = ", ".join(f"{number} {cause}" for cause, number in finding.causes.items() if number)
    why = finding.reason or causes
    # Of a finding about the service, the names say what it is about: a part, an event, a resource.
    text = f"{names}: {why}" if names and why and finding.pool is None else why or names
    return "".join(char if char.isprintable() else " " for char in text)[:NOTE_MAX].strip()
