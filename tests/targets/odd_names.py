"""A target whose operations have names that are anything but identifiers."""

from __future__ import annotations

NAMES = (
    "'; DROP TABLE blocks; --",
    '" OR 1=1 /*',
    "%' UNION SELECT * FROM names --",
    "$(touch pwned) `id` ; exit | cat && true",
    "../../etc/passwd",
    "{0.__class__.__mro__} {} {{name}} %s %n %(name)s ${name}",
    "=cmd|' /C calc'!A0",
    '<script>alert("1")</script> &amp; [link](javascript:1) | `code` **bold**',
    "\x1b[2J\x1b]0;title\x07 \x9b31m red",
    "line\nbreak\r\ttab",
    "nul\0inside",
    "\u202eright to left\u2066",
    "naïve 名前 🙂",
    "a,b;c\"d'e\\f",
    " ",
    "x" * 200,
)


class Odd:
    """Each operation gives back its name."""

    def fail(self, name: str) -> None:
        """Raise an error of a type that is called so."""
        raise type(name, (ValueError,), {})(name)


for _name in NAMES:
    setattr(Odd, _name, lambda _self, _name=_name: _name)
