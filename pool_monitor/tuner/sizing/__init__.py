"""The size of a pool: what chooses it, and what bounds the choice.

Theory of operation. `make_policy` makes the policy that the configuration names. Ours, `SizePolicy`, works in six
steps, a file each: `forecast` (how many calls arrive), `service` (how long they take), `demand` (how many workers that
needs), `caps` and `guard` (how many would help), `stepping` (how fast to get there). `Sizer` joins the policy of a pool
with the operator's `schedule` and the learned `season`: both only raise the size, within the range.

The sources of the formulas are in docs/TUNING.md, "How the size is chosen".
"""

from pool_monitor.tuner.sizing.loading import make_policy
from pool_monitor.tuner.sizing.presets import PRESETS, Preset
from pool_monitor.tuner.sizing.size_policy import SizePolicy
from pool_monitor.tuner.sizing.sizer import Sizer, Sizing, Upcoming, whole

__all__ = ["PRESETS", "Preset", "SizePolicy", "Sizer", "Sizing", "Upcoming", "make_policy", "whole"]
