"""The types of events and handlers, which the modules of telemetry share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

EventName: TypeAlias = tuple[str, ...]
Measurements: TypeAlias = Mapping[str, int | float]
Metadata: TypeAlias = Mapping[str, Any]
HandlerFunction: TypeAlias = Callable[[EventName, Measurements, Metadata, Any], object]
Record: TypeAlias = Callable[..., object]
"""Takes the numbers of one event, in the order of the catalogue."""
Bind: TypeAlias = Callable[..., Record]
"""Takes the labels of an event, in the order of the catalogue, and returns the record for them."""


class Handler(NamedTuple):
    """One function attached to one event, as `list_handlers` returns it."""

    id: str
    event: EventName
    function: HandlerFunction
    config: Any
    bind: Bind | None = None


class HandlerExists(ValueError):
    """A handler with this id is attached already. Ids are unique across all events."""
