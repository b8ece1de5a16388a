"""How fresh a page is. The page says it at all times: old numbers never pass for live."""

from __future__ import annotations

from typing import Literal, NamedTuple

from pool_monitor.view import format as fmt
from pool_monitor.view.text import Meaning, Segment


class Freshness(NamedTuple):
    """What the reader of a page must know about its age.

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
        """True when the numbers may not be those of now, and nobody asked for that."""
        return self.state in {"STALE", "LOST"}

    def segment(self) -> Segment:
        """The freshness word for the header bar: symbol, word, and its number."""
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
