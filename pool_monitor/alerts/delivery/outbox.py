"""The notifications that have not arrived yet, and which of them may be tried now."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from heapq import heapify, heappop, heappush
from itertools import chain
from typing import Literal, NamedTuple

import msgspec
from msgspec import Struct

from pool_monitor.alerts.delivery.contact import BACKOFF_MAX_S, Contact, ReceiverPhase
from pool_monitor.alerts.delivery.notification import Notification, Outcome
from pool_monitor.alerts.delivery.shrinking import smaller
from pool_monitor.alerts.saved_rows import SavedRows, left_out

WAITING_MAX = 10_000
"""Most notifications in the outbox."""
BYTES_MAX = 16 * 2**20
"""Most bytes of all of them, as the state file has them."""
ONE_MAX = 2**19
"""Most bytes of one. A larger one is made smaller."""
EXPIRES_S, PAGE_EXPIRES_S = 24 * 3600.0, 72 * 3600.0
"""Age at which a notification is given up; that of a page."""
UNREACHABLE_S = 300.0
"""Age at which the fallbacks are told of a notification whose receiver cannot be reached. For a page it is 0: they are
told as soon as the breaker is open."""
PAGE_PAUSED_S = 30.0
"""Age that a page may reach while its receiver wants to be left alone. If it would be older, the fallbacks are told."""

Place = Literal["new", "again", "parked"]


class Owed(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A notification that has not arrived. Times are seconds since the epoch."""

    notification: Notification
    since: float
    """Since when the receiver is owed something of this group: its first notification that has not arrived."""
    attempts: int = 0
    place: Place = "new"
    """``again``: an attempt has failed. ``parked``: it was refused."""
    passed_on: bool = False
    """Whether the fallbacks were told."""

    @property
    def expires_at(self) -> float:
        """When it is given up."""
        return self.notification.at + (PAGE_EXPIRES_S if self.notification.page else EXPIRES_S)


class Debt(NamedTuple):
    """What one receiver is owed."""

    owed: int = 0
    parked: int = 0
    oldest: float | None = None
    """Since when, in seconds since the epoch; None: it is owed nothing."""


class Put(NamedTuple):
    """What became of a notification that was put into the outbox."""

    kept: bool = True
    """False: there was no room. It is lost."""
    cannot: str = ""
    """Why its fallbacks are to be told at once; empty: they need not be."""


class _Line:
    """The notifications for one receiver, by the key of their group, in the order in which they are tried."""

    def __init__(self) -> None:
        self.new = dict[str, None]()
        self.parked = dict[str, None]()
        self.again = dict[str, float]()  # when
        self._order: list[tuple[float, str]] = []  # a heap of *again*, with entries that are over

    def __len__(self) -> int:
        return len(self.new) + len(self.parked) + len(self.again)

    def keys(self) -> Iterable[str]:
        return chain(self.new, self.again, self.parked)

    def remove(self, key: str) -> None:
        self.new.pop(key, None)
        self.parked.pop(key, None)
        self.again.pop(key, None)

    def try_again(self, key: str, at: float) -> None:
        self.again[key] = at
        heappush(self._order, (at, key))
        if len(self._order) > 2 * len(self.again) + 10:
            self._order = [(when, one) for one, when in self.again.items()]
            heapify(self._order)

    def next_again(self) -> tuple[float, str] | None:
        while self._order and self.again.get(self._order[0][1]) != self._order[0][0]:
            heappop(self._order)
        return self._order[0] if self._order else None


