"""Who sent a request, and whether they may change something."""

from __future__ import annotations

import ipaddress
import socket
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from starlette.requests import Request

PEER = "pool_monitor.peer"
"""The key of the state of a request whose value is the `Peer` of its connection."""
LOCAL = "local socket"
_FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip")
_CREDENTIALS = struct.Struct("3i")


class Peer(NamedTuple):
    """The process at the other end of a Unix socket."""

    pid: int
    uid: int


class Requester(NamedTuple):
    """Who sent a request."""

    origin: str
    """`LOCAL`, or the address of the client."""
    peer: Peer | None = None
    """None: not known, or not over a Unix socket."""


def peer_of(connection: Any) -> Peer | None:
    """Return the process that is connected to *connection*, a Unix socket; None where the system does not tell."""
    kind = getattr(socket, "SO_PEERCRED", None)
    try:
        pid, uid, _gid = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, kind, _CREDENTIALS.size))
    except (OSError, TypeError, AttributeError, struct.error):
        return None
    return Peer(pid, uid)


def requester_of(request: Request, *, local: bool) -> Requester:
    """Return who sent *request*. *local*: it came over the local socket."""
    if local:
        return Requester(LOCAL, request.scope.get("state", {}).get(PEER))
    client = request.client
    return Requester("unknown" if client is None else client.host)


def why_refused(request: Request, *, local: bool, allowed: bool) -> str | None:
    """Return why *request* may not change anything, in words; None: it may.

    A mounted app cannot tell people apart. So only programs on this machine may, and no request that comes through a
    proxy, or from a web page whose name was pointed at this machine.
    """
    if not allowed:
        return "this service takes no actions; allow them with [service] actions = true in its configuration"
    if local:
        return None
    if any(name in request.headers for name in _FORWARDED):
        return "actions are not taken through a proxy; use the service's local socket, as the command line does"
    client = request.client
    if client is None or not _is_loopback(client.host) or not _is_loopback(request.url.hostname or ""):
        return "actions are taken from this machine alone; use the service's local socket, as the command line does"
    return None


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
