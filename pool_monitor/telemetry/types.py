"""What the modules of telemetry share: the shapes of events and handlers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

EventName: TypeAlias = tuple[str, ...]
Measurements: TypeAlias = Mapping[str, int | float]
Metadata: TypeAlias = Mapping[str, Any]
HandlerFunction: TypeAlias = Callable[[EventName, Measurements, Metadata, Any], object]
Record: TypeAlias = Callable[..., object]
"""Takes the numbers of one event, in the order the catalogue gives them."""
Bind: TypeAlias = Callable[..., Record]
"""Takes the labels of a series, in the order the catalogue gives them."""


class Handler(NamedTuple):
    """One attachment: what `list_handlers` returns."""

    id: str
    event: EventName
    function: HandlerFunction
    config: Any
    bind: Bind | None = None


class HandlerExists(ValueError):
    """A handler with this id is attached already; ids are unique across all events."""