class Outbox:
    """At most one notification for each receiver and group waits; a newer one takes its place. No I/O; times are
    passed in.

    What is put in may be tried after `release`. For each receiver one attempt at a time is made: first what was not
    tried yet, in its order, then what failed, and now and then one that was refused. A notification that cannot be
    delivered holds up no other.

    Bounds: `WAITING_MAX` notifications of together `BYTES_MAX`, each of `ONE_MAX`. One that is too large is made
    smaller. When it is full, the newest is not taken, and whoever put it in is told.
    """

    def __init__(self, chance: Callable[[], float] = random.random) -> None:
        self._chance = chance
        self._rows, self._contacts = SavedRows(Owed), SavedRows(Contact)
        self._sizes: dict[str, int] = {}
        self._bytes = 0
        self._expires_at = -math.inf  # nothing expires before
        self._debts: dict[str, Debt] | None = None  # None: not known
        self._lines: dict[str, _Line] = {}
        self._unreleased: dict[str, None] = {}
        self._under_way: dict[str, str] = {}  # the id of the notification by receiver

    # -- what is owed ---------------------------------------------------------------------------------------------

    def put(self, notification: Notification, at: float) -> Put:
        """Keep *notification* until it has arrived, in place of what waits for the same receiver and group."""
        key = _key(notification)
        before = self._rows.get(key)
        waiting = Owed(notification=notification, since=at if before is None else before.since)
        if before is not None:
            self._drop(key, before)
        fitting = self._fitting(waiting)
        if fitting is None:
            self._lose(notification.receiver)
            return Put(kept=False)
        contact = self.contact(notification.receiver)
        cannot = self._unreachable(fitting, contact, at)
        # As it is read after a restart, so that each attempt sends the same: a whole number may become a float.
        self._expires_at = min(self._expires_at, fitting.expires_at)
        stored = msgspec.json.decode(msgspec.json.encode(fitting), type=Owed)
        self._set(key, msgspec.structs.replace(stored, passed_on=cannot))
        self._unreleased[key] = None
        return Put(cannot=contact.error if cannot else "")

    def release(self) -> None:
        """What was put in is stored, or cannot be: it may be tried."""
        for key in self._unreleased:
            waiting = self._rows.get(key)
            if waiting is not None:
                self._line_up(key, waiting, 0.0)
        self._unreleased = {}

    def expire(self, at: float) -> list[Notification]:
        """Give up what is too old, and return it."""
        if at < self._expires_at:
            return []
        given_up = self._give_up(key for key, waiting in self._rows.items() if waiting.expires_at <= at)
        self._expires_at = min((waiting.expires_at for waiting in self._rows.values()), default=math.inf)
        return given_up

    def give_up(self, receiver: str) -> list[Notification]:
        """Give up what *receiver* is owed, because it is not known any more, and return it."""
        return self._give_up(key for key, one in self._rows.items() if one.notification.receiver == receiver)

    # -- attempts -------------------------------------------------------------------------------------------------

    def receivers(self) -> list[str]:
        """The receivers that something waits for that may be tried, now or later."""
        return [name for name, line in self._lines.items() if line]

    def take(self, receiver: str, at: float) -> Owed | None:
        """Return what is to be sent to *receiver* now; it is under way until `note`. None: nothing."""
        line, contact = self._lines.get(receiver), self.contact(receiver)
        if line is None or receiver in self._under_way or contact.state is ReceiverPhase.GONE:
            return None
        if at < contact.blocked_until:
            return None
        key = self._next_of(line, contact, at)
        if key is None:
            return None
        waiting = self._rows.get(key)
        assert waiting is not None
        if waiting.place == "parked":
            self._contacts[receiver] = contact.probed(at)
        self._under_way[receiver] = waiting.notification.id
        return waiting

    def next_at(self, receiver: str) -> float | None:
        """When `take` may return something next, if nothing changes; None: it will not, such as while an attempt is
        under way.
        """
        line, contact = self._lines.get(receiver), self.contact(receiver)
        if not line or receiver in self._under_way or contact.state is ReceiverPhase.GONE:
            return None
        if line.new or (line.again and contact.state is ReceiverPhase.OPEN):
            return contact.blocked_until
        again = line.next_again()
        at = min([again[0]] if again else [], default=contact.probe_at)
        if line.parked:
            at = min(at, contact.probe_at)
        return max(at, contact.blocked_until)

    def note(self, tried: Owed, outcome: Outcome, at: float) -> list[tuple[Notification, str]]:
        """Take account of what came of an attempt that has ended. Returns what the fallbacks are to be told now, and
        why its receiver cannot be.
        """
        receiver, key = tried.notification.receiver, _key(tried.notification)
        self._under_way.pop(receiver, None)
        self._debts = None
        before, now = self._rows.get(key), self.contact(receiver)
        mine = before if before is not None and before.notification.id == tried.notification.id else None
        if outcome.result == "too_large" and mine is not None and (less := smaller(mine.notification)) is not None:
            self._drop(key, mine)
            mine = msgspec.structs.replace(mine, notification=less, attempts=mine.attempts + 1, place="new")
            self._set(key, mine)
            self._line_up(key, mine, 0.0)
            return []
        if now.state is ReceiverPhase.GONE:  # it was changed while the attempt was under way
            return []
        after = self._contacts[receiver] = now.after(outcome, at, self._chance())
        if outcome.result == "sent":
            if mine is not None:
                self._drop(key, mine)
                if mine.place == "parked":  # it accepts what it refused: the others too, one after the other
                    self._contacts[receiver] = msgspec.structs.replace(after, probe_at=0.0)
            if now.state is ReceiverPhase.OPEN:
                self._all_again(receiver, at)
            return []
        failed = [] if mine is None else [self._failed(key, mine, outcome, at)]
        return [(one, after.error) for one in self._passing_on(receiver, failed, at)]

    def interrupted(self, tried: Owed) -> None:
        """An attempt was broken off. It is made again."""
        self._under_way.pop(tried.notification.receiver, None)

    def try_now(self, receiver: str, at: float) -> bool:
        """Try everything that *receiver* is owed at once, whatever it has answered. False: it is owed nothing."""
        self._contacts[receiver] = self.contact(receiver).changed()
        self._debts = None
        self._all_again(receiver, at)
        line = self._lines.get(receiver)
        return bool(line)

    def configured(self, receiver: str, config: str, at: float) -> None:
        """*receiver* has the configuration that *config* names. If that is another one, it may accept what it refused;
        only then is one that is gone sent anything again.
        """
        contact = self.contact(receiver)
        if contact.config != config:
            if contact.config and contact.state is not ReceiverPhase.READY:
                self.try_now(receiver, at)
            self._contacts[receiver] = msgspec.structs.replace(self.contact(receiver), config=config)

    def forget_others(self, receivers: Iterable[str]) -> None:
        """Forget those that are not among *receivers* and are owed nothing."""
        kept = {*receivers, *(one.notification.receiver for one in self._rows.values())}
        for name in [name for name in self._contacts if name not in kept]:
            del self._contacts[name]

    # -- what is shown --------------------------------------------------------------------------------------------

    def contact(self, receiver: str) -> Contact:
        """How it stands with *receiver*."""
        return self._contacts.get(receiver) or _NEW

    def debts(self) -> Mapping[str, Debt]:
        """What each receiver is owed, by its name."""
        if self._debts is not None:
            return self._debts
        owed, parked, oldest = Counter[str](), Counter[str](), dict[str, float]()
        for waiting in self._rows.values():  # there may be ten thousand
            receiver = waiting.notification.receiver
            owed[receiver] += 1
            if waiting.place == "parked":
                parked[receiver] += 1
            if waiting.since < oldest.get(receiver, math.inf):
                oldest[receiver] = waiting.since
        gone = {name for name in owed if self.contact(name).state is ReceiverPhase.GONE}
        self._debts = {
            name: Debt(number, number if name in gone else parked[name], oldest[name]) for name, number in owed.items()
        }
        return self._debts

    def __len__(self) -> int:
        return len(self._rows)

    # -- the state file -------------------------------------------------------------------------------------------

    def take_changes(self) -> Mapping[str, Mapping[str, bytes | None]]:
        """Return the rows of the state file that have changed since the last call."""
        return {"outbox": self._rows.take_changes(), "receivers": self._contacts.take_changes()}

    def all_rows(self) -> Mapping[str, Mapping[str, bytes]]:
        """Return all rows."""
        self.take_changes()
        return {"outbox": self._rows.encoded(), "receivers": self._contacts.encoded()}

    def restore(self, rows: Mapping[str, Mapping[str, bytes]], at: float) -> tuple[list[Owed], list[str]]:
        """Take over what a state file has. Returns what is owed, each notification of which may have been tried and may
        even have arrived after it was stored, and what cannot be used, in words.
        """
        saved = rows.get("outbox", {})
        fitting = dict(sorted(saved.items(), key=lambda row: len(row[1]))[:WAITING_MAX])
        refused = left_out("notification", self._rows.restore(fitting, _check))
        refused += left_out("receiver", self._contacts.restore(rows.get("receivers", {})))
        too_many = saved.keys() - fitting.keys()
        refused += left_out("notification", too_many, "there are too many")
        for key in too_many:
            self._rows.forget(key)
        for name, contact in list(self._contacts.items()):
            self._contacts[name] = contact.clamped(at)
        self._rows.sort(lambda waiting: waiting.since)
        for key, waiting in self._rows.items():
            self._sizes[key] = size = len(key) + len(saved[key])
            self._bytes += size
            self._line_up(key, waiting, at)
        return list(self._rows.values()), refused

    # -- inside ---------------------------------------------------------------------------------------------------

    def _next_of(self, line: _Line, contact: Contact, at: float) -> str | None:
        if line.new:
            return next(iter(line.new))
        again = line.next_again()
        # The single attempt while the breaker is open does not wait for the pause of the notification too.
        if again is not None and (again[0] <= at or contact.state is ReceiverPhase.OPEN):
            return again[1]
        if line.parked and at >= contact.probe_at:
            return next(iter(line.parked))
        return None

    def _failed(self, key: str, waiting: Owed, outcome: Outcome, at: float) -> str:
        place: Place = "again" if outcome.result == "retry" else "parked"
        self._drop(key, waiting)
        waiting = msgspec.structs.replace(waiting, attempts=waiting.attempts + 1, place=place)
        self._set(key, waiting)
        pause = 0.0
        if outcome.retry_after is None:
            pause = self._chance() * min(BACKOFF_MAX_S, 2.0 ** (min(waiting.attempts, 20) - 1))
        self._line_up(key, waiting, at + pause)
        return key

    def _passing_on(self, receiver: str, failed: Iterable[str], at: float) -> list[Notification]:
        """Return what the fallbacks of *receiver* are to be told now, and note that they are. *failed*: the group whose
        notification was tried.
        """
        contact, line, found = self.contact(receiver), self._lines.get(receiver), []
        every = contact.state in (ReceiverPhase.GONE, ReceiverPhase.OPEN, ReceiverPhase.PAUSED)
        for key in list(line.keys()) if every and line is not None else failed:
            waiting = self._rows.get(key)
            if waiting is not None and not waiting.passed_on and self._unreachable(waiting, contact, at):
                self._set(key, msgspec.structs.replace(waiting, passed_on=True))
                found.append(waiting.notification)
        return found

    def _unreachable(self, waiting: Owed, contact: Contact, at: float) -> bool:
        """Whether fallbacks have to be told of *waiting*."""
        if contact.state is ReceiverPhase.OPEN:
            return waiting.notification.page or at >= waiting.since + UNREACHABLE_S
        if contact.state is ReceiverPhase.PAUSED:
            longest = PAGE_PAUSED_S if waiting.notification.page else UNREACHABLE_S
            return contact.blocked_until >= waiting.since + longest
        return waiting.place == "parked" or contact.state is ReceiverPhase.GONE

    def _all_again(self, receiver: str, at: float) -> None:
        line = self._lines.get(receiver)
        for key in [] if line is None else list(line.again):
            assert line is not None
            line.try_again(key, at)

    def _fitting(self, waiting: Owed) -> Owed | None:
        """Return *waiting* so that there is room for it; None: there is none."""
        if len(self._rows) >= WAITING_MAX:
            return None
        while len(msgspec.json.encode(waiting)) > min(ONE_MAX, BYTES_MAX - self._bytes):
            less = smaller(waiting.notification)
            if less is None:
                return None
            waiting = msgspec.structs.replace(waiting, notification=less)
        return waiting

    def _set(self, key: str, waiting: Owed) -> None:
        self._debts = None
        self._rows[key] = waiting
        size = len(key) + len(msgspec.json.encode(waiting))
        self._bytes += size - self._sizes.get(key, 0)
        self._sizes[key] = size

    def _drop(self, key: str, waiting: Owed) -> None:
        self._debts = None
        del self._rows[key]
        self._bytes -= self._sizes.pop(key)
        self._unreleased.pop(key, None)
        line = self._lines.get(waiting.notification.receiver)
        if line is not None:
            line.remove(key)
            if not line:
                del self._lines[waiting.notification.receiver]

    def _line_up(self, key: str, waiting: Owed, at: float) -> None:
        line = self._lines.setdefault(waiting.notification.receiver, _Line())
        if waiting.place == "again":
            line.try_again(key, at)
        else:
            (line.new if waiting.place == "new" else line.parked)[key] = None

    def _give_up(self, keys: Iterable[str]) -> list[Notification]:
        given_up = []
        for key in list(keys):
            waiting = self._rows.get(key)
            assert waiting is not None
            self._drop(key, waiting)
            self._lose(waiting.notification.receiver)
            given_up.append(waiting.notification)
        return given_up

    def _lose(self, receiver: str) -> None:
        contact = self.contact(receiver)
        self._contacts[receiver] = msgspec.structs.replace(contact, lost=contact.lost + 1)


_NEW = Contact()


def _key(notification: Notification) -> str:
    return f"{notification.receiver}\n{notification.group_key}"


def _check(key: str, waiting: Owed) -> None:
    if key != _key(waiting.notification):
        raise ValueError(key)
