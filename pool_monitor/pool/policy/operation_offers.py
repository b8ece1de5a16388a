"""Decides which operations a pool offers when its workers disagree. No I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

_OPERATIONS_MAX = 10_000  # of a pool


def merge_offers(known: Mapping[str, str], offers: Sequence[Mapping[str, str]]) -> Mapping[str, str]:
    """Return the operations of *known*, unchanged, together with new operations in *offers*. *known* is what the pool
    has offered so far; *offers* holds what each ready worker offers. If workers disagree on the kind of a new
    operation, the majority decides.

    So a worker that lies, or has loaded another version of the target, cannot remove a known operation or change its
    kind, not even if all ready workers agree. A call of an operation that no worker has any more fails. At most 10,000
    operations are kept; further new ones are ignored.
    """
    if all(offer == known for offer in offers):
        return known
    votes = Counter(item for offer in offers for item in offer.items())
    found = dict(known)
    for (name, kind), _ in votes.most_common():
        if name not in found and len(found) < _OPERATIONS_MAX:
            found[name] = kind
    return found
