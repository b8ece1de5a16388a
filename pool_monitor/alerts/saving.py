"""What the state file keeps of alerts: encoded when it changes, and decoded when a service begins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from pool_monitor.alerts.alert import Alert
from pool_monitor.alerts.slices import Slices
from pool_monitor.log import logger
from pool_monitor.snapshot import AlertTransition
from pool_monitor.storage.state import Changes
from pool_monitor.storage.state_store import SavedState, SavedTransition

if TYPE_CHECKING:
    from pool_monitor.alerts.delivery.delivery import Delivery
    from pool_monitor.alerts.engine import Engine
    from pool_monitor.alerts.overlays import Overlays

_encode = msgspec.json.Encoder().encode
_decode_alert = msgspec.json.Decoder(Alert).decode
_decode_transition = msgspec.json.Decoder(AlertTransition).decode


class Saved(NamedTuple):
    """What an earlier life has left, decoded."""

    alerts: list[Alert]
    memories: dict[str, Any]
    """What `Memory.dump` returned, by rule."""
    transitions: list[AlertTransition]
    """The oldest first."""
    seq: int


class Saving:
    """Knows what is in the state: which version of each memory."""

    def __init__(self, engine: Engine, overlays: Overlays, delivery: Delivery) -> None:
        self._engine, self._overlays, self._delivery = engine, overlays, delivery
        self._versions: dict[str, int] = {}

    async def changes(self, transitions: Sequence[AlertTransition], slices: Slices, *, whole: bool = False) -> Changes:
        """Return what has changed since the last call, with *transitions*; *whole*: all that there is."""
        engine = self._engine
        changed_overlays = self._overlays.take_changes()
        overlays = self._overlays.all_rows() if whole else changed_overlays
        rows: dict[str, dict[str, bytes | None]] = {"alerts": {}, "memories": {}, **overlays}
        for table, found in self._delivery.rows(whole=whole).items():
            rows[table] = dict(found)
        if whole:
            self._versions = {}
        changed, gone = engine.changed(whole=whole), engine.removed()
        for alert in changed:
            rows["alerts"][_row(alert.alert, alert.instance)] = _encode(alert)
            await slices.pause()
        for key in gone:
            rows["alerts"][_row(*key)] = None
            await slices.pause()
        memories = engine.memories()
        for name, memory in memories.items():
            if self._versions.get(name) != memory.version:
                self._versions[name] = memory.version
                rows["memories"][name] = _encode(memory.dump())
                await slices.pause()
        for name in self._versions.keys() - memories.keys():
            del self._versions[name]
            rows["memories"][name] = None
        encoded = []
        for one in transitions:
            encoded.append(SavedTransition(one.seq, one.at, _encode(one)))
            await slices.pause()
        return Changes({table: found for table, found in rows.items() if found}, encoded, whole)  # type: ignore[misc]


def decoded(saved: SavedState) -> Saved:
    """Return what *saved* has. What cannot be read is left out and logged."""
    damaged: list[str] = []
    alerts = list(_values(saved.rows["alerts"], _decode_alert, damaged))
    memories = dict(_pairs(saved.rows["memories"], msgspec.json.decode, damaged))
    transitions = list(_values({str(one.seq): one.value for one in saved.transitions}, _decode_transition, damaged))
    if damaged:
        logger("alerts").warning(
            "something saved cannot be read, and is left out", count=len(damaged), first=damaged[0]
        )
    return Saved(alerts, memories, transitions, saved.seq)


def _values(rows: dict[str, bytes], decode: Any, damaged: list[str]) -> Iterator[Any]:
    return (value for _, value in _pairs(rows, decode, damaged))


def _pairs(rows: dict[str, bytes], decode: Any, damaged: list[str]) -> Iterator[tuple[str, Any]]:
    for name, row in rows.items():
        try:
            yield name, decode(row)
        except (ValueError, RecursionError) as error:  # msgspec's errors are of ValueError
            damaged.append(f"{name:.100}: {error}")


def _row(alert: str, instance: Any) -> str:
    return _encode((alert, instance)).decode()
