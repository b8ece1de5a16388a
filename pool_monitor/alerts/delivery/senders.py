"""The senders of the receivers: made when they are needed, and kept as long as somebody is owed something by them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, cast

from pool_monitor.alerts.channels import sender_of
from pool_monitor.alerts.channels.sender import SEND_S
from pool_monitor.alerts.delivery.notification import Outcome
from pool_monitor.alerts.routing import AlertmanagerApi
from pool_monitor.log import logger
from pool_monitor.parts import retrieve_error

if TYPE_CHECKING:
    from pool_monitor.alerts.channels import Sender
    from pool_monitor.alerts.channels.alertmanager_api import AlertmanagerSender
    from pool_monitor.alerts.delivery.notification import Notification, ToldAlert
    from pool_monitor.alerts.routing import Receiver

ATTEMPT_S = SEND_S + 5.0
"""Longest time of an attempt, whatever the sender does."""
CLOSE_S = 2.0
"""How long a sender may take to close."""


class Senders:
    """The senders by the name of their receiver. For the event loop.

    Bound: those of the receivers that are configured, and of others that are owed something.
    """

    def __init__(self) -> None:
        self._receivers: dict[str, Receiver] = {}
        self._gone: set[str] = set()
        self._senders: dict[str, Sender] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._reminded: set[str] = set()

    def use(self, receivers: Mapping[str, Receiver]) -> None:
        """Send to *receivers* from now on. One that has not changed keeps its sender. One that is not among them can
        be sent to until `forget`: it may be owed something.
        """
        for name in list(self._senders):
            if name in receivers and self._receivers[name] != receivers[name]:
                self._close_soon(name)
        self._gone = (self._gone | self._receivers.keys()) - receivers.keys()
        self._receivers = {**{name: self._receivers[name] for name in self._gone}, **receivers}

    def forget(self, owed: Callable[[], Collection[str]]) -> Collection[str]:
        """Close the senders of receivers that are no longer configured, except those that *owed* returns: they are owed
        something. Returns the names of the others.
        """
        forgotten = self._gone.difference(owed()) if self._gone else frozenset()
        for name in forgotten:
            self._gone.discard(name)
            del self._receivers[name]
            self._close_soon(name)
            self._locks.pop(name, None)
        return forgotten

    def reminding(self, told: Callable[[str], Iterable[ToldAlert]]) -> Iterator[None]:
        """Let new senders that go on telling what fires know what their receivers were told, as *told* says. In steps:
        others may work at each.
        """
        for name, receiver in list(self._receivers.items()):
            if isinstance(receiver.channel, AlertmanagerApi) and name not in self._reminded:
                sender = cast("AlertmanagerSender", self._sender(name))
                yield from sender.knowing(told(name))
                if self._senders.get(name) is sender:
                    self._reminded.add(name)

    def knows(self, name: str) -> bool:
        """Whether the receiver *name* can be sent to."""
        return name in self._receivers

    def names(self) -> Iterable[str]:
        """The receivers that can be sent to."""
        return self._receivers

    def receiver(self, name: str) -> Receiver | None:
        """The configuration of a receiver; None: it is not known."""
        return self._receivers.get(name)

    def where(self, name: str) -> str:
        """Where the messages of a receiver go, as people may see it; empty: it is not known."""
        try:
            return self._sender(name).where
        except Exception:  # noqa: BLE001 - each attempt says what is wrong with it
            return ""

    def kind(self, name: str) -> str:
        """The channel of a receiver; empty: it is not known."""
        receiver = self._receivers.get(name)
        return "" if receiver is None else str(receiver.channel.__struct_config__.tag)

    async def send(self, name: str, notification: Notification) -> Outcome:
        """Try once to send. Never raises, except for a cancellation; ends after `ATTEMPT_S`."""
        if name not in self._receivers:
            return Outcome("refused", "it is in no file of rules any more")
        async with self._locks.setdefault(name, asyncio.Lock()):
            try:
                async with asyncio.timeout(ATTEMPT_S):
                    return await self._sender(name).send(notification)
            except TimeoutError:
                return Outcome("retry", f"the channel has not ended the attempt within {ATTEMPT_S:.0f} s", unsure=True)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                return Outcome("retry", "the channel has cancelled the attempt", unsure=True)
            except Exception as error:  # noqa: BLE001 - it may be foreign code
                # The text of an error may have a secret in it.
                return Outcome("retry", f"the channel failed: {type(error).__name__}", unsure=True)

    async def close(self) -> None:
        """Close all senders. They are made again when something is sent."""
        for name in list(self._senders):
            self._close_soon(name)
        if self._closing:
            _done, late = await asyncio.wait(self._closing, timeout=2 * CLOSE_S)
            for task in late:
                task.cancel()
        self._locks = {}

    def _sender(self, name: str) -> Sender:
        if name not in self._senders:
            self._senders[name] = sender_of(self._receivers[name])
        return self._senders[name]

    def _close_soon(self, name: str) -> None:
        """Close the sender once the attempt that it makes has ended."""
        sender, lock = self._senders.pop(name, None), self._locks.get(name)
        self._reminded.discard(name)
        if sender is None:
            return
        task = asyncio.get_running_loop().create_task(_closed(name, sender, lock), name=f"pool_monitor alerts {name}")
        task.add_done_callback(retrieve_error)
        task.add_done_callback(self._closing.discard)
        self._closing.add(task)


async def _closed(name: str, sender: Sender, lock: asyncio.Lock | None) -> None:
    try:
        async with lock or asyncio.Lock(), asyncio.timeout(CLOSE_S):
            await sender.aclose()
    except Exception as error:  # noqa: BLE001 - it may be foreign code
        logger("alerts").warning("a channel was not closed", receiver=name, error=type(error).__name__)
