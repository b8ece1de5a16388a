"""Secrets of receivers: where they come from, and how they are kept out of every text.

A secret is read anew for each attempt, so a file that is replaced is used at once. A whole URL counts as a secret,
because many receivers are addressed by a token in its path.
"""

from __future__ import annotations

import base64
import hashlib
import html
import os
import stat
import unicodedata
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus, unquote, unquote_plus, urlsplit

from pool_monitor.alerts.routing import Secret

FILE_MAX = 64 * 1024
"""Most bytes of a file with a secret."""
HIDDEN = "***"
_SHORTEST = 4
"""Shorter texts are not removed: they would be found everywhere, and tell nothing."""


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
    digest = hashlib.sha256(url.encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{bare_origin(url) or 'a URL'} ({digest})"


def seen(url: Secret) -> str:
    """Return what people may see of a URL before it is used: its `origin`, or where it will be read. Reads no file."""
    try:
        return f"the URL in {place_of(url)}" if url.file is not None else origin(value_of(url))
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


def cleaned(text: str) -> str:
    """Return foreign text in one line: control and invisible characters, among them those that change the direction of
    writing, are replaced by ``?``, and each run of blanks by one blank.
    """
    if not (text.isascii() and text.isprintable()):
        text = "".join(map(_harmless, unicodedata.normalize("NFC", text)))
    return " ".join(text.split())


def _harmless(char: str) -> str:
    if char.isspace():
        return " "
    return "?" if unicodedata.category(char)[0] == "C" else char


class Redactor:
    """Removes the secrets of one receiver from a text: each of *urls* with its parts, and each of *values*, as they
    are and as they look in JSON, HTML, URLs and base64.
    """

    def __init__(self, urls: Iterable[str] = (), values: Iterable[str] = ()) -> None:
        found = {
            form
            for text in (
                *(part for url in urls for part in _parts(url)),
                *(word for value in values for word in _words(value)),
            )
            for form in _forms(text)
            if len(form) >= _SHORTEST
        }
        self._texts = sorted(found, key=lambda text: (-len(text), text))
        self.longest = max(map(len, found), default=1)
        """The length of the longest text that is removed."""

    def __call__(self, text: str) -> str:
        """Return *text* without the secrets."""
        for secret in self._texts:
            text = text.replace(secret, HIDDEN)
        return text

    def __repr__(self) -> str:
        return f"Redactor({len(self._texts)} texts)"


def _parts(url: str) -> Iterator[str]:
    """The texts in *url* that may be secret: all but its scheme, host and port, and words that are in any URL."""
    yield url
    try:
        parts = urlsplit(url)
    except ValueError:
        return
    yield f"{parts.path}?{parts.query}" if parts.query else parts.path
    yield parts.netloc.rpartition("@")[0]
    yield from (parts.username or "", parts.password or "")
    for text in (parts.path, parts.query, parts.fragment):
        yield text
        for piece in text.replace("&", "/").replace(";", "/").replace("=", "/").split("/"):
            if piece.lower() not in _USUAL:
                yield piece


_USUAL = frozenset(
    {
        "alert",
        "alerts",
        "enqueue",
        "hook",
        "hooks",
        "http",
        "https",
        "notify",
        "service",
        "services",
        "webhook",
        "webhooks",
    }
)
"""Words in the path of a URL that are no secret alone: an answer has them in good sentences."""


def _words(value: str) -> Iterator[str]:
    """A value, and its words: ``Bearer abc`` has the secret ``abc``."""
    yield value
    words = value.split()
    if len(words) > 1:
        yield from (word for word in words if word.lower() not in ("bearer", "basic", "token", "digest", "apikey"))


def _forms(text: str) -> Iterator[str]:
    """*text*, and how it looks after the ways of writing it that an answer or an error may use."""
    import json

    for plain in {text, unquote(text), unquote_plus(text)}:
        yield plain
        yield quote(plain, safe="")
        yield quote(plain)
        yield quote_plus(plain)
        yield html.escape(plain)
        yield json.dumps(plain)[1:-1]
        yield json.dumps(plain, ensure_ascii=False)[1:-1]
        yield cleaned(plain)
        raw = plain.encode(errors="surrogatepass")
        if len(raw) >= _SHORTEST:
            yield raw.hex()
            for encoded in (base64.b64encode(raw), base64.urlsafe_b64encode(raw)):
                yield encoded.decode().rstrip("=")
