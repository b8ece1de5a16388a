"""What of the alerts cannot be done now, told to the monitor as one outage of its part."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pool_monitor.parts import Context

PART = "alerts"


class Outages:
    """Keeps the reason of each outage by its name. Holds one reason a name."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.reasons: dict[str, str] = {}

    def begin(self, name: str, reason: str) -> None:
        """*name* cannot be done, because of *reason*. Told once, until it ends."""
        if name not in self.reasons:
            self.reasons[name] = reason
            self._context.degraded(PART, "; ".join(self.reasons.values()))

    def end(self, name: str, what: str) -> None:
        """*name* can be done again: *what* works, in words."""
        if self.reasons.pop(name, None) is None:
            return
        if self.reasons:
            self._context.degraded(PART, "; ".join(self.reasons.values()))
        else:
            self._context.recovered(PART, what)

    def forget(self) -> None:
        """The part is left: what was an outage is not known any more."""
        self.reasons.clear()
