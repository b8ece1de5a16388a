"""The recorded form of what evaluations read, from which a replay does them again.

A record holds only the inputs whose samples have changed since the record before, so a calm hour takes little room. The
first record of a recorder, and each `WHOLE_EVERY`-th after it, is *whole*: it does not depend on earlier ones. Records
have numbers, so that one that is missing is seen. A reader goes on at the next whole record behind one that is damaged
or missing.

Numbers are stored as they are, so a replay computes with exactly the same ones.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import msgspec
from msgspec import Struct

from pool_monitor.alerts.inputs import Input, Inputs, Sample, Samples
from pool_monitor.snapshot import AlertTransition

WHOLE_EVERY = 60
"""Every so many records, one is whole: at the default interval, once in five minutes."""
ROOM_MAX = 16 * 2**20
"""Most bytes of a record when it is expanded."""
_VERSION = 1


class _Record(Struct, array_like=True):
    version: int
    number: int
    """0 for the first one of a recorder."""
    whole: bool
    interval: float
    keeps_state: bool
    at: float
    elapsed: float
    covered: float
    inputs: list[Input]
    """Those that changed."""
    samples: list[tuple[Sample, ...]]
    gone: list[Input]
    """Those that are not read any more."""
    errors: list[tuple[Input, str]]


class Recorded(NamedTuple):
    """One recorded evaluation."""

    inputs: Inputs
    restarted: bool
    """Whether the engine was made anew before this evaluation: the service was started."""
    interval: float
    """The seconds between two evaluations of the service."""
    keeps_state: bool
    """Whether the service has a state file, from which the engine was made when it was made anew."""


_encode, _decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(_Record).decode
_decode_transition = msgspec.msgpack.Decoder(AlertTransition).decode


class Recorder:
    """Encodes evaluations, each as what changed since the one before. Keeps one `Inputs`.

    *interval* and *keeps_state* are what `Recorded` says of the service.
    """

    def __init__(self, interval: float, *, keeps_state: bool) -> None:
        self._interval, self._keeps_state = interval, keeps_state
        self._before: Mapping[Input, tuple[Sample, ...]] = {}
        self._count = 0

    def encode(self, inputs: Inputs) -> bytes:
        """Return the record of *inputs*. The first one is marked as a restart."""
        whole = self._count % WHOLE_EVERY == 0
        before = {} if whole else self._before
        changed = {one: found for one, found in inputs.samples.items() if before.get(one) != found or one not in before}
        record = _Record(
            version=_VERSION,
            number=self._count,
            whole=whole,
            interval=self._interval,
            keeps_state=self._keeps_state,
            at=inputs.at,
            elapsed=inputs.elapsed,
            covered=inputs.covered,
            inputs=list(changed),
            samples=list(changed.values()),
            gone=[one for one in before if one not in inputs.samples],
            errors=list(inputs.errors.items()),
        )
        self._before, self._count = inputs.samples, self._count + 1
        return zlib.compress(_encode(record), 1)


class Player:
    """Decodes records in the order in which they were made. Keeps one `Inputs`."""

    def __init__(self) -> None:
        self.damaged = 0
        """Records that could not be read, and those that depended on them or on missing ones. Those before the first
        whole one are not among them: the beginning of a recording is deleted in time."""
        self._before: dict[Input, tuple[Sample, ...]] | None = None
        self._number = -1
        self._begun = False

    def play(self, bodies: Iterable[bytes]) -> Iterator[Recorded]:
        """Yield each evaluation. What cannot be read is left out and counted."""
        for body in bodies:
            try:
                record = _record(body)
            except ValueError:
                self._before, self._begun = None, True
                self.damaged += 1
                continue
            if record.whole:
                self._before, self._begun = {}, True
            elif self._before is None or record.number != self._number + 1:
                self._before = None
                self.damaged += self._begun
                continue
            self._number = record.number
            samples = dict(self._before)
            for one in record.gone:
                samples.pop(one, None)
            samples |= zip(record.inputs, map(Samples, record.samples), strict=True)
            self._before = samples
            inputs = Inputs(record.at, record.elapsed, samples, record.covered, dict(record.errors))
            yield Recorded(inputs, record.number == 0, record.interval, record.keeps_state)


def _record(body: bytes) -> _Record:
    """Raises ValueError for anything that `Recorder.encode` did not make."""
    inflating = zlib.decompressobj()
    try:
        whole = inflating.decompress(body, ROOM_MAX)
        if not inflating.eof:
            raise ValueError("it is truncated or too large")
        record = _decode(whole)
        if record.version != _VERSION or len(record.inputs) != len(record.samples):
            raise ValueError("it is of another version, or inconsistent")
        times = (record.at, record.elapsed, record.covered, record.interval)
        if not all(map(math.isfinite, times)) or min(record.elapsed, record.number) < 0 or record.interval <= 0:
            raise ValueError("it has a time that is none")
    except MemoryError:
        raise
    except Exception as error:
        raise ValueError(f"not a valid record of an evaluation: {error}") from error
    return record


def encode_transition(transition: AlertTransition) -> bytes:
    """The form in which a change of an alert is stored."""
    return msgspec.msgpack.encode(transition)


def decode_transitions(bodies: Iterable[bytes]) -> tuple[list[AlertTransition], int]:
    """Return the changes of alerts that `encode_transition` made *bodies* of, and how many cannot be read."""
    found, bad = [], 0
    for body in bodies:
        try:
            found.append(_decode_transition(body))
        except msgspec.MsgspecError:
            bad += 1
    return found, bad
