"""The instances of the scopes that exist in one Snapshot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pool_monitor.alerts.inputs import Labels

if TYPE_CHECKING:
    from pool_monitor.alerts.catalogue import Scope
    from pool_monitor.snapshot import Snapshot

_LABELS_MAX = 16_384
"""Most tuples of labels that are kept for the next evaluation. They are compared and hashed faster than new ones."""


@lru_cache(maxsize=_LABELS_MAX)
def labels_for(scope: Scope, pool: str = "", name: str = "") -> Labels:
    """Return the labels of the instance *name* of *scope*."""
    if scope == "operation":
        return (("operation", name), ("pool", pool))
    if scope == "worker":
        return (("pool", pool), ("worker", name))
    return (("pool", pool),) if scope in ("pool", "llm") else ()


class Instances:
    """The instances of *snapshot*, each with its labels and its view."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._of: dict[Scope, Sequence[tuple[Labels, Any]]] = {}

    def of(self, scope: Scope) -> Sequence[tuple[Labels, Any]]:
        """Return the instances of *scope*. They are looked up once."""
        found = self._of.get(scope)
        if found is None:
            found = self._of[scope] = list(self._found(scope))
        return found

    def _found(self, scope: Scope) -> Iterator[tuple[Labels, Any]]:
        snapshot = self.snapshot
        if scope in ("pool", "llm"):
            for name, pool in snapshot.pools.items():
                yield labels_for(scope, name), pool
        elif scope in ("operation", "worker"):
            for name, pool in snapshot.pools.items():
                views: Mapping[str, Any] = pool.operations if scope == "operation" else pool.workers
                for one, view in views.items():
                    yield labels_for(scope, name, one), view
        elif scope == "monitor":
            yield (), snapshot.monitor
        else:
            yield (), getattr(snapshot.resources, scope)
