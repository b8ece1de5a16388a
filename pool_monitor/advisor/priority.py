"""How much a recommendation matters, and how sure it is.

The score is ``100 x impact x confidence x urgency / (1 + risk / 4)``, from 0 to 100:

- *impact*, 0 to 1: the share of the pool's calls, or of its worker-seconds, that is concerned;
- *confidence*, 0 to 1: see `confidence`;
- *urgency*, 0 to 1: 1 is now, 0.5 is today, 0.1 is this week;
- *risk*, 0 to 4: the harm that the change can do. The highest halves the score.

===============================================  ======  ==========  =======  ====  =====
example                                          impact  confidence  urgency  risk  score
===============================================  ======  ==========  =======  ====  =====
half of the calls wait too long: two workers     0.5     0.9         1        1     36
all calls are slow: the loop is blocked          1       0.8         1        0     80
one worker of eight leaks, hours to its limit    0.125   0.9         0.5      1     4.5
a third of the workers is not needed             0.33    0.8         0.1      2     1.8
===============================================  ======  ==========  =======  ====  =====
"""

from __future__ import annotations

from typing import Literal

Label = Literal["low", "medium", "high"]
MEDIUM, HIGH = 0.6, 0.85
"""The confidences from which on a recommendation is called of medium and of high confidence."""


def confidence(q: float, samples: int, samples_min: int, share: float, fidelity: float) -> float:
    """How sure a finding is, from 0 to 1: ``(1 - q) x n / (n + n_min) x share x fidelity``.

    *q* is the adjusted probability of such figures without a cause, *samples* (n) the observations and *samples_min*
    the fewest with which the pattern speaks, *share* that of the latest passes that have found it, and *fidelity* how
    well the model describes what was seen. So it is at most a half with the fewest observations.
    """
    weight = samples / (samples + samples_min) if samples + samples_min > 0 else 0.0
    return _unit(1 - q) * weight * _unit(share) * _unit(fidelity)


def label(value: float) -> Label:
    """A confidence as a word: low below 0.6, high from 0.85 on."""
    return "low" if value < MEDIUM else "medium" if value < HIGH else "high"


def score(impact: float, sure: float, urgency: float, risk: int) -> float:
    """The priority, from 0 to 100. *sure* is the confidence."""
    return 100 * _unit(impact) * _unit(sure) * _unit(urgency) / (1 + min(max(risk, 0), 4) / 4)


def _unit(value: float) -> float:
    """*value* within 0 and 1; 0 for NaN."""
    return min(max(value, 0.0), 1.0) if value == value else 0.0
