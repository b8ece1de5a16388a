"""One group: its times, and which of its notifications have arrived."""

from __future__ import annotations

from msgspec import Struct

from pool_monitor.alerts.delivery.targets import GroupOptions, Target


class Group(Struct, kw_only=True, omit_defaults=True, gc=False):
    """The alerts that one receiver is told of together. A row of the table ``groups``. Times are seconds since the
    epoch.
    """

    number: int
    """Names it in the table ``told``."""
    receiver: str
    key: str
    labels: dict[str, str]
    options: GroupOptions
    cause: str = ""
    about: str = ""
    """As in `Target`."""
    flush_at: float
    """Its next time."""
    flushed: bool = False
    """Whether its first time is over."""
    told_at: float | None = None
    """When the latest notification that arrived was made; if it arrived late, later. The repeat interval counts from
    it."""
    waiting: str = ""
    """The id of its notification that has not arrived."""
    digest: bool = False
    """Whether that is a digest."""
    held: bool = False
    """Whether the rate limit holds it back."""
    made_no: int = 1
    """The number of its latest notification. Number 1 stands for what was told before it came to be."""
    maybe_no: int = 1
    """The latest that may have arrived."""
    arrived_no: int = 1
    """The latest that has arrived."""

    @property
    def target(self) -> Target:
        """The target that it was made for."""
        return Target(self.receiver, self.key, self.labels, self.options, self.cause, self.about)

    def insert(self, starts_at: float, at: float) -> None:
        """An alert that has fired since *starts_at* joins. Before the first time, one that has waited for long enough
        already is told at once.
        """
        if not self.flushed and starts_at + self.options.group_wait < at:
            self.flush_at = min(self.flush_at, at)

    def begin_flush(self, at: float) -> None:
        """Its time has come."""
        self.flushed, self.flush_at = True, at + self.options.group_interval

    def clamp(self, at: float) -> None:
        """Bring times that an earlier life has saved into the bounds that they have *at* this time: the wall clock may
        have been set back since.
        """
        wait = self.options.group_interval if self.flushed else self.options.group_wait
        self.flush_at = min(self.flush_at, at + wait)
        if self.told_at is not None:
            self.told_at = min(self.told_at, at)

    def made(self, notification: str, *, digest: bool) -> int:
        """It has a new notification, in the place of the one that waits. Returns its number."""
        self.made_no += 1
        self.waiting, self.digest, self.held = notification, digest, False
        return self.made_no

    def arrived(self, made_at: float, at: float) -> None:
        """Its notification has arrived *at* this time. A delivery that takes less than the group interval does not put
        the repeats off.
        """
        self.waiting, self.arrived_no = "", self.made_no
        self.told_at = max(made_at, at - self.options.group_interval)

    def given_up(self) -> None:
        """Its notification will not arrive."""
        self.waiting = ""
