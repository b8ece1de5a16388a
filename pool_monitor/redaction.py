"""Replaces secrets and personal data in text, before the text is kept or shown.

Messages and tracebacks of a target may contain what the target was given: passwords, keys, addresses of people.
`redact` replaces what it recognises by a placeholder such as ``<secret>`` or ``<email>``. A pattern alone finds too
much, so most rules also check what they found: the checksum of a card number or an IBAN, the header of a JWT, how
random a token is.

What is not recognised stays. A secret that looks like an ordinary word, in a sentence that does not name it, cannot be
found by any pattern. IP addresses, host names, UUIDs and hexadecimal digests stay on purpose: they lead from an error
to its cause.

The time is proportional to the length of the text, for any text. Each pattern begins at a place that is not inside a
word of its own characters, and its repetitions are possessive or bounded, so that no text is tried over and over. All
functions are pure.
"""

from __future__ import annotations

import base64
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import pairwise
from math import log2
from typing import NamedTuple

SECRET, EMAIL, CARD, IBAN, JWT, PRIVATE_KEY = "<secret>", "<email>", "<card>", "<iban>", "<jwt>", "<private-key>"
PLACEHOLDERS = frozenset({SECRET, EMAIL, CARD, IBAN, JWT, PRIVATE_KEY})
"""What `redact` puts in place of what it finds."""
READ_BEYOND = 512
"""Characters read beyond a limit: a secret that begins before the limit must be seen whole to be recognised."""


class RedactionRule(NamedTuple):
    """One kind of secret."""

    name: str
    hint: tuple[str, ...]
    """The rule applies only to text that contains one of these, in small or capital letters; empty: to any text."""
    pattern: re.Pattern[str]
    replace: Callable[[re.Match[str]], str]
    """What to put in place of a match: the match itself if a check shows that it is no secret."""


def redact(text: str, rules: Iterable[RedactionRule] | None = None) -> str:
    """Return *text* with a placeholder for each secret that *rules* (None: `RULES`) find.

    Redacting the result again changes nothing. The result may be longer than *text*, by at most eight times.
    """
    low = text.lower()  # not renewed: no rule puts in what another looks for
    for rule in RULES if rules is None else rules:
        for part in rule.hint:
            if part in low:
                break
        else:
            if rule.hint:
                continue
        text = rule.pattern.sub(rule.replace, text)
    return text


def redact_and_cut(text: str, limit: int) -> str:
    """Return the first *limit* characters of the redacted *text*. The time does not depend on the rest of *text*.

    No part of a secret is left at the end: where *text* is longer, the last word that was read is dropped.
    """
    if len(text) <= limit:
        return redact(text)[:limit]
    read = text[: limit + READ_BEYOND]
    words = max(read.rfind(blank, limit) for blank in " \n\t")
    return redact(read if words < 0 else read[:words])[:limit]


# -- checks -----------------------------------------------------------------------------------------------------------


def is_card_number(text: str) -> bool:
    """Whether the digits of *text* are a card number: 13 to 19 digits of a known range with a Luhn checksum."""
    digits = [int(char) for char in text if char in "0123456789"]
    if not 13 <= len(digits) <= 19 or digits[0] not in (2, 3, 4, 5, 6):
        return False
    doubled = (digit if at % 2 == 0 else digit * 2 - 9 * (digit > 4) for at, digit in enumerate(reversed(digits)))
    return sum(doubled) % 10 == 0 and len(set(digits)) > 1


def is_iban(text: str) -> bool:
    """Whether *text* is an IBAN: a country, two check digits and an account, whose remainder by 97 is 1 (ISO 13616)."""
    account = text.replace(" ", "")
    if not 15 <= len(account) <= 34:
        return False
    return int("".join(str(int(char, 36)) for char in account[4:] + account[:4])) % 97 == 1


def is_jwt(text: str) -> bool:
    """Whether *text* begins with the header of a JSON web token: base64 of a JSON object."""
    header = text.partition(".")[0]
    try:
        return isinstance(json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4))), dict)
    except (ValueError, RecursionError):
        return False


def looks_random(text: str) -> bool:
    """Whether *text* looks generated: it mixes cases and digits, changes between them often, and repeats little.

    Words and names change rarely, even in CamelCase with numbers. Hexadecimal digits are not random enough, because a
    digest or an id is more often useful than secret.
    """
    kinds = [_KINDS.get(char, 3) for char in text]
    if not {0, 1, 2} <= set(kinds):
        return False
    changes = sum(before != after for before, after in pairwise(kinds))
    return changes * 10 >= len(text) * 4 and _entropy(text) >= 3.5


_KINDS = {char: kind for kind, chars in enumerate(("0123456789", "abcdefghijklmnopqrstuvwxyz")) for char in chars}
_KINDS |= {char.upper(): 2 for char in "abcdefghijklmnopqrstuvwxyz"}


