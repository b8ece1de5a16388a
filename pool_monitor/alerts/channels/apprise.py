"""Services that the library apprise knows, such as Telegram and ntfy: for what no other channel speaks to.

Apprise says of a message only whether it was sent: not why not, and not when to try again. It may follow redirects and
proxies as it likes, and its addresses are not checked.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pool_monitor.alerts.channels.secrets import SecretMissing, digest, seen, value_of
from pool_monitor.alerts.channels.text import lines, subject
from pool_monitor.alerts.channels.threaded import Threaded
from pool_monitor.alerts.channels.unlogged import unlogged
from pool_monitor.alerts.delivery.notification import SENT, Outcome

if TYPE_CHECKING:
    from pool_monitor.alerts.delivery.notification import Notification
    from pool_monitor.alerts.routing import AppriseChannel

NEEDS_EXTRA = "needs the extra: pip install 'pool-monitor[notify]'"
_SERVICE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,19}://")
_LOGGERS = ("apprise", "requests", "urllib3.connectionpool", "urllib3.util.retry")


class AppriseSender:
    """Sends each notification by apprise, in a thread of its own: apprise blocks."""

    kind = "apprise"

    def __init__(self, channel: AppriseChannel) -> None:
        self._channel = channel
        self._thread = Threaded("alerts by apprise")
        self.where = seen(channel.url, _shown)

    async def send(self, notification: Notification) -> Outcome:
        """Send *notification* once."""
        return await self._thread.run(lambda: self._attempt(notification))

    async def aclose(self) -> None:
        """End the thread."""
        await self._thread.aclose()

    def _attempt(self, notification: Notification) -> Outcome:
        try:
            url = value_of(self._channel.url)
            self.where = _shown(url)
            with unlogged(*_LOGGERS):
                return _send(url, notification)
        except SecretMissing as error:
            return Outcome("refused", str(error))
        except ImportError:
            return Outcome("refused", NEEDS_EXTRA)
        except Exception as error:  # noqa: BLE001 - whatever a service of apprise raises costs this attempt alone
            return Outcome("retry", f"failed with {type(error).__name__}", unsure=True)


def _send(url: str, notification: Notification) -> Outcome:
    """Send it, and wait. Raises whatever apprise raises."""
    import apprise

    asset = apprise.AppriseAsset(app_id="pool_monitor", app_desc="pool_monitor", app_url="", async_mode=False)
    asset.http_redirects = False
    # With a limit of its own it uses threads that the end of the program waits for.
    asset._service_timeout = 0.0
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


def _shown(url: str) -> str:
    """Return what people may see of *url*: which service, and 8 hexadecimal digits of its SHA-256."""
    service = _SERVICE.match(url)
    return f"{service[0] if service else 'a URL'} ({digest(url)})"
