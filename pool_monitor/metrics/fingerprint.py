"""What makes two failures the same error: type, message without its variable parts, and the target's innermost frames.

Secrets and addresses of people are variable parts: they are replaced first (`pool_monitor.redaction`), so that a
fingerprint tells nothing of them and the same error of two users is one.

The functions are pure and take time in proportion to the length of their input, of which they read at most
`MESSAGE_READ` characters of a message and `TRACEBACK_READ` of a traceback.

Line numbers are not part of a fingerprint. An edit above a function moves its lines, and the same error would then
become a new one with every release. Two errors of one function mostly differ in type or message. Where what differs may
be a quoted value (``KeyError: 'a'``, ``no attribute 'a'``), or the message says nothing in words, the text of the
source line tells them apart: that of the target's innermost frame.

Secrets are replaced before the message is read, so two groups never differ in what nobody is shown.
"""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple

from pool_monitor.redaction import redact_and_cut

MESSAGE_READ = 1000
"""Most characters of a message that are looked at."""
MESSAGE_MAX = 200
"""Most characters of a message without its variable parts."""
TRACEBACK_READ = 64 * 1024
"""Most characters of a traceback that are looked at: its end, or the beginning if it is that of an exception group."""
FRAMES = 3
"""Frames that a fingerprint has at most."""
NUMBER, ID, TIME, PATH, URL, QUOTED, ADDRESS = "<n>", "<id>", "<time>", "<path>", "<url>", "<quoted>", "<address>"
DATA = "<data>"
"""A JSON object or a dict of such values."""
_FRAME_MAX = 120
_SOURCE_MAX = 200


class _Place(NamedTuple):
    """Where an exception was raised."""

    frames: tuple[str, ...]
    """The target's innermost frames, as ``file:function``."""
    source: str
    """The line of source of the innermost one; empty: it is not known."""


_NOWHERE = _Place((), "")


class Fingerprint(NamedTuple):
    """An error, as far as it is the same for many failures."""

    digest: str
    """16 hexadecimal digits: the same for equal values below, in every process."""
    message: str
    """The message with placeholders for its secrets and its variable parts."""
    frames: tuple[str, ...]
    """The target's innermost frames, as ``file:function``, innermost first."""


def fingerprint(error: str, message: str, traceback: str | None = None) -> Fingerprint:
    """Return the fingerprint of a failure of the type *error*."""
    return _fingerprint(error, message, _place(traceback) if traceback else _NOWHERE)


def _fingerprint(error: str, message: str, place: _Place) -> Fingerprint:
    plain, frames = normalised(redact_and_cut(message, MESSAGE_READ)), place.frames
    # A hexadecimal id may happen to have digits alone, and then looks like a number.
    same = _REPEATED.sub(r"\1", plain.replace(ID, NUMBER))
    source = (place.source,) if place.source and (QUOTED in plain or not _SAYS.search(plain)) else ()
    text = "\0".join((error, same, *frames, *source)).encode("utf-8", "backslashreplace")
    return Fingerprint(hashlib.blake2b(text, digest_size=8).hexdigest(), plain, frames)


# -- messages ---------------------------------------------------------------------------------------------------------


def normalised(message: str) -> str:
    """Return *message* with placeholders for numbers, ids, times, paths, URLs, quoted values and addresses.

    Lists of placeholders of one kind become one placeholder, because their length varies. Blanks and line ends become
    single spaces. The result has at most `MESSAGE_MAX` characters, and normalising it again changes nothing.
    """
    text = _normalised_once(message[:MESSAGE_READ])
    # A placeholder may only now show what is beside it, such as a quotation mark after a number.
    for _ in range(_ROUNDS):
        if not _MORE.search(text):
            break
        before, text = text, _normalised_once(text)
        if text == before:
            break
    return text


