"""Secrets of receivers: where they come from, and what people may see of them.

A secret is read anew for each attempt, so a file that is replaced is used at once. A whole URL counts as a secret,
because many receivers are addressed by a token in its path.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from urllib.parse import urlsplit

from pool_monitor.alerts.routing import Secret
from pool_monitor.answers import cleaned

FILE_MAX = 64 * 1024
"""Most bytes of a file with a secret."""


class SecretMissing(Exception):
    """A secret cannot be had. The text says why, and has nothing of it."""


def value_of(secret: Secret) -> str:
    """Return the value of *secret*, without blanks and line ends around it. It may be in a file, which is read: call
    it in a thread. Raises SecretMissing.
    """
    if secret.variable is not None:
        value = os.environ.get(secret.variable)
        if value is None:
            raise SecretMissing(f"{place_of(secret)} is not set")
    else:
        value = (secret.value or "") if secret.file is None else _read(secret.file)
    if not value.strip():
        raise SecretMissing(f"{place_of(secret)} is empty")
    return value.strip()


def place_of(secret: Secret) -> str:
    """Return where *secret* is, in words."""
    if secret.variable is not None:
        return f"the environment variable {secret.variable}"
    return "the value" if secret.file is None else f"the file {cleaned(secret.file)}"


def _read(path: str) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO without a writer would block
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise SecretMissing(f"the file {cleaned(path)} is no regular file")
            content = os.read(descriptor, FILE_MAX + 1)
        finally:
            os.close(descriptor)
        if len(content) > FILE_MAX:
            raise SecretMissing(f"the file {cleaned(path)} has more than {FILE_MAX} bytes")
        return content.decode()
    except UnicodeDecodeError:
        raise SecretMissing(f"the file {cleaned(path)} is not text") from None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "its name is not valid"
        raise SecretMissing(f"the file {cleaned(path)} cannot be read: {why}") from None


def origin(url: str) -> str:
    """Return what people may see of *url*: its scheme, host and port, and 8 hexadecimal digits of its SHA-256."""
    return f"{bare_origin(url) or 'a URL'} ({digest(url)})"


def digest(text: str) -> str:
    """Return 8 hexadecimal digits of the SHA-256 of *text*, by which people tell it from others that look alike."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:8]


def seen(url: Secret, shown: Callable[[str], str] = origin) -> str:
    """Return what people may see of a URL before it is used: what *shown* returns for it, or where it will be read.
    Reads no file.
    """
    try:
        return f"the URL in {place_of(url)}" if url.file is not None else shown(value_of(url))
    except SecretMissing as error:
        return str(error)


def bare_origin(url: str) -> str:
    """Return the scheme, host and port of *url*; empty: it has none."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return ""
    if not host or parts.scheme not in ("http", "https"):
        return ""
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{cleaned(host)}{'' if port is None else f':{port}'}"
