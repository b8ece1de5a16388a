"""Secrets of receivers: where they come from, and how they are kept out of every text.

A secret is read anew for each attempt, so a file that is replaced is used at once. A whole URL counts as a secret,
because many receivers are addressed by a token in its path.
"""

from __future__ import annotations

import base64
import hashlib
import html
import os
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
    """Return the value of *secret*, without line ends and blanks around it. Reads a file where it is in one.

    Raises SecretMissing.
    """
    if secret.variable is not None:
        value = os.environ.get(secret.variable)
        if value is None or not value.strip():
            raise SecretMissing(
                f"the environment variable {secret.variable} is {'not set' if value is None else 'empty'}"
            )
        return value.strip()
    return secret.value or ""


def origin(url: str) -> str:
    """Return what people may see of *url*: its scheme, host and port, and 8 hexadecimal digits of its SHA-256."""
    digest = hashlib.sha256(url.encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{bare_origin(url) or 'a URL'} ({digest})"


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
