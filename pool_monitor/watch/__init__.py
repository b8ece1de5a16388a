"""Watch services from a process of its own, and tell when one is gone, frozen or stale.

Theory of operation
-------------------
1. `polling.Poller` looks into the directory of sockets and asks each service for its Snapshot, twice in an interval.
   What comes of it is a `watch_list.Poll`. A service may hang, and may lie: a poll has a time limit, reads a bounded
   answer and decodes only what is needed.
2. `watch_list.WatchList` judges. No service is condemned for one poll: a second one, a moment later, has to fail too.
   So a service is found gone or frozen within two intervals, and one that hiccups is not.
3. What it finds are findings for three rules (`rules.RULES`). From there on everything is as in a service: the same
   engine, overlays, groups, receivers and outbox, with a state file of its own (`watcher.Watcher`).

A service that leaves in order removes its socket; one that is killed leaves it behind. So a service that was only
discovered may leave, and nobody is told. A service that was asked for by its address is always expected.
"""
