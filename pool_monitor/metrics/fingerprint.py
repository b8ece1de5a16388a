"""What makes two failures the same error: type, message without its variable parts, and the target's innermost frames.

Secrets and addresses of people are variable parts: they are replaced first (`pool_monitor.redaction`), so that a
fingerprint tells nothing of them and the same error of two users is one.

The functions are pure and take time in proportion to the length of their input, of which they read at most
`MESSAGE_READ` characters of a message and `TRACEBACK_READ` of a traceback.

Line numbers are not part of a fingerprint. An edit above a function moves its lines, and the same error would then
become a new one with every release; two errors of one function differ in type or message.
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
_FRAME_MAX = 120


class Fingerprint(NamedTuple):
    """An error, as far as it is the same for many failures."""

    digest: str
    """16 hexadecimal digits: the same for equal values below, in every process."""
    message: str
    """The message with placeholders for its variable parts."""
    frames: tuple[str, ...]
    """The target's innermost frames, as ``file:function``, innermost first."""


def fingerprint(error: str, message: str, traceback: str | None = None) -> Fingerprint:
    """Return the fingerprint of a failure of the type *error*."""
    return _fingerprint(error, message, own_frames(traceback) if traceback else ())


def _fingerprint(error: str, message: str, frames: tuple[str, ...]) -> Fingerprint:
    plain = normalised(redact_and_cut(message, MESSAGE_READ))
    # A hexadecimal id may happen to have digits alone, and then looks like a number.
    same = _REPEATED.sub(r"\1", plain.replace(ID, NUMBER))
    text = "\0".join((error, same, *frames)).encode("utf-8", "backslashreplace")
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
_MORE = re.compile(r"[0-9'\"`/\\]")
_VARIABLE = re.compile(
    # How a process ended is no variable part. Words are most of a message: they are skipped at once.
    r"(?P<keep><[a-z-]{1,16}>|(?:signal|exit code|exit status) -?[0-9]{1,3}(?![\w<])"
    r"|(?:(?!(?:[0-9A-Fa-f]{8,40}+|signal|exit) )[^\W\d_]{1,40}+ )++)"
    r"|(?P<time>(?<![\w>])[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]{1,9})?)?"
    r"(?:Z|[+-][0-9]{2}:?[0-9]{2})?)?(?![\w<])|(?<![\w>])[0-9]{1,2}:[0-9]{2}:[0-9]{2}(?:[.,][0-9]{1,9})?(?![\w<]))"
    r"|(?P<url>(?<![\w>])[A-Za-z][A-Za-z0-9+.-]{1,15}://[^\s'\"`<>]{1,1000}+)"
    r"|(?P<quoted>(?<![\w>])(?:'[^'\n]{0,400}+'|\"[^\"\n]{0,400}+\"|`[^`\n]{0,400}+`)(?![\w<]))"
    r"|(?P<address>(?<![\w>])0[xX][0-9A-Fa-f]{1,32}+(?![\w<]))"
    r"|(?P<uuid>(?<![\w>-])[0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}(?![\w<-]))"
    r"|(?P<token>(?<![\w>+/=-])[A-Za-z0-9][A-Za-z0-9+/_=-]{19,999}+)"
    r"|(?P<path>(?<![\w>./\\])(?:~|\.{1,2})?(?:/[\w.@%+=~-]{1,255}+){1,64}+/?|(?<![\w>])[A-Za-z]:\\[^\s'\"`<>|]{1,400}+)"
    r"|(?P<relative>(?<![\w>./-])[\w-][\w.-]{0,99}+(?:/[\w.-]{1,99}+){1,20}+)"
    r"|(?P<number>(?<![\w>])[+-]?[0-9](?:[0-9_]|,(?=[0-9]{3})){0,60}+(?:\.[0-9]{1,40}+)?(?:[eE][+-]?[0-9]{1,4}+)?"
    r"(?: ?(?:%|[kKMGT]?i?B|[num\u00b5]?s)(?![\w<])|(?![\w<])))"
    r"|(?P<word>\w{1,1000}+)"
)
_FIXED = {"time": TIME, "url": URL, "quoted": QUOTED, "address": ADDRESS, "uuid": ID, "path": PATH, "number": NUMBER}
_REPEATED = re.compile(r"(<[a-z-]{1,16}>)(?:[ ,;:+/=.|-]{0,3}\1)+")
_WORD = re.compile(r"\w+")
_DIGITS = re.compile(r"[0-9]+")
_HEX = re.compile(r"[0-9A-Fa-f]{6,}")


def _normalised_once(text: str) -> str:
    text = " ".join(_VARIABLE.sub(_placeholder, text).split())
    return _REPEATED.sub(r"\1", text)[:MESSAGE_MAX].rstrip()


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


_FRAME = re.compile(r'File "(?P<path>[^"\n]{1,1000})", line [0-9]{1,10}, in (?P<function>[^\n]{1,300})$', re.MULTILINE)
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
    frames = _frames(_last_exception(_read(traceback)))
    own = [frame for frame in frames if not _is_foreign(frame.path)] or frames
    found: list[str] = []
    for frame in reversed(own):
        name = f"{_file_name(frame.path)}:{frame.function}"[:_FRAME_MAX]
        if not found or found[-1] != name:
            found.append(name)
        if len(found) == FRAMES:
            break
    return tuple(found)


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
            frames.append(_Frame(match["path"], match["function"]))
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
        self._frames: dict[bytes, tuple[str, ...]] = {}
        self._fingerprints: dict[tuple[str, str, tuple[str, ...]], Fingerprint] = {}

    def of(self, error: str, message: str, traceback: str | None) -> Fingerprint:
        """As `fingerprint`."""
        frames = self._frames_of(message, traceback) if traceback else ()
        if len(message) > _CACHED_MESSAGE:
            return _fingerprint(error, message, frames)
        key = (error, message, frames)
        found = self._fingerprints.get(key)
        if found is None:
            found = _fingerprint(error, message, frames)
            if len(self._fingerprints) >= _CACHED:
                del self._fingerprints[next(iter(self._fingerprints))]
            self._fingerprints[key] = found
        return found

    def _frames_of(self, message: str, traceback: str) -> tuple[str, ...]:
        # A traceback ends with the message, which may differ every time. What is before it seldom does.
        text = _read(traceback).rstrip()
        before = text[: -len(message)] if message and text.endswith(message) else text
        key = hashlib.blake2b(before.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        frames = self._frames.get(key)
        if frames is None:
            frames = own_frames(traceback)
            if len(self._frames) >= _CACHED:
                del self._frames[next(iter(self._frames))]
            self._frames[key] = frames
        return frames


_CACHED = 32
_CACHED_MESSAGE = 200
CACHE_BYTES = _CACHED * (4 * (2 * _CACHED_MESSAGE + MESSAGE_MAX + FRAMES * _FRAME_MAX) + 1024)
"""Upper estimate of the memory of a `FingerprintCache`."""
