"""Events of advice and tuning."""

from __future__ import annotations

from pool_monitor.events.spec import MONITOR_KEY, declare

ADVICE_TRANSITION = declare(
    "advice.transition",
    "A recommendation was opened, or changed its state.",
    {"system_time": "ns: wall clock", "score": "ratio: its priority, from 0 to 100"},
    {
        **MONITOR_KEY,
        "service": "str: the monitor's service name",
        "id": "str: names the recommendation",
        "pattern": "str: what was found, such as overloaded",
        "subject": "str: what it is about, such as 'pool text'",
        "from": "str: the state left: new, open, applied, dismissed or expired; empty when it was not known before",
        "to": "str: the state entered",
        "summary": "str: one sentence with figures",
    },
)
TUNING_TRANSITION = declare(
    "tuning.transition",
    "The tuner changed a setting of a pool, or a trial of a change entered another state.",
    {
        "system_time": "ns: wall clock",
        "value_before": "ratio: the value before the change, in the unit of the setting",
        "value_after": "ratio: the value that is tried or set",
    },
    {
        **MONITOR_KEY,
        "service": "str: the monitor's service name",
        "id": "str: names the trial, or the decision of the policy",
        "pool": "str: the pool's name",
        "knob": "str: the setting, such as size",
        "from": "str: the state of the trial that was left; empty for a decision without a trial",
        "to": "str: the state entered; 'set' for a decision without a trial",
        "origin": "str: why: advice, policy, schedule, season or manual",
        "actor": "str: who asked for it; empty for the tuner itself",
        "reason": "str: why, in words",
    },
)
