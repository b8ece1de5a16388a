"""The faults of resources that are open now, from the events of their beginning and end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pool_monitor.metrics.resource_values import number_or_none, text_or_none
from pool_monitor.snapshot import FaultView
from pool_monitor.snapshot.validation import plain_text

LIMIT = 1000
"""Most faults that are kept. Further ones are dropped, and counted."""
_REASON_MAX = 500
_UNSAMPLED = frozenset({"monitor", "loop"})
"""Subjects whose faults do not come from samples."""


class OpenFaults:
    """Keeps at most `LIMIT` faults: one per kind, subject and pool."""

    def __init__(self) -> None:
        self._faults: dict[tuple[str, str, str | None], FaultView] = {}

    def __len__(self) -> int:
        return len(self._faults)

    def put(self, measurements: Mapping[str, Any], metadata: Mapping[str, Any]) -> bool:
        """Apply one ``resource.limit``. Returns whether it could be read and there was room for it."""
        kind, subject = text_or_none(metadata.get("kind")), text_or_none(metadata.get("subject"))
        state, level = metadata.get("state"), metadata.get("level")
        if kind is None or subject is None or state not in ("reached", "changed", "left"):
            return False
        key = (kind, subject, text_or_none(metadata.get("pool")))
        if state == "left":
            self._faults.pop(key, None)
            return True
        began = number_or_none(measurements.get("system_time"))
        if level not in ("warn", "bad") or began is None or (key not in self._faults and len(self) >= LIMIT):
            return False
        earlier = self._faults.get(key)
        reason = metadata.get("reason")
        self._faults[key] = FaultView(
            kind=kind,
            level=level,
            subject=subject,
            pool=key[2],
            worker=text_or_none(metadata.get("worker")),
            value=number_or_none(measurements.get("value")),
            limit=number_or_none(measurements.get("limit")),
            since=earlier.since if earlier is not None and state == "changed" else began / 1e9,
            reason=plain_text(reason, _REASON_MAX) if type(reason) is str else "",
        )
        return True

    def view(self, *, sampled: bool) -> tuple[FaultView, ...]:
        """The worst first, then the oldest. Unless resources are *sampled* now, without faults that samples decide."""
        shown = (fault for fault in self._faults.values() if sampled or fault.subject in _UNSAMPLED)
        return tuple(sorted(shown, key=lambda fault: (fault.level != "bad", fault.since, fault.kind, fault.subject)))
