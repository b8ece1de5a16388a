"""Figures of a stretch of time: rates from counters, and figures that are too dear to be read at every sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pool_monitor.resources.sample import Unknown

GAP = 3
"""A rate over more than this many intervals is not known: the machine was suspended, or the sampler was held up."""


class Counters:
    """Turns counters into their growth since the sample before. Holds one number per counter."""

    def __init__(self) -> None:
        self._at_ns: int | None = None
        self._before: Mapping[str, int] = {}
        self._now: Mapping[str, int] = {}
        self._took_ns: int | str = ""

    def step(self, now_ns: int, interval_ns: int, counters: Mapping[str, int]) -> None:
        """Take the *counters* of a sample at *now_ns*. Samples are *interval_ns* apart when nothing holds them up."""
        took_ns = None if self._at_ns is None else now_ns - self._at_ns
        if took_ns is None:
            self._took_ns = "there was no sample before this one"
        elif took_ns <= 0:
            self._took_ns = "no time has passed since the sample before"
        elif took_ns > GAP * interval_ns:
            self._took_ns = f"there was no sample for {took_ns / 1e9:.3g} s"
        else:
            self._took_ns = took_ns
        self._at_ns, self._before, self._now = now_ns, self._now, counters

    def growth(self, name: str) -> int:
        """By how much a counter grew. Raises Unknown if it cannot be said, as when the counter was set back."""
        self.seconds()
        if name not in self._before or name not in self._now:
            raise Unknown("its counter could not be read in both of the last samples")
        grown = self._now[name] - self._before[name]
        if grown < 0:
            raise Unknown("its counter was set back")
        return grown

    def seconds(self) -> float:
        """The time between the two samples. Raises Unknown if it is not usable."""
        if isinstance(self._took_ns, str):
            raise Unknown(self._took_ns)
        return self._took_ns / 1e9


class Seldom:
    """Reads a dear figure so seldom that reading takes at most *share* of the time; between, the last one stands.

    A figure that would be older than *oldest* seconds is read again, whatever it costs.
    """

    def __init__(self, clock_ns: Callable[[], int], *, share: float = 0.002, oldest: float = 30.0) -> None:
        self._clock_ns, self._share, self._oldest_ns = clock_ns, share, round(oldest * 1e9)
        self._again_ns: int | None = None
        self._value: int | None = None
        self._error: Exception | None = None

    def read(self, read: Callable[[], int | None]) -> int | None:
        """Return the figure of *read*, at most *oldest* seconds old. Raises what *read* raised."""
        began_ns = self._clock_ns()
        if self._again_ns is None or began_ns >= self._again_ns:
            try:
                self._value, self._error = read(), None
            except Exception as error:  # noqa: BLE001 - raised below, and at each call until it is read again
                self._value, self._error = None, error.with_traceback(None)
            took_ns = self._clock_ns() - began_ns
            self._again_ns = began_ns + min(round(took_ns / self._share), self._oldest_ns)
        if self._error is not None:
            raise self._error
        return self._value
