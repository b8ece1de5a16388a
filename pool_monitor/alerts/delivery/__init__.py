"""Delivery: who is told of an alert, when, and that the message arrives.

Theory of operation
-------------------
Delivery keeps states, not a queue of events. It knows for each receiver what the receiver was told, and works until
that agrees with what is true.

1. `targets.targets_of` walks the route tree: which receivers an alert belongs to, and in which group of each.
2. The notifier (`notifier.Notifier`) has the groups: for each member what is true and what the receiver was told. A
   group says at its own times (``group_wait``, ``group_interval``) whether there is something to tell, and why. Whoever
   was told that an alert fires is owed its end, whatever happens in between. It makes `notification.Notification`.

   - The ledger (`ledger.Ledger`) keeps groups and members, and saves them. A group numbers its notifications, and each
     states the whole group. So a member needs two numbers to know what its receiver knows: the notification that first
     states that it fires, and the one that first states its end (`members.Member`). That a notification has arrived is
     one number of the group.
   - The agenda (`agenda.Agenda`) knows when to look at a group, and `reasons` whether it has something to tell. While
     an attempt is under way, nothing newer is made for its group: what the receiver knows is not certain until then.
   - `aftermath` does what follows when a notification has arrived, was refused, or was given up; `reconciliation`, what
     follows when routes change or a service begins; `explaining` puts it into words for a Snapshot.
   - The rate limit (`rate_limit`) lets groups go or holds them back, until one digest tells all of them. An alert that
     escalates or falls back (`escalation`) joins a group of another receiver, and is a member as any other there.

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
