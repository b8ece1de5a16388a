"""`SizePolicy`: our policy for the size of a pool."""

from __future__ import annotations

import math
from collections import deque

from pool_monitor.tuner.observation import Observation
from pool_monitor.tuner.sizing import caps, demand
from pool_monitor.tuner.sizing.forecast import ArrivalForecast
from pool_monitor.tuner.sizing.guard import Guard
from pool_monitor.tuner.sizing.presets import Preset
from pool_monitor.tuner.sizing.service import StartCohorts, TimesOnWorker
from pool_monitor.tuner.sizing.stepping import Stepping

GAP_S = 10.0
"""An interval longer than this, and than five times the usual one, is a gap: what happened in it is not known."""
CALLS_MOST = 1000
"""Calls of one observation that are looked at: those above are passed over evenly."""
SAMPLED_RATE = 4000.0
"""Above so many arrivals per second an observation may hold a share of the calls. How many ended is not known then,
unless the observation says it.
"""
AHEAD_S = 2.0
"""The rate is forecast for the cold start and so much longer."""
_LEAST_TARGET_S = 1e-4


class SizePolicy:
    """Chooses the smallest size with which few calls wait longer than the target, and gets there safely.

    One object serves one pool. Time comes from the observations alone. What is missing or wrong in an observation never
    makes a pool smaller: the size is kept then.
    """

    def __init__(self, preset: Preset | None = None) -> None:
        self._preset = preset or Preset()
        self.why = ""
        """What decided last, in words; empty: nothing yet."""
        self.ceiling: int | None = None
        """The highest size by a limit that was measured; None: there is none now."""
        self.needed: int | None = None
        """The size that the demand needs now, without bounds and steps; None: it knows too little."""
        self.guard = Guard()
        self._forecast = ArrivalForecast()
        self._service = TimesOnWorker()
        self._cohorts = StartCohorts()
        self._stepping = Stepping(self._preset)
        self._under_way = _UnderWay()
        self._processors = caps.Processors()
        self._now: float | None = None
        self._usual = 0.0

    def decide(self, observation: Observation) -> int | None:
        """Return the size that the pool should have; None: leave it. Always in the range of the observation."""
        seen = observation
        interval = self._interval(seen)
        if interval is None:
            self.why = "the observation cannot be used: the size is kept"
            return None
        step = 1 + len(seen.calls) // CALLS_MOST
        calls = [
            call
            for call in seen.calls[::step]
            if call[0] <= call[1] <= call[2] < math.inf and call[1] > -math.inf  # not nonsense: arrived, started, ended
        ]
        self._service.observe([ended - started for _, started, ended in calls])
        self._cohorts.observe(calls)
        ended = len(seen.calls) if seen.ended is None else max(seen.ended, len(seen.calls))
        if seen.ended is not None or seen.arrivals <= SAMPLED_RATE * interval:
            self._under_way.observe(seen.now, interval, seen.busy, ended)
        else:
            self._under_way.clear()
        self._forecast.observe(seen.now, interval, seen.arrivals)
        service = self._service_now()
        self.guard.look(seen.now, seen.size, service, seen.cold_start, self._cohorts)
        return self._choose(seen, service)

    def _interval(self, seen: Observation) -> float | None:
        """Return the seconds that the observation is about; None: it is missing or wrong, and the size is kept."""
        before, now = self._now, seen.now
        numbers = (now, seen.interval, seen.arrivals, seen.waiting, seen.busy, seen.cold_start, seen.wait_target)
        if not all(map(math.isfinite, numbers)) or min(numbers[1:]) < 0 or not 1 <= seen.low <= seen.high:
            self._rest(now)
            return None
        self._now = now
        if before is None:
            return seen.interval or None
        if now <= before:  # the clock was set back, or the observation comes twice
            self._rest(now)
            return None
        interval = max(seen.interval, now - before)
        if interval > max(GAP_S, 5 * self._usual) and self._usual:
            self._rest(now)
            self._usual = min(interval, 2 * self._usual)
            return None
        self._usual = interval if not self._usual else 0.9 * self._usual + 0.1 * interval
        return interval

    def _rest(self, now: float) -> None:
        self._forecast.gap()
        self.guard.gap()
        self._under_way.clear()
        if math.isfinite(now):
            self._stepping.rest(now)

    def _service_now(self) -> float | None:
        """Return the mean time of a call; that of the calls under way where these have lasted longer already."""
        known, least = self._service.mean, self._under_way.least_service(self._service.cv2)
        return least or None if known is None else max(known, least)

    def _choose(self, seen: Observation, service: float | None) -> int | None:
        if service is None:
            self.needed = None
            self.why = "no call has ended yet"
            return None
        target = seen.wait_target or service
        target = max(target, _LEAST_TARGET_S)
        rate = self._forecast.rate(seen.cold_start + AHEAD_S)
        base = demand.needed(rate, service, self._service.cv2, target, self._preset.miss, max(seen.high, 1))
        more = demand.backlog(seen.waiting, rate, service, target, self._preset.drain + seen.cold_start)
        self.needed = base
        most = base == seen.high and demand.falls_short(
            rate, service, self._service.cv2, target, self._preset.miss, base
        )
        need = base + more
        workers = f"{'more than ' if most else ''}{base} worker{'' if base == 1 else 's'}"
        because = f"{rate:.3g} calls per second of {_seconds(service)} need {workers}"
        if more:
            because += f", and {seen.waiting} waiting calls need {more} more for a while"
        need, because = self._bounded(seen, need, because)
        before = seen.size
        size = self._stepping.step(seen.now, before, need, seen.cold_start)
        if size < before:
            size = max(size, min(before, seen.busy))
        ceiling = self.guard.ceiling
        if ceiling is not None and size > ceiling:
            size = ceiling
        size = min(max(size, seen.low), seen.high)
        recent = self._stepping.recent()
        if size >= before > need:
            hold = _seconds(self._stepping.hold(seen.cold_start))
            if recent > need:
                because += f"; {recent} were needed less than {hold} ago"
            else:
                because += f"; a larger size is kept for {hold} at first, and if it is less than a tenth too large"
        self.why = because
        return size

    def _bounded(self, seen: Observation, need: int, because: str) -> tuple[int, str]:
        """Return *need* within all bounds. `ceiling` is the lowest of those that were measured."""
        self.ceiling = None
        cap = caps.lowest(self._processors.cap(seen), caps.memory(seen))
        if cap is not None:
            self.ceiling = cap.size
            if need > cap.size:
                need, because = cap.size, f"{because}; at most {cap.size}: {cap.why}"
        limit = self.guard.limit(seen.now, seen.size, seen.cold_start)
        if limit is not None and need > limit:
            need, because = limit, f"{because}; at most {limit}: {self.guard.why()}"
        ceiling = self.guard.ceiling
        if ceiling is not None:
            self.ceiling = ceiling if self.ceiling is None else min(self.ceiling, ceiling)
        if need > seen.high:
            because += f"; at most {seen.high} are allowed"
        elif need < seen.low:
            because += f"; at least {seen.low} are kept"
        return min(max(need, seen.low), seen.high), because


class _UnderWay:
    """The busy seconds of the latest 10 s and the calls that have ended in them: what is known of calls that have not.

    At most 100 rows.
    """

    _SPAN_S = 10.0

    def __init__(self) -> None:
        self._rows: deque[tuple[float, float, int]] = deque(maxlen=100)

    def observe(self, now: float, interval: float, busy: int, ended: int) -> None:
        self._rows.append((now, busy * interval, ended))
        while self._rows[0][0] <= now - self._SPAN_S:
            self._rows.popleft()

    def clear(self) -> None:
        self._rows.clear()

    def least_service(self, cv2: float) -> float:
        """Return what the mean time of a call is at least, in seconds, with 95 % confidence; 0: nothing is known.

        So many calls as ended are a Poisson count: two standard errors above it is the most that may have been due.
        Calls whose times have a *cv2* above 1 (variance over mean squared) vary by so much more.
        """
        ended = sum(row[2] for row in self._rows)
        most = ended + 1 + 2 * math.sqrt(1 + ended * max(1.0, cv2))
        return sum(row[1] for row in self._rows) / most


def _seconds(value: float) -> str:
    return f"{value:.3g} s" if value >= 1 else f"{value * 1000:.3g} ms"
