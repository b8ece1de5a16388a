"""Detect that the server of the app is stopping, so that endless responses can end.

Theory of operation
-------------------
A server that stops first waits for the responses under way, and only then notifies the app (its lifespan). An endless
response that waits for this notification would make both wait for ever. But before anything else, every server closes
its listening socket. This can be observed inside the process: the socket is one of the process's descriptors and
listens at the address that the request came to. So a stream looks for the socket once, and later checks whether it is
still open. This needs no signal handler and no task, and works for every reason for which a server stops.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

_DESCRIPTORS = Path("/dev/fd")
_LOOKED_AT = 1000
"""Most descriptors to examine, lowest first. This takes about 10 ms. A server opens its listening sockets early."""


class Listener:
    """The listening sockets for *server*, the ``scope["server"]`` of a request, at the time of construction.

    If *server* is None, because the server does not set it: all listening sockets of the process.
    """

    def __init__(self, server: tuple[str, Any] | None) -> None:
        self._sockets: dict[int, Any] = {}
        with suppress(OSError):
            self._sockets.update(_listening_at(server))

    @property
    def known(self) -> bool:
        """Whether a socket was found. Otherwise another process has the sockets, or the system does not list them."""
        return bool(self._sockets)

    def closed(self) -> bool:
        """Whether one of the sockets was closed. False when this cannot be checked now."""
        with suppress(OSError):
            return any(_address(descriptor) != address for descriptor, address in self._sockets.items())
        return False


def _listening_at(server: tuple[str, Any] | None) -> Iterator[tuple[int, Any]]:
    for descriptor in islice(_descriptors(), _LOOKED_AT):
        address = _address(descriptor)
        if address is not None and (server is None or _is(address, *server)):
            yield descriptor, address


def _is(address: Any, host: str, port: Any) -> bool:
    """Whether a socket that listens at *address* may have taken a connection to *host* and *port*."""
    if isinstance(address, tuple):
        return str(address[1]) == str(port)  # ignore the host: the socket may listen on all addresses
    return os.fsencode(address) == os.fsencode(host)  # a Unix socket


def _descriptors() -> list[int]:
    return sorted(int(entry.name) for entry in _DESCRIPTORS.iterdir())


def _address(descriptor: int) -> Any:
    """The address at which *descriptor* listens; None if it is closed or not a listening socket.

    Raises OSError when the process has no descriptor left.
    """
    try:
        copy = os.dup(descriptor)  # closing the socket object below closes only this copy
    except OSError as error:
        if error.errno == errno.EBADF:
            return None
        raise
    try:
        sock = socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        return None
    with sock:
        return sock.getsockname() if _listens(sock) else None


def _listens(sock: socket.socket) -> bool:
    try:
        return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError:  # a socket of a kind that never listens
        return False
