"""Delivery: who is told of an alert, when, and that the message arrives.

Theory of operation
-------------------
Delivery keeps states, not a queue of events. It knows for each receiver what the receiver was told, and works until
that agrees with what is true.

1. `targets.targets_of` walks the route tree: which receivers an alert belongs to, and in which group of each.
2. The notifier (`notifier.Notifier`) has the groups: for each member what is true and what the receiver was told. A
   group says at its own times (``group_wait``, ``group_interval``) whether there is something to tell, and why. Whoever
   was told that an alert fires is owed its end, whatever happens in between. It makes `notification.Notification`: for
   each group one, or, when `rate_limit.RateLimits` holds groups back, one digest of them. An alert that nobody
   acknowledged, and one whose receiver cannot be told, joins a group of another receiver (`escalation`).
3. The outbox (`outbox.Outbox`) has the notifications that have not arrived: at most one for each receiver and group.
   It says which may be tried now: each receiver has a `contact.Contact`, with the pauses after failures,
   ``Retry-After`` and the breaker. `accounts.Accounts` keeps the notifier and the outbox in agreement: what arrives, is
   parked or lost becomes known to the groups.
4. All of this is pure: time is passed in, and nothing waits. What changes is stored in the state file in the same
   transaction as the changes of the alerts, before anything is sent.
5. The courier (`courier.Courier`) tries what may be tried, with a *sender* for each receiver (`alerts/channels/`). A
   sender makes the message of one format and says what came of it (`notification.Outcome`).

`delivery.Delivery` puts these together for the evaluator.

Times are seconds since the epoch by a clock that does not jump: the wall clock at the start, and from then on the
monotonic clock.
"""
