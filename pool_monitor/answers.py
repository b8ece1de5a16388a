"""What is kept of the answers of servers outside: little, cleaned, and without the secrets that were sent to them.

Such an answer ends up in logs, in Snapshots and on screens. It may repeat all of the request.
"""

from __future__ import annotations

import base64
import html
import json
import re
import string
import unicodedata
from collections.abc import Iterable, Iterator
from datetime import UTC
from email.utils import parsedate_to_datetime
from urllib.parse import quote, quote_plus, unquote, unquote_plus, urlsplit

HIDDEN = "***"
"""What stands in place of a secret."""
RETRY_AFTER_MAX = 3600.0
"""Longest pause in seconds that a server can ask for."""
_SHORTEST = 4
"""Shorter texts are not removed: they would be found everywhere, and tell nothing."""


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
    are and as they look in JSON, HTML, URLs and base64. Capital letters of ASCII count as small ones: the host of a URL
    is written small, and hexadecimal digits either way.
    """

    def __init__(self, urls: Iterable[str] = (), values: Iterable[str] = ()) -> None:
        found = {
            form
            for text in (
                *(part for url in urls for part in _parts(url)),
                *(word for value in values for word in _words(value)),
            )
            for form in map(_small, _forms(text))
            if len(form) >= _SHORTEST
        }
        self._texts = sorted(found, key=lambda text: (-len(text), text))
        self.longest = max(map(len, found), default=1)
        """The length of the longest text that is removed."""

    def __call__(self, text: str) -> str:
        """Return *text* without the secrets."""
        small = _small(text)
        for secret in self._texts:
            if secret in small:
                kept, pieces, start = small.split(secret), list[str](), 0
                for piece in kept:
                    pieces.append(text[start : start + len(piece)])
                    start += len(piece) + len(secret)
                text, small = HIDDEN.join(pieces), HIDDEN.join(kept)
        return text

    def __repr__(self) -> str:
        return f"Redactor({len(self._texts)} texts)"


_SMALL = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def _small(text: str) -> str:
    """Return *text* with small letters, of the same length: ``str.lower`` may change that."""
    return text.translate(_SMALL)


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


def excerpt(content: bytes, hide: Redactor, *, whole: bool = False) -> str:
    """Return the text of the beginning of an answer, cleaned and without secrets. *whole*: it is all of the answer."""
    text = hide(content.decode(errors="replace"))
    if not whole:
        text = text[: -hide.longest]  # the end may have the beginning of a secret, which nobody recognises
    return hide(cleaned(text))


def seconds_wanted(retry_after: str | None, now: float) -> float | None:
    """Return the seconds that ``Retry-After`` asks for, which is a number or a date; None: it is missing or invalid.

    Only whole numbers are in the standard, but some servers ask for ``1.5``.
    """
    if retry_after is None:
        return None
    try:
        seconds = float(retry_after) if _NUMBER.fullmatch(retry_after.strip()) else _date(retry_after) - now
    except (ValueError, OverflowError):
        return None
    return min(max(seconds, 0.0), RETRY_AFTER_MAX)


_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def _date(text: str) -> float:
    when = parsedate_to_datetime(text)
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
