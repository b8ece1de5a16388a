"""Words for a person who asks why a trial is what it is."""

from __future__ import annotations

from datetime import UTC, datetime

from pool_monitor.tuner.trial import Trial, TrialStep

_ORIGINS = {"manual": "by hand", "advice": "by the advisor", "policy": "by the policy", "season": "by the season"}


def explained(trial: Trial, now: float, wall: float) -> str:
    """Return everything that is known of *trial*, as lines of text."""
    unit = "" if trial.unit in ("count", "ratio") else f" {trial.unit}"
    lines = [
        f"trial {trial.id}: {trial.knob} of pool {trial.pool}, from {trial.before:g} to {trial.after:g}{unit}",
        f"proposed {_when(trial.started_at)} {_ORIGINS.get(trial.origin, f'by {trial.origin}')}: {trial.why}",
        f"{trial.stage.value.replace('_', ' ')} since {_when(trial.changed_at)}: {trial.reason}",
    ]
    if trial.due is not None:
        lines.append(f"the next look is in {max(0.0, trial.due - now):.0f} s, {_when(wall + trial.due - now)}")
    if trial.pinned is not None:
        lines.append(f"the pool began with {trial.pinned:g}{unit}")
    if (effect := trial.effect) is not None:
        lines.append(
            f"expected: {effect.metric} from {effect.now:.4g} to {effect.expected:.4g} "
            f"({effect.low:.4g} to {effect.high:.4g})"
        )
        if trial.measured is not None:
            inside = effect.low <= trial.measured <= effect.high
            lines.append(f"measured: {trial.measured:.4g}, {'as expected' if inside else 'outside of that'}")
    if trial.verdict:
        lines.append(f"verdict: {trial.verdict.replace('_', ' ')}")
    if trial.false_rollback:
        lines.append("restoring the old value has not helped: the change was not the cause")
    lines += [f"  {name}: {value:.4g}" for name, value in trial.figures.items()]
    if trial.steps:
        lines.append("what has happened:")
        lines += [_step(step) for step in trial.steps]
    elif trial.actor:  # of an older version
        lines.append(f"by {trial.actor}")
    return "\n".join(lines)


def _step(step: TrialStep) -> str:
    what = "note" if step.note else step.stage.value.replace("_", " ")
    return f"  {_when(step.at)} {what}{f' by {step.actor}' if step.actor else ''}: {step.reason}"


def _when(at: float) -> str:
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        return "at an unknown time"