_ROUNDS = 8
_MORE = re.compile(r"[\d'\"`/\\]")
_SAYS = re.compile(r"(?<![\w<-])[^\W\d_]{2,}")
"""A word that is no placeholder."""
_VARIABLE = re.compile(
    # How a process ended is no variable part. Words are most of a message: they are skipped at once.
    r"(?P<keep><[a-z-]{1,16}>|(?<!\w)(?:signal|exit code|exit status|[Ee]rrno) -?[0-9]{1,3}(?![\w<])"
    # Neither is the status of an HTTP response, also as httpx quotes it.
    r"|(?<!\w)(?:status(?: code)?|HTTP(?:/[1-3](?:\.[01])?)?) [1-5][0-9]{2}(?![\w<])|'[1-5][0-9]{2} [A-Za-z -]{2,40}'"
    r"|(?:(?!(?:[0-9A-Fa-f]{8,40}+|signal|exit|[Ee]rrno|status|HTTP|Mon|Tue|Wed|Thu|Fri|Sat|Sun) )[^\W\d_]{1,40}+ )++)"
    r"|(?P<time>(?<![\w>])[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]{1,9})?)?"
    r"(?:Z|[+-][0-9]{2}:?[0-9]{2})?)?(?![\w<])|(?<![\w>])[0-9]{1,2}:[0-9]{2}:[0-9]{2}(?:[.,][0-9]{1,9})?(?![\w<:])"
    # "Mon, 30 Nov 2026 10:11:02 GMT" of mail and HTTP, and "Mon Nov 30 10:11:02 2026" of C
    r"|(?<![\w>])(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),? {1,2}"
    r"(?:[0-9]{1,2} [A-Z][a-z]{2}(?: [0-9]{4})?|[A-Z][a-z]{2} {1,2}[0-9]{1,2})"
    r"(?: [0-9]{2}:[0-9]{2}:[0-9]{2})?(?: [0-9]{4}| [A-Z]{3,4}| [+-][0-9]{4})?(?![\w<]))"
    r"|(?P<url>(?<![\w>])[A-Za-z][A-Za-z0-9+.-]{1,15}://[^\s'\"`<>]{1,1000}+)"
    r"|(?P<quoted>(?<![\w>])(?:[bBrRuU]{0,2}(?:'[^'\n]{0,400}+'|\"[^\"\n]{0,400}+\")|`[^`\n]{0,400}+`)(?![\w<])"
    # In languages without spaces, quotation marks stand beside letters.
    r"|[\u201c\u201e][^\u201c\u201d\n]{0,400}+[\u201c\u201d]|(?<!\w)[\u2018\u201a][^\u2018\u2019\n]{0,400}+[\u2018\u2019]"
    r"|\u00ab[^\u00bb\n]{0,400}+\u00bb|\u300c[^\u300d\n]{0,400}+\u300d|\u300e[^\u300f\n]{0,400}+\u300f)"
    r"|(?P<address>(?<![\w>])0[xX][0-9A-Fa-f]{1,32}+(?![\w<]))"
    # of a network: IPv6 and the hardware's
    r"|(?P<host>(?<![\w>:.])(?:[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{1,4}){5,7}+"
    r"|(?=[A-Fa-f:]{0,30}[0-9])(?:[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{1,4}){0,6}+)?::[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{1,4}){0,6}+)"
    r"(?![\w:<]))"
    r"|(?P<uuid>(?<![\w>-])[0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}(?![\w<-]))"
    r"|(?P<token>(?<![\w>+/=-])[A-Za-z0-9][A-Za-z0-9+/_=-]{19,999}+)"
    r"|(?P<path>(?<![\w>./\\])(?:~|\.{1,2})?(?:/[\w.@%+=~-]{1,255}+){1,64}+/?(?:\?[^\s'\"`<>]{1,400}+)?"
    r"|(?<![\w>])(?:[A-Za-z]:|\\)\\[^\s'\"`<>|]{1,400}+)"
    r"|(?P<relative>(?<![\w>./-])[\w-][\w.-]{0,99}+(?:/[\w.-]{1,99}+){1,20}+)"
    r"|(?P<number>(?<![\w>])[+\u2212-]?\d(?:[\d_]|[,'\u2019](?=\d{3})){0,60}+(?:\.\d{1,40}+)?(?:[eE][+-]?[0-9]{1,4}+)?"
    r"(?: ?(?:%|[kKMGT]?i?B|[num\u00b5]?s)(?![\w<])|(?![\w<])))"
    r"|(?P<word>\w{1,1000}+)"
)
_FIXED = {
    "time": TIME,
    "url": URL,
    "quoted": QUOTED,
    "address": ADDRESS,
    "uuid": ID,
    "host": NUMBER,
    "path": PATH,
    "number": NUMBER,
}
_REPEATED = re.compile(r"(<[a-z-]{1,16}>)(?:[ ,;:+/=.|-]{0,3}\1)+")
_OBJECT = re.compile(
    r"\{(?:[ ,:\[\]{}]|<(?:n|id|time|path|url|quoted|address|data)>"
    r"|(?<!\w)(?:true|false|null|True|False|None)(?!\w)){1,2000}+(?P<cut>$)?"
)
_POD = re.compile(r"<id>-[bcdfghjklmnpqrstvwxz2456789]{5}(?![\w-])")
"""The name of a pod of Kubernetes, which ends in five of the characters that make no words."""
_WORD = re.compile(r"\w+")
_DIGITS = re.compile(r"\d+")
_HEX = re.compile(r"[0-9A-Fa-f]{6,}")


