"""The signature of Standard Webhooks (https://www.standardwebhooks.com), by which a receiver knows who sent a message.

The signed content is ``ID.TIMESTAMP.BODY``, with HMAC-SHA256. A receiver refuses what is too old, so the timestamp is
that of the attempt; the id stays, and tells a message that comes twice.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping

_PREFIX = "whsec_"


def signed(body: bytes, id: str, keys: str, at: float) -> Mapping[str, str]:  # noqa: A002 - the name in the standard
    """Return the headers of a message with these bytes that is sent *at* seconds since the epoch.

    *keys* are separated by blanks: while a key is replaced, the old and the new one both sign. One that begins with
    ``whsec_`` is base64, and any other is taken as it is. Without keys there is no signature.
    """
    timestamp = str(int(at))
    content = b".".join((id.encode(), timestamp.encode(), body))
    headers = {"webhook-id": id, "webhook-timestamp": timestamp}
    if signatures := [f"v1,{_signature(key, content)}" for key in keys.split()]:
        headers["webhook-signature"] = " ".join(signatures)
    return headers


def _signature(key: str, content: bytes) -> str:
    return base64.b64encode(hmac.new(_bytes_of(key), content, hashlib.sha256).digest()).decode()


def _bytes_of(key: str) -> bytes:
    if key.startswith(_PREFIX):
        encoded = key.removeprefix(_PREFIX).rstrip("=")
        try:
            return base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
        except binascii.Error:
            pass  # not what it says: some senders put the prefix before any text
    return key.encode()