def _entropy(text: str) -> float:
    """Shannon's entropy of the characters of *text*, in bits for each."""
    return -sum(times / len(text) * log2(times / len(text)) for times in Counter(text).values())


# -- rules ------------------------------------------------------------------------------------------------------------


def _always(placeholder: str) -> Callable[[re.Match[str]], str]:
    return lambda _match: placeholder


def _if(check: Callable[[str], bool], placeholder: str) -> Callable[[re.Match[str]], str]:
    return lambda match: placeholder if check(match[0]) else match[0]


def _bearer(match: re.Match[str]) -> str:
    scheme, value = match["scheme"], match["value"]
    plain = value.isalpha() and (value.islower() or value.istitle()) and len(value) < 24  # "Basic authentication"
    return match[0] if plain else f"{scheme} {SECRET}"


def _keyed(match: re.Match[str]) -> str:
    """The match of a secret's name and its value, with the value replaced unless it is none."""
    name, value, quote = match["name"].lower(), match["value"] or match["bare"] or "", match["quote"] or ""
    bare = value.strip()
    if not bare or bare in PLACEHOLDERS or bare.lower() in _NO_SECRETS:
        return match[0]
    if name.endswith(_ABOUT) or (match["bare"] and match.string[match.end() : match.end() + 1] in _CALLED):
        return match[0]  # "token_type=bearer", and the source line "token = self.get_token(user)"
    if name.startswith("token") and (len(bare) < 6 or bare.isdigit()):  # "unexpected token: ;", "token=17"
        return match[0]
    before = match[0][: match.start("between") - match.start()]
    return f"{before}{match['between']}{quote}{SECRET}{quote if match['end'] else ''}"


def _said(match: re.Match[str]) -> str:
    """As `_keyed`, for a sentence: "password is abc" is about a value only if it looks like one."""
    bare = match["bare"]
    return match[0] if bare and bare.rstrip(".,;:!?").isalpha() else _keyed(match)


def _part(match: re.Match[str]) -> str:
    """The match with its group ``value`` replaced."""
    start, end = match.span("value")
    return f"{match[0][: start - match.start()]}{SECRET}{match[0][end - match.start() :]}"


_NO_SECRETS = frozenset(
    {
        "none", "null", "true", "false", "yes", "no", "undefined", "nil", "str", "int", "bytes", "...", "missing",
        "required", "empty", "invalid", "incorrect", "wrong", "bad", "expired", "expected", "unexpected", "unknown",
        "not", "must", "could", "cannot", "too", "field", "permission", "denied", "unauthorized", "forbidden", "failed",
    }
)  # fmt: skip
"""What is beside a secret's name in source code and in sentences."""
_ABOUT = ("type", "name", "file", "path", "url", "uri", "count", "length", "size", "ttl", "field")
"""Ends of names that are about a secret, and do not name one."""
_CALLED = frozenset("([")
_WORDS = (
    r"pass(?:word|phrase|code)s?|passwd|pwd|secrets?|token(?!s|ize)|api[_-]?key|a(?:ccess|ccount|uth)[_-]?key"
    r"|(?:private|signing|shared|encryption)[_-]?key|credentials?|(?<![a-z])psk(?![a-z])|sess(?:ion)?id"
    r"|csrf_?token|cookies(?==)|_auth(?=[\"']{0,1}[ \t]{0,1}[=:])|(?<![a-z])auth(?==\()"
)
"""Names of secrets. They may be the end of a longer name: DB_PASSWORD."""
_HINTS = ("pass", "pwd", "secret", "token", "key", "credential", "psk", "sess", "csrf", "cookie", "auth")
_NAME = rf"(?P<name>(?=[ACEJPSTacejpst_])(?i:{_WORDS})(?:[_-][A-Za-z0-9]{{1,16}}){{0,2}})"
_OPEN = r"(?P<quote>\\{0,7}+(?:\"{3}|'{3}|[\"'`]))"
# Up to the same quotation mark after as many backslashes: JSON within JSON has several before each. Without that mark,
# the text is cut, and all of the line is the value.
_QUOTED = _OPEN + r"(?P<value>(?:(?!(?P=quote))[^\\\n]|(?!(?P=quote))\\++.?){0,4096}+)(?P<end>(?P=quote)?+)"
_BETWEEN = (
    r"(?:\\{0,7}+[\"'`])?+\]?+[ \t]{0,3}"
    r"(?::[ \t]{0,2}[A-Za-z][\w.\[\]|]{0,40}+[ \t]{0,2}=|=>|[=!:]=|=|:(?!//)|%3[aAdD]|>(?=[^<>\n]{1,1024}</))[ \t]{0,3}"
)
_CALL = r"(?:[A-Za-z_][\w.]{0,40}+\()?+(?:[bBfFrRuU]{1,2}+)?+"
"""What may be before a string: SecretStr( and b."""

