"""Which operations a pool offers, when its workers do not say the same. No I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

_MOST = 10_000  # operations of a pool


def offered(former: Mapping[str, str], offers: Sequence[Mapping[str, str]]) -> Mapping[str, str]:
    """All operations that the pool has offered before, as it did, and what else its workers have, each of the kind that
    most of them say. *offers*: what each worker that is ready offers.

    So a worker that lies, or has loaded another version of the target, can neither take an operation from the others
    nor change its kind, not even where all that are ready do so. An operation that none has any more fails where it is
    called. At most 10,000 are kept, the oldest first.
    """
    if all(offer == former for offer in offers):
        return former
    votes = Counter(item for offer in offers for item in offer.items())
    found = dict(former)
    for (name, kind), _ in votes.most_common():
        if name not in found and len(found) < _MOST:
            found[name] = kind
    return found
