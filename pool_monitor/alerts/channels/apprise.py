"""Services that the library apprise knows, such as Telegram and ntfy: for what no other channel speaks to.

Apprise says of a message only whether it was sent: not why not, and not when to try again. It may follow redirects and
proxies as it likes, and its addresses are not checked.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from functools import cache
from typing import TYPE_CHECKING

import anyio

from pool_monitor.alerts.channels.secrets import SecretMissing, cleaned, value_of
from pool_monitor.alerts.channels.sender import SEND_S
from pool_monitor.alerts.channels.text import lines, subject
from pool_monitor.alerts.delivery.notification import SENT, Outcome
from pool_monitor.side_thread import SideThread

if TYPE_CHECKING:
    from pool_monitor.alerts.delivery.notification import Notification
    from pool_monitor.alerts.routing import AppriseChannel

NEEDS_EXTRA = "needs the extra: pip install 'pool-monitor[notify]'"
_THREAD = "alerts by apprise"
_LOGGERS = ("apprise", "requests", "urllib3", "urllib3.connectionpool")


class AppriseSender:
    """Sends each notification by apprise, in a thread of its own: apprise blocks."""

    kind = "apprise"

    def __init__(self, channel: AppriseChannel) -> None:
        self._channel = channel
        self._thread: SideThread | None = None
        self._sending = False
        try:
            self.where = _place(value_of(channel.url))
        except SecretMissing as error:
            self.where = str(error)

    async def send(self, notification: Notification) -> Outcome:
        """Send *notification* once."""
        if self._sending:
            return Outcome("retry", "apprise has not come back since the last attempt")
        try:
            url = value_of(self._channel.url)
        except SecretMissing as error:
            return Outcome("refused", str(error))
        self.where = _place(url)
        if self._thread is None:
            self._thread = SideThread(_THREAD)

        def work() -> Outcome:
            try:
                return _send(url, notification)
            finally:
                self._sending = False

        try:
            with anyio.fail_after(SEND_S):
                self._sending = True
                return await self._thread.run(work)
        except TimeoutError:
            return Outcome("retry", f"not done within {SEND_S:g} s", unsure=True)
        except ImportError:
            return Outcome("refused", NEEDS_EXTRA)
        except Exception as error:  # noqa: BLE001 - whatever a service of apprise raises costs this attempt alone
            self._sending = self._sending and not isinstance(error, RuntimeError)  # no thread was to be had
            return Outcome("retry", f"failed with {type(error).__name__}", unsure=True)

    async def aclose(self) -> None:
        """End the thread."""
        thread, self._thread = self._thread, None
        if thread is not None:
            await thread.close()


def _send(url: str, notification: Notification) -> Outcome:
    """Send it, and wait. Raises whatever apprise raises."""
    _keep_logs_quiet()
    import apprise

    asset = apprise.AppriseAsset(app_id="pool_monitor", app_desc="pool_monitor", app_url="", async_mode=False)
    if hasattr(asset, "http_redirects"):
        asset.http_redirects = False
    service = apprise.Apprise.instantiate(url, asset=asset, suppress_exceptions=True)
    if service is None:
        return Outcome("refused", "its URL is none that apprise knows")
    if "overflow=" not in url:
        service.overflow_mode = apprise.OverflowMode.TRUNCATE
    apobj = apprise.Apprise(asset=asset)
    apobj.add(service)
    kind = apprise.NotifyType.FAILURE if notification.status == "firing" else apprise.NotifyType.SUCCESS
    sent = apobj.notify(
        title=subject(notification),
        body="\n".join(lines(notification)),
        notify_type=kind,
        body_format=apprise.NotifyFormat.TEXT,
    )
    return SENT if sent else Outcome("retry", "apprise could not send it, and says no more")


def _place(url: str) -> str:
    """Return what people may see of *url*: which service, and 8 hexadecimal digits of its SHA-256."""
    scheme = cleaned(url.partition("://")[0])[:20]
    return f"{scheme}:// ({hashlib.sha256(url.encode(errors='surrogatepass')).hexdigest()[:8]})"


class _NotOurs(logging.Filter):
    """Drops what libraries log in our thread: it has URLs and bodies."""

    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002
        return not threading.current_thread().name.endswith(_THREAD)


@cache
def _keep_logs_quiet() -> None:
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_NotOurs())
