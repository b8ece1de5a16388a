"""When groups are looked at: at their own times, when the rate limit may let them go, and when an attempt has ended."""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from collections.abc import Iterator
from itertools import count

from pool_monitor.alerts.delivery.groups import Group
from pool_monitor.alerts.delivery.ledger import Ledger
from pool_monitor.alerts.delivery.rate_limit import RateLimits

_AT_ONCE = 200  # times between two steps: below a millisecond


class Agenda:
    """The times of the groups of a ledger. Bound: a time and an old time for each group, and as many that wait for the
    end of an attempt, or waited for it.
    """

    def __init__(self, ledger: Ledger, limits: RateLimits) -> None:
        self._ledger, self._limits = ledger, limits
        self._times: list[tuple[float, int]] = []  # a heap of times and groups, with times that have changed since
        self._again: deque[int] = deque()  # groups that an attempt has blocked which has ended
        self._flying: set[str] = set()  # ids of notifications that are being sent
        self._blocked: defaultdict[str, dict[int, None]] = defaultdict(dict)  # groups by id of what they wait for

    @property
    def next_at(self) -> float | None:
        """The next time of any group; None: there is none. A time of the past: at once."""
        if self._again:
            return 0.0
        while self._times and not self._is_time(*self._times[0]):
            heapq.heappop(self._times)
        first = self._times[0][0] if self._times else None
        return min((time for time in (first, self._limits.next_at) if time is not None), default=None)

    def add(self, group: Group) -> None:
        """*group* has a new time."""
        heapq.heappush(self._times, (group.flush_at, group.number))
        if len(self._times) > 2 * len(self._ledger.groups) + 10:
            self._times = [(group.flush_at, group.number) for group in self._ledger.each_group()]
            heapq.heapify(self._times)

    def changed(self, group: Group, at: float) -> None:
        """Something has changed in *group*: look at it now, if it does not wait for its time."""
        if group.options.prompt:
            self.at_once(group, at)

    def at_once(self, group: Group, at: float) -> None:
        """Look at *group* now."""
        group.flush_at = at
        self._ledger.keep(group)
        self.add(group)

    def due(self, at: float) -> Iterator[Group]:
        """Yield the groups whose time has come, and those that the rate limit may let go. Their next time is set."""
        found: set[int] = set()
        while self._again:
            group = self._ledger.group(number := self._again.popleft())
            if group is not None and number not in found:
                found.add(number)
                self._begin(group, at)
                yield group
        while self._times and self._times[0][0] <= at:
            time, number = heapq.heappop(self._times)
            group = self._ledger.group(number)
            if group is not None and group.flush_at == time and number not in found:
                found.add(number)
                self._begin(group, at)
                yield group
        for number in self._limits.asked_again(at):
            if number not in found and (group := self._ledger.group(number)) is not None:
                yield group

    def tidying(self) -> Iterator[None]:
        """Let go, in steps, the times that have changed since and come first: `next_at` would have to."""
        for number in count(1):
            if not self._times or self._is_time(*self._times[0]):
                return
            heapq.heappop(self._times)
            if number % _AT_ONCE == 0:
                yield

    def _begin(self, group: Group, at: float) -> None:
        group.begin_flush(at)
        self._ledger.keep(group)
        self.add(group)

    def _is_time(self, time: float, number: int) -> bool:
        group = self._ledger.group(number)
        return group is not None and group.flush_at == time

    def hold(self, group: Group, at: float, until: float | None) -> None:
        """The rate limit holds *group* back; it is asked again at *until*."""
        self._limits.hold(group.receiver, group.number, at, until)
        group.held = True
        self._ledger.keep(group)

    def release(self, group: Group) -> None:
        """The rate limit does not hold *group* back any more."""
        self._limits.release(group.receiver, group.number)
        if group.held:
            group.held = False
            self._ledger.keep(group)

    def forget(self, group: Group) -> None:
        """*group* is empty."""
        self._limits.release(group.receiver, group.number)
        self._ledger.remove_group(group)

    # -- attempts

    def take_off(self, notification: str) -> None:
        """An attempt to send the notification with this id begins."""
        self._flying.add(notification)

    def land(self, notification: str) -> None:
        """The attempt has ended. Groups that waited for that are looked at now."""
        self._flying.discard(notification)
        self._again.extend(self._blocked.pop(notification, ()))

    def blocks(self, group: Group) -> bool:
        """Whether nothing new can be said to *group* now, because an attempt is under way to send what it waits for, or
        a digest to its receiver: nobody knows whether that arrives. It is looked at after that.
        """
        if not self._flying:
            return False
        flying = group.waiting if group.waiting in self._flying else self._ledger.digest_for(group.receiver)
        if flying not in self._flying:
            return False
        assert flying is not None
        self._blocked[flying][group.number] = None
        return True
