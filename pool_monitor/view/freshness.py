"""How fresh the numbers of a page are. Every page shows this, so outdated numbers never look live."""

from __future__ import annotations

from typing import Literal, NamedTuple

from pool_monitor.view import format as fmt
from pool_monitor.view.text import Meaning, Segment


class Freshness(NamedTuple):
    """How fresh the numbers of a page are, and why.

    ``seconds`` is the snapshot's age when STALE, and the time to the next try when LOST. ``behind`` counts the
    snapshots taken since the display was PAUSED. ``reason`` says why the source is gone; it may be set while PAUSED
    too.
    """

    state: Literal["LIVE", "PAUSED", "STALE", "LOST"] = "LIVE"
    seconds: float = 0.0
    behind: int = 0
    reason: str = ""

    @property
    def outdated(self) -> bool:
        """Whether the numbers may be old without the person at the screen having paused them."""
        return self.state in {"STALE", "LOST"}

    def segment(self) -> Segment:
        """Return the freshness for the header bar: a symbol, the state, and its number."""
        text: str
        meaning: Meaning = "bar-strong"
        match self.state:
            case "LIVE":
                text = "● LIVE"
            case "PAUSED":
                text = "‖ PAUSED" + (f" {fmt.count(self.behind)} behind" if self.behind else "")
            case "STALE":
                text, meaning = f"▲ STALE {fmt.whole_age(self.seconds)}", "bar-warn"
            case "LOST":
                text, meaning = f"✖ LOST retry {max(0, round(self.seconds))}s", "bar-bad"
        return Segment(text, meaning)


LIVE = Freshness()