def _normalised_once(text: str) -> str:
    text = " ".join(_VARIABLE.sub(_placeholder, text).split())
    text = _POD.sub(ID, _OBJECT.sub(_object, text))
    return _REPEATED.sub(r"\1", text)[:MESSAGE_MAX].rstrip()


def _object(match: re.Match[str]) -> str:
    """What stands for an object, which may be cut off at the end of the text. Empty braces stay."""
    whole, brace, after = match[0].rpartition("}")
    if not brace and match["cut"] is None:
        return match[0]
    found = whole + brace or after
    return DATA + (after if brace else "") if "<" in found else match[0]


def _placeholder(match: re.Match[str]) -> str:
    kind, found = match.lastgroup, match[0]
    assert kind is not None
    if kind in _FIXED:
        return _FIXED[kind]
    if kind == "word":
        return _plain_word(found)
    if kind == "relative":  # "input/output" is no path
        return PATH if _DIGITS.search(found) or "." in found.rpartition("/")[2] else found
    if kind == "token":
        return ID if _is_mixed(found) else _WORD.sub(lambda word: _plain_word(word[0]), found)
    return found


def _plain_word(word: str) -> str:
    """*word* without what varies in it: ``batch_17`` becomes ``batch_<n>``, ``15ms`` and ``15`` become ``<n>``."""
    if not (_DIGITS.search(word) or _HEX.fullmatch(word)):
        return word
    return "_".join(map(_plain_part, word.split("_")))


def _plain_part(part: str) -> str:
    numbers = _DIGITS.findall(part)
    if not part.isascii():  # it may be a sentence, in a language without spaces
        return _DIGITS.sub(NUMBER, part)
    if _HEX.fullmatch(part) and (numbers or len(part) >= 8):
        return NUMBER if part.isdecimal() else ID
    if not numbers:
        return part
    before, _, after = part.partition(numbers[0])
    if len(numbers) > 1 or (before and after):
        return ID
    return before + NUMBER if before else NUMBER + (after if len(after) > 3 else "")


def _is_mixed(token: str) -> bool:
    """Whether *token* has digits and letters of both cases, as a key or an encoded number has."""
    return bool(_DIGITS.search(token)) and not (token.islower() or token.isupper()) and "-" not in token.strip("-")


# -- tracebacks -------------------------------------------------------------------------------------------------------


class _Frame(NamedTuple):
    path: str
    function: str
    source: str
    """The line of source below it; empty: there is none."""


_FRAME = re.compile(
    r'File "(?P<path>[^"\n]{1,1000})", line [0-9]{1,10}, in (?P<function>[^\n]{1,300})$'
    r'(?:\n[ |]*+(?!File ")(?P<source>[^\n]{1,200}))?',
    re.MULTILINE,
)
_CHAIN = ("\nThe above exception was the direct cause of ", "\nDuring handling of the above exception, another ")
_FOREIGN = (
    "/lib/python3", "\\lib\\", "/site-packages/", "/dist-packages/", "\\site-packages\\", "/pool_monitor/pool/",
    "/pool_monitor/adapters/", "/pool_monitor/testing/", "/pool_monitor/emit.py",
)  # fmt: skip
"""What is in the path of code that is not the target's: the interpreter's library, installed packages, our own."""
_INLINED = frozenset({"<listcomp>", "<dictcomp>", "<setcomp>"})
"""Frames that newer interpreters do not have, so they are left out for all."""


