"""`Pace`: the times of the tuner. docs/TUNING.md names those that a person notices; tests use shorter ones."""

from __future__ import annotations

from typing import NamedTuple


class Pace(NamedTuple):
    """Times are seconds."""

    warm_up: float = 10.0
    """From the change until the figures count, beside the tunable's own delay and the start of a worker."""
    baseline: float = 600.0
    """How far back the figures before the change go."""
    validation: float = 120.0
    """The shortest time for which a change is validated: one validation window."""
    validation_max: float = 1800.0
    """The longest. It is reached where there are few calls."""
    calls: int = 300
    """Calls that each side of the comparison needs."""
    look: float = 5.0
    """Time between two looks for a harm that is plain."""
    verify: float = 3.0
    """How long the figures get to recover after a size is restored, beside four execution times."""
    pool_pause: float = 60.0
    """From the end of a trial of a pool to the next one of the pool."""
    retry: float = 3600.0
    """From a rollback to the next trial of the same proposal. It doubles each time."""
    retries: int = 3
    """Trials of the same proposal that may be rolled back. After that, a person must ask for it."""
    freeze: float = 3600.0
    """How long repeated rollbacks freeze the tuner."""
    settle: float = 900.0
    """How long after a deployment, or the start of the tuner, it begins no trial on its own."""
    propose: float = 180.0
    """For how long a policy must want another size until it is proposed: less where the interval is below 1 s."""
    expire: float = 86_400.0
    """How long a proposal waits for approval."""
