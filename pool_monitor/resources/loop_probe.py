"""How late an event loop is, and whether it is blocked: decisions about the probes of the watchdog.

No I/O, threads or clocks: all times are passed in, in nanoseconds.

A probe is a callback that the loop should run at once. At most one is outstanding. A loop that is blocked for 2 s
would so be measured once, with 2 s, where twenty probes were due: the very time that callers suffer from would hardly
count (coordinated omission). `lags` therefore adds what the probes that were not sent would have measured: 1.9 s,
1.8 s and so on. A percentile of the lag so is a share of time: a callback that is due at any moment of the window is
later than p99 with a probability of 1 %.

Being late is not always being blocked. When the whole process did not run, because it was stopped (SIGSTOP, a debugger)
or because the machine had no processor for it, the watchdog was late too, and the process used next to no processor
time meanwhile. That time is *excused* (`excused`): it counts as lag, once, but not towards a block. When the watchdog
was late while the process used a processor, code in C ran without letting other threads run. That is a block.
"""

from __future__ import annotations

from enum import StrEnum

from pool_monitor.state_machine import StateMachine

MISSED_MAX = 3000
"""Most probes that `lags` adds for one block: those of 5 minutes at the default interval. They are recorded in some
milliseconds."""
STACK_EVERY_NS = 10_000_000_000
"""At most one stack is taken in this time; the first one always."""
RAN_RATIO = 0.1
"""A process that used less than this share of a processor did not run."""
OWN_LATENESS_NS = 20_000_000
"""A watchdog that wakes up later than this did not only wait for its turn among the threads, which takes one switch
interval (5 ms) for each thread that computes. The probe then counts from the moment at which it was due, and otherwise
from the moment at which it was sent."""


class ProbeState(StrEnum):
    """What the watchdog waits for."""

    RESTING = "resting"
    """For the moment to send the next probe."""
    ASKED = "asked"
    """For the loop to run the probe."""
    TELLING = "telling"
    """For the handlers of the event that says that the loop is blocked."""
    BLOCKED = "blocked"
    """For the loop to run the probe, after that event."""
    ANSWERED = "answered"
    """For these handlers too, while the loop runs again: the event that says so must be the second one."""


PROBE: StateMachine[ProbeState] = StateMachine(
    "probe of an event loop",
    ProbeState.RESTING,
    {
        ProbeState.RESTING: {"send": ProbeState.ASKED},
        ProbeState.ASKED: {"answer": ProbeState.RESTING, "late": ProbeState.TELLING},
        ProbeState.TELLING: {"told": ProbeState.BLOCKED, "answer": ProbeState.ANSWERED},
        ProbeState.BLOCKED: {"answer": ProbeState.RESTING},
        ProbeState.ANSWERED: {"told": ProbeState.RESTING},
    },
)


def lags(lag_ns: int, excused_ns: int, interval_ns: int) -> list[int]:
    """The lags to record for a probe that ran *lag_ns* late: its own first, then those of the probes it held up.

    These were due every *interval_ns* while the probe was outstanding, except in the excused time, in which none would
    have been sent. At most `MISSED_MAX` are added; for a longer block they are spread evenly over it.
    """
    missed = max(0, lag_ns - excused_ns) // interval_ns
    if missed <= MISSED_MAX:
        return [lag_ns - step * interval_ns for step in range(missed + 1) if lag_ns > step * interval_ns or not step]
    return [lag_ns, *(lag_ns - step * (lag_ns - excused_ns) // (MISSED_MAX + 1) for step in range(1, MISSED_MAX + 1))]


def excused(late_ns: int, cpu_ns: int) -> int:
    """How much of the watchdog's own lateness is not the loop's: all of it, if the process hardly ran meanwhile.

    *cpu_ns* is the processor time that the process has used since the watchdog's last wake-up. Code that holds the
    interpreter on a busy machine gets only a part of a processor too, but more than `RAN_RATIO` of one.
    """
    return 0 if late_ns <= 0 or cpu_ns >= RAN_RATIO * late_ns else late_ns


def counted_from(due_ns: int, sent_ns: int) -> int:
    """The moment from which the lag of a probe counts."""
    return due_ns if sent_ns - due_ns > OWN_LATENESS_NS else sent_ns


class StackLimit:
    """Decides for which blocks a stack is taken: always for the first, then at most once in `STACK_EVERY_NS`."""

    __slots__ = ("_last_ns",)

    def __init__(self) -> None:
        self._last_ns: int | None = None

    def allows(self, now_ns: int) -> bool:
        """Whether a stack may be taken now."""
        return self._last_ns is None or now_ns - self._last_ns >= STACK_EVERY_NS

    def took(self, now_ns: int) -> None:
        """Count a stack that was taken."""
        self._last_ns = now_ns
