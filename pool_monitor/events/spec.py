"""The catalogue, the form of its entries, and the metadata keys that several events share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pool_monitor import telemetry

ABSENT = -(2**63)
"""In a lane: a number that was not measured, whose key a mapping leaves out. Smaller than any measurement."""

_UNITS: dict[str, tuple[type, ...]] = {"ns": (int,), "count": (int,), "bytes": (int,), "ratio": (int, float)}
_TYPES: dict[str, type] = {"str": str, "int": int, "dict": dict, "tuple": tuple, "any": object}

# Metadata keys with the same meaning in every event.
POOL_KEYS = {
    "pool": "str: the pool's name",
    "pool_instance": "str: an id that no other pool has, not even an earlier pool of the same name",
}
WORKER_KEYS = {**POOL_KEYS, "worker": "str: the slot's id, such as 'summarizers-0'; the same after a restart"}
PROCESS_KEYS = {**WORKER_KEYS, "pid": "int: the worker's process id"}
MONITOR_KEY = {"monitor": "str: the monitor that measured; no other one in this process has this id"}
CALL_KEYS = {
    **POOL_KEYS,
    "operation": "str: the operation's name",
    "call_id": "int: the call's number, unique in this process",
    "session": "str?: the session's id",
    "session_kind": "str: the affinity of the call's session: hint or strict; none for a call without a session",
}


@dataclass(frozen=True, slots=True)
class EventSpec:
    """One event: its name, when it is emitted, and what its measurements and metadata mean.

    Each key maps to ``"unit: meaning"``. ``event`` is the pre-bound emitter. ``labels`` (keys of the metadata) and
    ``numbers`` (keys of the measurements) are the event's lane, for handlers attached with ``bind``, in this order.
    Most events have no lane. All labels are strings; a number that was not measured is `ABSENT`.
    """

    name: telemetry.EventName
    meaning: str
    measurements: Mapping[str, str]
    metadata: Mapping[str, str]
    event: telemetry.Event = field(repr=False)
    labels: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()

    @property
    def dotted(self) -> str:
        return ".".join(self.name)

    def problems(self, measurements: Mapping[str, Any], metadata: Mapping[str, Any]) -> list[str]:
        """How one execution differs from the catalogue, in words; empty when it does not."""
        found = _problems(self.measurements, measurements, _UNITS)
        return found + _problems(self.metadata, metadata, {key: (value,) for key, value in _TYPES.items()})


def _problems(
    declared: Mapping[str, str], given: Mapping[str, Any], types: Mapping[str, tuple[type, ...]]
) -> list[str]:
    found = [f"undeclared key {key!r}" for key in given.keys() - declared.keys()]
    for key, text in declared.items():
        kind = text.partition(":")[0]
        if key not in given:
            if not kind.endswith("?"):
                found.append(f"missing key {key!r}")
        elif not isinstance(given[key], wanted := types[kind.rstrip("?")]) or (
            isinstance(given[key], bool) and int in wanted
        ):
            found.append(f"{key!r} is {given[key]!r}, not {kind}")
    return found


CATALOGUE: dict[telemetry.EventName, EventSpec] = {}


def declare(
    dotted: str,
    meaning: str,
    measurements: Mapping[str, str],
    metadata: Mapping[str, str],
    *,
    labels: tuple[str, ...] = (),
    numbers: tuple[str, ...] = (),
) -> EventSpec:
    """Add an event to the catalogue. Return its entry."""
    name = tuple(dotted.split("."))
    spec = EventSpec(name, meaning, measurements, metadata, telemetry.event(name), labels, numbers)
    CATALOGUE[name] = spec
    return spec
