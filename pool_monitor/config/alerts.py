"""The sections ``[alerts]`` and ``[state]``: which rules are evaluated, and what survives a restart."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from pool_monitor.config.paths import NamesFile

_File = Annotated[str, Meta(min_length=1)]


class AlertsConfig(NamesFile, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The rules of alerts. Times are seconds."""

    enabled: bool = True
    """Evaluate the rules."""
    rules: tuple[_File, ...] = ()
    """Files with rules. A relative path starts at the folder of the configuration file, and, where the configuration is
    made in code, at the working directory. They are read again on SIGHUP and when they change."""
    default_rules: bool = True
    """Also evaluate the rules that come with the package. A rule of the same name takes the place of one."""
    disable: tuple[_File, ...] = ()
    """Names of default rules that are switched off, such as ``WorkerLeak``."""
    interval: Annotated[float, Meta(ge=0.1, le=3600)] = 5.0
    """Time between two evaluations."""
    log: bool = True
    """Log each change of an alert's state."""
    file: _File | None = None
    """A file to which each change of an alert's state is appended, one JSON object a line. A relative path starts at
    the working directory. None: there is none."""

    _FILE = "file"


class StateConfig(NamesFile, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What must survive a restart."""

    path: _File | None = None
    """A small SQLite file with the states of alerts, silences and acknowledgements. A relative path starts at the
    working directory. None: they are kept in memory, and a restart forgets them."""