RULES: tuple[RedactionRule, ...] = (
    RedactionRule(
        "private key",
        ("private key",),
        re.compile(
            r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
            r"(?:.*?-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|.*)",
            re.DOTALL,
        ),
        _always(PRIVATE_KEY),
    ),
    RedactionRule(
        "password in a URL",
        ("://",),
        re.compile(
            r"(?<=://)(?!<secret>@)(?:[^\s/<>\"'`@]{1,256}+(?:@[^\s/<>\"'`@]{1,256}+){0,8}(?=@)"
            r"|[^\s/:<>\"'`@]{0,64}+:(?![0-9]{1,5}+/)[^\s<>\"'`@]{1,256}+(?=@))"  # a slash in the password
        ),
        _always(SECRET),
    ),
    RedactionRule(
        "header of a request",
        ("authorization", "cookie"),
        re.compile(
            r"(?i:(?<![a-z])(?:proxy-)?authorization|(?<![a-z])(?:set-)?cookie)"
            r"(?:\\{0,7}+[\"']\s{0,3}[:=,]|\s{0,3}[:=])\s{0,3}[bu]?+(?:\\{0,7}+[\"'])?+"
            r"(?P<value>(?!<secret>)[^\s\"'\\<>](?:[^\"'\\\n\r<>]|(?<==)\"[^\"\n]{0,512}+\"){0,4096}+)"
        ),
        _part,
    ),
    RedactionRule(
        "credentials of a scheme",
        ("bearer", "basic"),
        re.compile(r"(?<![A-Za-z0-9])(?P<scheme>(?i:bearer|basic))[ \t]{1,3}(?P<value>[A-Za-z0-9._~+/=-]{8,4096}+)"),
        _bearer,
    ),
    RedactionRule(
        "JSON web token",
        ("eyj",),
        re.compile(
            r"(?<![A-Za-z0-9_.-])eyJ[A-Za-z0-9_-]{5,2048}+\.[A-Za-z0-9_-]{2,4096}+(?:\.[A-Za-z0-9_-]{0,2048}+)?"
        ),
        _if(is_jwt, JWT),
    ),
    RedactionRule(
        "key of a known form",
        (
            "sk-",
            "k_live_",
            "k_test_",
            "ghp_",
            "gho_",
            "ghs_",
            "ghu_",
            "ghr_",
            "github_pat_",
            "glpat-",
            "xox",
            "xapp-",
            "akia",
            "asia",
            "aida",
            "aroa",
            "aiza",
            "ya29.",
            "hf_",
            "gsk_",
            "npm_",
            "dop_v1_",
            "pypi-",
            "sg.",
            "whsec_",
            "gocspx-",
            "1//0",
            "shpat_",
            "shpca_",
            "shppa_",
            "shpss_",
            "dapi",
            "hvs.",
            "hvb.",
            "hvr.",
            "age-secret",
            "lin_api_",
            "key-",
            "atatt3",
            "dckr_pat_",
            "nvapi-",
            "sntrys_",
            "nrak-",
            "pmak-",
            "figd_",
            ":aa",
        ),
        re.compile(
            r"(?<![A-Za-z0-9])(?:"
            r"sk-[A-Za-z0-9_-]{16,256}+|[srp]k_(?:live|test)_[A-Za-z0-9]{8,256}+|gh[opsur]_[A-Za-z0-9]{20,256}+"
            r"|github_pat_[A-Za-z0-9_]{20,256}+|glpat-[A-Za-z0-9_-]{16,256}+|x(?:ox[abeoprs]|app)-[A-Za-z0-9-]{8,256}+"
            r"|A(?:KIA|SIA|IDA|ROA)[A-Z0-9]{16}(?![A-Za-z0-9])|AIza[A-Za-z0-9_-]{30,64}+|ya29\.[A-Za-z0-9_-]{16,512}+"
            r"|(?:hf|gsk|npm|dop_v1|whsec|lin_api|dckr_pat|sntrys|figd)_[A-Za-z0-9_-]{20,512}+"
            r"|pypi-[A-Za-z0-9_-]{32,512}+|SG\.[A-Za-z0-9_-]{16,64}+\.[A-Za-z0-9_-]{16,64}+|1//0[A-Za-z0-9_-]{20,256}+"
            r"|(?:GOCSPX|nvapi|NRAK|PMAK)-[A-Za-z0-9_-]{16,256}+|AGE-SECRET-KEY-[A-Z0-9]{16,128}+"
            r"|(?:shp(?:at|ca|pa|ss)_|dapi|key-)[0-9a-f]{32}(?![A-Za-z0-9])|hv[sbr]\.[A-Za-z0-9_-]{16,512}+"
            r"|ATATT3[A-Za-z0-9_=-]{20,512}+|[0-9]{8,10}:AA[A-Za-z0-9_-]{33}(?![A-Za-z0-9]))"
        ),
        _always(SECRET),
    ),
    RedactionRule(
        "secret part of a URL",
        ("://",),
        re.compile(
            r"(?:hooks\.slack\.com/[a-z]{1,16}/|discord(?:app)?\.com/api/webhooks/[0-9]{1,24}/|api\.telegram\.org/bot)"
            r"(?P<value>(?!<secret>)[^\s\"'`<>\\]{8,512}+)"
        ),
        _part,
    ),
    RedactionRule(
        "secret parameter of a URL",
        ("?", "&"),
        re.compile(
            r"[?&](?i:sig|[a-z-]{0,16}signature|code|key|pass|auth)="
            r"(?P<value>(?!<secret>)(?=[0-9]{0,512}+[A-Za-z])[^\s\"'`<>&#\\]{8,1024}+)"
        ),
        _part,
    ),
    RedactionRule(
        "value of a secret's name",
        _HINTS,
        re.compile(
            _NAME + rf"(?P<between>{_BETWEEN}(?:{_CALL}(?=\\{{0,7}}+[\"'`]))?+)"
            rf"(?:{_QUOTED}|(?P<bare>[^\s\"'`,;&<>()\[\]{{}}\\]{{1,1024}}+|(?<==)[(\[{{][^\n)\]}}]{{1,1024}}+[)\]}}]?+"
            r"|[(\[{]{1,2}+(?=[bu]?\\{0,7}[\"'])[^\n)\]}]{1,1024}+[)\]}]?+))"
        ),
        _keyed,
    ),
    RedactionRule(
        "secret in a pair",
        ("(",),
        re.compile(
            r"(?<=\()[bu]?+\\{0,7}+[\"'][\w. -]{0,32}?" + _NAME + r"(?P<between>\\{0,7}+[\"'],[ \t]{0,3}[bu]?+)"
            rf"{_QUOTED}(?=\))(?P<bare>)"
        ),
        _keyed,
    ),
    RedactionRule(
        "secret in an option",
        ("--",),
        re.compile(
            r"(?<![\w-])--(?:[A-Za-z0-9]{1,16}+[_-]){0,3}?"
            + _NAME
            + r"(?P<between>\\{0,7}+[\"'],[ \t]{1,3}|[ \t]{1,3}(?!-))"
            rf"(?:{_QUOTED}|(?P<bare>[^\s\"'`<>]{{1,1024}}+))"
        ),
        _keyed,
    ),
    RedactionRule(
        "user and password of an option",
        ("-u ", "--user "),
        re.compile(r"(?<!\S)(?:-u|--user)[ \t][\"']?[^\s:\"'/<>]{1,64}+:(?P<value>(?!<secret>)[^\s\"']{1,256}+)"),
        _part,
    ),
    RedactionRule(
        "password in a sentence",
        ("password", "passphrase"),
        re.compile(
            r"(?P<name>(?i:password|passphrase))"
            r"(?P<between>(?:[ \t](?:is|was))?[ \t]{1,2}(?=\\{0,7}[\"'])|[ \t](?:is|was)[ \t])"
            rf"(?:{_QUOTED}|(?P<bare>[^\s\"'`<>]{{1,256}}+))"
        ),
        _said,
    ),
    RedactionRule(
        "e-mail address",
        ("@",),
        re.compile(r"(?<![\w.%+-])[\w.%+-]{1,64}+@(?:[\w-]{1,63}+\.){1,8}[^\W\d_]{2,24}(?![\w-])"),
        _always(EMAIL),
    ),
    RedactionRule(
        "card number",
        (),
        re.compile(r"(?<![\w.+-])[0-9](?:[ -]?[0-9]){12,18}+(?![\w-])", re.ASCII),
        _if(is_card_number, CARD),
    ),
    RedactionRule(
        "IBAN",
        (),
        re.compile(
            r"(?<![A-Za-z0-9])[A-Z]{2}[0-9]{2}"
            r"(?:[A-Z0-9]{11,30}+|(?: [A-Z0-9]{4}){2,7}+(?: [A-Z0-9]{1,3})?+)(?![A-Za-z0-9])"
        ),
        _if(is_iban, IBAN),
    ),
    RedactionRule(
        "random token",
        (),
        re.compile(r"(?<![A-Za-z0-9+/=_-])[A-Za-z0-9+/=_-]{32,4096}+"),
        _if(looks_random, SECRET),
    ),
)
"""The rules of `redact`, in the order in which they apply: what names a secret is before what only looks like one."""
