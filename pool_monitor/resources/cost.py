"""What sampling costs, and how far apart samples are for it."""

from __future__ import annotations

SHARE = 0.02
"""Of one processor: sampling takes no larger share of it, by taking samples further apart."""
INTERVAL_MAX = 60.0
_WEIGHT = 0.3  # of the latest sample in the smoothed cost: one slow sample does not stretch the interval for long


class SamplingCost:
    """Smooths the processor time of samples. *share* of a processor is the most that sampling may take."""

    def __init__(self, share: float = SHARE) -> None:
        self._share = share
        self.seconds: float | None = None
        """Processor time of one sample, smoothed; None before the first."""
        self.latest: float | None = None
        """Processor time of the latest sample."""

    def add(self, seconds: float) -> None:
        """Note the processor time of a sample."""
        self.latest = seconds
        before = seconds if self.seconds is None else self.seconds
        self.seconds = before + _WEIGHT * (seconds - before)

    def interval(self, wanted: float) -> float:
        """Seconds from one sample to the next: *wanted*, or so long that the cost keeps within its share, at most 60 s
        (or *wanted*, if that is longer).
        """
        if self.seconds is None:
            return wanted
        return max(wanted, min(self.seconds / self._share, INTERVAL_MAX))
