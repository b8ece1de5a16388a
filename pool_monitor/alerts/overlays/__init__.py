"""What lies over the states of alerts: silences, acknowledgements, inhibition, mute times and flapping.

An overlay changes how an alert is shown and told, never its state. So an alert that fires behind a silence is firing
when the silence ends, and one that was resolved meanwhile is resolved. All of this is without I/O and without a clock.

- `silences`: alerts that match are quiet for a while; one that begins later is a maintenance window.
- `acknowledgements`: somebody deals with an alert, until its life ends or for a duration.
- `inhibition`: a firing alert keeps others quiet; a function of the set of firing alerts.
- `mute`: times of the week at which a rule is quiet.
- `flapping`: an alert that fires and resolves again and again.
- `views`: alerts with all of this, as a Snapshot shows them.
"""

from pool_monitor.alerts.overlays.overlays import Overlays
from pool_monitor.alerts.overlays.views import Texts

__all__ = ["Overlays", "Texts"]
