"""The sections ``[alerts]`` and ``[state]``: which rules are evaluated, and what survives a restart."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from pool_monitor.config.fields import Validated
from pool_monitor.config.paths import NamesFile
from pool_monitor.errors import ConfigError

_File = Annotated[str, Meta(min_length=1)]


class HeartbeatConfig(Validated, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where beats go, so that somebody outside notices that they end. One of *url_env* and *url_file* is needed: the
    URL is a secret.
    """

    url_env: _File | None = None
    """The environment variable that has the URL."""
    url_file: _File | None = None
    """The file that has the URL."""
    every: Annotated[float, Meta(ge=1, le=86_400)] = 30.0
    """Time between two beats."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.url_env is None) == (self.url_file is None):
            raise ConfigError("HeartbeatConfig: needs url_env, the variable that has the URL, or url_file, its file")


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
    heartbeat: HeartbeatConfig | None = None
    """A beat that somebody outside expects. None: there is none."""
    file: _File | None = None
    """A file to which each change of an alert's state is appended, one JSON object a line. A relative path starts at
    the working directory. None: there is none."""

    _FILE = "file"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.heartbeat is not None and not self.enabled:
            raise ConfigError("AlertsConfig: heartbeat needs enabled = true: without it, no beat would be sent")


class StateConfig(NamesFile, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What must survive a restart."""

    path: _File | None = None
    """A small SQLite file with the states of alerts, silences and acknowledgements, and with what advice and tuning
    must not forget: the mode, the trials and their audit. A relative path starts at the working directory. None: they
    are kept in memory, and a restart forgets them."""
