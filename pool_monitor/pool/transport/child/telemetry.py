"""Sends the events and log lines of a target to the pool, without ever blocking the target."""

from __future__ import annotations

import _thread

from .conversions import convert

TYPE_CHECKING = False  # as in typing, without its import
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Optional, Sequence, Union

    from .channel import Channel
    from .codec import Codec

_FRAME_LIMIT = 8 * 1024  # bytes per event or line
OURS = frozenset({"pool", "resource", "alert", "advice", "tuning", "monitor", "llm", "telemetry"})
"""First parts of the names of the pool's own events."""
LEVELS = ("debug", "info", "warning", "error", "critical")
_DEPTH = 32


class Telemetry:
    """Passed to an operation or a class with a keyword parameter named ``telemetry``.

    Both methods return at once and may be called from any thread. At most 64 KiB of events and lines wait until the
    pool reads them, and one event or line takes 8 KiB at most. What does not fit is dropped and counted.
    """

    def __init__(self, channel: Channel, codec: Codec, uninterrupted: Callable[[Callable[[], None]], None]) -> None:
        self._channel, self._codec, self._uninterrupted = channel, codec, uninterrupted
        self.dropped = 0  # not reported yet
        self._counting = _thread.RLock()

    def execute(
        self,
        event: Union[str, Sequence[str]],
        measurements: Dict[str, Union[int, float]],
        metadata: Optional[Dict[str, Any]] = None,
    ) -> None:
        """Emit *event*, named ``"cache.hit"`` or ``("cache", "hit")``. *measurements* are numbers, *metadata* the rest.

        Raises ValueError for an invalid name, for a name that is reserved for the pool, for a measurement that is no
        finite number, and for metadata that JSON cannot hold.
        """
        name = event.split(".") if isinstance(event, str) else list(event) if isinstance(event, (list, tuple)) else []
        if not name or not all(isinstance(part, str) and part for part in name):
            text = "telemetry: an event's name must be like 'cache.hit' or ('cache', 'hit'), not %r"
            raise ValueError(text % (event,))
        if name[0] in OURS:
            raise ValueError(
                "telemetry: names that begin with %r are reserved for the pool: use 'my.%s', for example"
                % (name[0], ".".join(name))
            )
        if not isinstance(measurements, dict):
            raise ValueError("telemetry: measurements must be a dict of numbers, not %r" % (measurements,))
        numbers = {key: _number(value) for key, value in measurements.items()}
        for key, value in numbers.items():
            number = isinstance(value, (int, float)) and not isinstance(value, bool) and value - value == 0
            if not isinstance(key, str) or not number:
                raise ValueError("telemetry: measurement %r must be a finite number, not %r" % (key, value))
        self._send(["event", plain(name), plain(numbers), _fields("metadata", metadata or {})])

    def log(self, level: str, text: str, **fields: Any) -> None:
        """Write a line to the pool's log; *level* is debug, info, warning, error or critical.

        Raises ValueError for another level, a *text* that is no str, and fields that JSON cannot hold.
        """
        if level not in LEVELS:
            raise ValueError("telemetry: level must be one of %s, not %r" % (", ".join(LEVELS), level))
        if not isinstance(text, str):
            raise ValueError("telemetry: a line's text must be a str, not %r" % (text,))
        self._send(["log", level, plain(text), _fields("fields", fields)])

    def _send(self, message: Any) -> None:
        try:
            body = self._codec.encode(message)
        except Exception as error:
            raise ValueError("telemetry: this cannot be carried as %s: %s" % (self._codec.name, error)) from error
        self._uninterrupted(lambda: self._offer(body))

    def _offer(self, body: bytes) -> None:
        with self._counting:
            self.report_dropped()
            if self.dropped or len(body) > min(_FRAME_LIMIT, self._channel.limit) or not self._channel.offer(body):
                self.dropped += 1

    def report_dropped(self) -> None:
        """Report how many events and lines were dropped, if there is room for that now."""
        if self.dropped:
            with self._counting:
                if self._channel.offer(self._codec.encode(["dropped", self.dropped])):
                    self.dropped = 0


def _number(value: Any) -> Any:
    """Return a number of any library as a Python number; *value* itself if it is no known number."""
    try:
        return value if isinstance(value, (int, float)) else convert(value)
    except TypeError:
        return value


def _fields(what: str, value: Any) -> Any:
    if not isinstance(value, dict):
        raise ValueError("telemetry: %s must be a dict, not %r" % (what, value))
    return plain(value)


def plain(value: Any, depth: int = _DEPTH) -> Any:
    """Return a copy of *value* as JSON would carry it. Raises ValueError if it cannot."""
    if isinstance(value, str):
        # Lone surrogates have no UTF-8 form.
        return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float) and value - value == 0:
        return value
    if depth and isinstance(value, (list, tuple)):
        return [plain(item, depth - 1) for item in value]
    if depth and isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {plain(key): plain(item, depth - 1) for key, item in value.items()}
    if depth and not isinstance(value, (dict, bytes)):
        try:
            return plain(convert(value), depth - 1)
        except TypeError:
            pass
    raise ValueError("telemetry: JSON cannot hold %.200r" % (value,))
