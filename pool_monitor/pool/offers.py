"""Which operations a pool offers, when its workers do not say the same. No I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

_MOST = 10_000  # operations of a pool


def offered(former: Mapping[str, str], offers: Sequence[Mapping[str, str]]) -> Mapping[str, str]:
    """All operations that the pool has offered before, and those of its workers, with their kinds: those that most of
    them say, or else those of before. *offers*: what each worker that is ready offers.

    So a worker that lies, or has loaded another version of the target, can neither take an operation from the others
    nor change its kind, not even while it is the only one. An operation that none has any more fails where it is
    called. At most 10,000 are kept, the oldest first.
    """
    if all(offer == former for offer in offers):
        return former
    votes = Counter(former.items())
    for offer in offers:
        votes.update(offer.items())
    found: dict[str, str] = {}
    room = _MOST - len(former)
    for (name, kind), _ in votes.most_common():  # those of before come first among equals
        if name not in found and (name in former or room > 0):
            found[name] = kind
            room -= name not in former
    return found
