"""The section ``[service]``: how a running monitor is reached."""

from __future__ import annotations

from pool_monitor.config.fields import Name, Validated


class ServiceConfig(Validated, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a running monitor is reached from other terminals."""

    socket: bool = True
    """Open the local Unix socket that ``pool-monitor dashboard`` and ``snapshot`` connect to."""
    name: Name | None = None
    """The name under which they find the service; None: the name of its first pool."""
    actions: bool = False
    """Take requests that change something, such as silences: from the command line, the dashboard and, through a
    mounted app, programs on this machine.
    """
