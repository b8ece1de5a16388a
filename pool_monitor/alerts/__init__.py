"""Alerts: rules that say when a value is bad, and the life of the alerts that follow.

Theory of operation
-------------------
A *rule* (`rule.CheckedRule`) has one kind, and for each instance that it matches at most one alert. An evaluation is
one walk:

1. The rules name their *inputs* (`inputs.Input`): a metric, a window, a stretch of the past.
2. A reader reads all of them once (`inputs.Inputs`): what each instance had at one moment. The live reader reads
   Snapshots and the history; a replay reads what was recorded; a test of rules reads written series.
3. `evaluation.evaluate` returns a *judgement* (`inputs.Judgement`) for each instance: which level it reaches, or
   unknown. It is a function of the rule, the inputs and the rule's memory (latches, baselines, detectors).
4. The engine (`engine.Engine`) steps the life of each alert (`lifecycle`): pending, firing, recovering, resolved. It
   returns the transitions.
5. Overlays (silences, acknowledgements, inhibition, mute times, flapping) are laid over the states when they are shown.
   They never change the state beneath.
6. The evaluator (`evaluator.Evaluator`) does these steps, in slices that do not hold the event loop. It stores what
   changed, shows it then, and has it told then (`announcer.Announcer`).

The manager (`manager.AlertManager`) is what users see: it has the rules (`rule_book`, `loading`) and decides how much
time counts (`clock_guard`). The part (`part.AlertsPart`) drives it: at an interval, on SIGHUP, and when files change.

The time that counts for ``for`` and the like is the sum of the `Inputs.elapsed` of the evaluations, not the difference
of two clocks. So a suspended machine and a stepped clock cannot make an alert fire.
"""

from pool_monitor.alerts.detectors import DETECTORS, THRESHOLD, AnomalyDetector, Detector
from pool_monitor.alerts.rule_file import Rule

__all__ = ["DETECTORS", "THRESHOLD", "AnomalyDetector", "Detector", "Rule"]