def own_frames(traceback: str) -> tuple[str, ...]:
    """Return the innermost frames of the target's own code in *traceback*, the text that Python makes of an exception.

    At most `FRAMES`, innermost first, as ``file:function``. Of exceptions that caused each other, those of the last one
    count; of an exception group, those of the group itself. Frames of the interpreter's library, of installed packages
    and of the worker's loader are left out, unless there are no others. A function that calls itself counts once, so
    that the depth of a recursion does not matter. Empty for a text without frames, such as that of another language.
    """
    return _place(traceback).frames


def _place(traceback: str) -> _Place:
    """Return the frames of `own_frames`, with the source line of the innermost one."""
    frames = _frames(_last_exception(_read(traceback)))
    own = [frame for frame in frames if not _is_foreign(frame.path)] or frames
    found: list[str] = []
    for frame in reversed(own):
        name = f"{_file_name(frame.path)}:{frame.function}"[:_FRAME_MAX]
        if not found or found[-1] != name:
            found.append(name)
        if len(found) == FRAMES:
            break
    return _Place(tuple(found), own[-1].source if own else "")


def _read(traceback: str) -> str:
    if len(traceback) <= TRACEBACK_READ:
        return traceback
    # A group begins with its own frames; those of its members follow. Of other exceptions the end is innermost.
    return traceback[:TRACEBACK_READ] if traceback.lstrip().startswith("+ ") else traceback[-TRACEBACK_READ:]


def _last_exception(traceback: str) -> str:
    # The causes of members of a group do not begin at the left margin.
    return traceback[max(0, *map(traceback.rfind, _CHAIN)) :]


def _frames(text: str) -> list[_Frame]:
    """The frames in *text* that are indented as the first one: those of the exception, not of a group's members."""
    frames: list[_Frame] = []
    first = None
    for match in _FRAME.finditer(text):
        margin = text[text.rfind("\n", 0, match.start()) + 1 : match.start()]
        if first is None:
            first = margin
        if margin == first and not margin.strip(" |") and match["function"] not in _INLINED:
            below = match["source"] is not None and match.start("source") - match.end("function") - 1 > len(margin)
            source = match["source"].strip()[:_SOURCE_MAX] if below else ""
            frames.append(_Frame(match["path"], match["function"], source))
    return frames


def _is_foreign(path: str) -> bool:
    low = path.lower() if "\\" in path else path
    return low.startswith("<frozen ") or any(part in low for part in _FOREIGN)


def _file_name(path: str) -> str:
    """The last part of *path*, with its directory for ``__init__.py``: where a program is installed may vary."""
    parts = re.split(r"[/\\]", path)
    return "/".join(parts[-2:]) if parts[-1] in ("__init__.py", "__main__.py") else parts[-1]


class FingerprintCache:
    """Fingerprints of failures, most of which repeat. Holds at most `CACHE_BYTES`, and is used from one thread."""

    def __init__(self) -> None:
        self._places: dict[bytes, _Place] = {}
        self._fingerprints: dict[tuple[str, str, _Place], Fingerprint] = {}

    def of(self, error: str, message: str, traceback: str | None) -> Fingerprint:
        """As `fingerprint`."""
        place = self._place_of(message, traceback) if traceback else _NOWHERE
        if len(message) > _CACHED_MESSAGE:
            return _fingerprint(error, message, place)
        key = (error, message, place)
        found = self._fingerprints.get(key)
        if found is None:
            found = _fingerprint(error, message, place)
            if len(self._fingerprints) >= _CACHED:
                del self._fingerprints[next(iter(self._fingerprints))]
            self._fingerprints[key] = found
        return found

    def _place_of(self, message: str, traceback: str) -> _Place:
        # A traceback ends with the message, which may differ every time. What is before it seldom does.
        text = _read(traceback).rstrip()
        before = text[: -len(message)] if message and text.endswith(message) else text
        key = hashlib.blake2b(before.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        place = self._places.get(key)
        if place is None:
            place = _place(traceback)
            if len(self._places) >= _CACHED:
                del self._places[next(iter(self._places))]
            self._places[key] = place
        return place


_CACHED = 32
_CACHED_MESSAGE = 200
CACHE_BYTES = _CACHED * (4 * (2 * _CACHED_MESSAGE + MESSAGE_MAX + FRAMES * _FRAME_MAX + _SOURCE_MAX) + 1024)
"""Upper estimate of the memory of a `FingerprintCache`."""
