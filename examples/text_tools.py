"""Plain text tools: an example of a target. It imports nothing from pool_monitor.

Every public method of the class is an operation. Each worker process has one instance, so a target loads what is costly
to load once per process, in ``__init__``.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

_WORD = re.compile(r"[^\W\d_]{3,}")
_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_COMMON = """
    about after all also and any are because been but can could did does each for from had has have her his how into
    its may more most must not one only other our out over she should some such than that the their them then there
    these they this those through two under use was were what when where which while who will with would you your
"""
_COMMON_WORDS = frozenset(_COMMON.split())


class TextTools:
    """Keywords, summaries, a slow generator, and a chat that remembers."""

    def keywords(self, text: str, limit: int = 5) -> list[list[Any]]:
        """Return the *limit* most frequent words with their counts, without common words."""
        return [[word, count] for word, count in self._words(text).most_common(limit)]

    def summary(self, text: str, sentences: int = 3) -> str:
        """Return the *sentences* sentences with most of the text's frequent words, in the order of the text."""
        weights = self._words(text)
        parts = [part.strip() for part in _SENTENCE.split(text) if part.strip()]

        def weight(index: int) -> float:
            words = _WORD.findall(parts[index].lower())
            return sum(weights[word] for word in words) / (len(words) + 5)

        best = sorted(sorted(range(len(parts)), key=weight, reverse=True)[:sentences])
        return " ".join(parts[index] for index in best)

    def generate(self, prompt: str, words: int = 40, pause: float = 0.02) -> Iterator[str]:
        """Yield a text word by word, *pause* seconds apart, as slowly as a language model does."""
        vocabulary = _WORD.findall(prompt) or ["silence"]
        for index in range(words):
            time.sleep(pause)
            word = vocabulary[(index * index + index) % len(vocabulary)]
            yield word + ("." if index == words - 1 else " ")

    def chat(self, text: str, session: Any = None) -> str:
        """Return an answer. Within a session, remember the number of turns and their topics."""
        if session is None:
            return f"You said {len(_WORD.findall(text))} words. I will not remember them."
        turn = session.data["turns"] = session.data.get("turns", 0) + 1
        topics = session.data.setdefault("topics", [])
        topics += [word for word, _ in self.keywords(text, 1) if word not in topics]
        del topics[:-8]
        return f"Turn {turn} with {session.id}; so far: {', '.join(topics) or 'nothing much'}."

    def _words(self, text: str) -> Counter[str]:
        return Counter(word for word in _WORD.findall(text.lower()) if word not in _COMMON_WORDS)
