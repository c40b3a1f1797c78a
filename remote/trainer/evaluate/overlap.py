"""ROUGE-L: how much of a reference comes back in the same order. A diagnosis, never a reward."""

from __future__ import annotations

import re
from collections.abc import Sequence

_WORD = re.compile(r"[^\W_]+")


def rouge_l(said: str, reference: str) -> float:
    """The F1 of the longest common subsequence of words, case ignored; 0 when one has none."""
    one, other = (_WORD.findall(text.lower()) for text in (said, reference))
    common = longest_common(one, other)
    return 2 * common / (len(one) + len(other)) if common else 0.0


def longest_common(one: Sequence[str], other: Sequence[str]) -> int:
    """The length of the longest common subsequence, a machine word of `one` at a time (Hyyrö,
    "Bit-parallel LCS-length computation revisited", 2004)."""
    places: dict[str, int] = {}
    for at, word in enumerate(one):
        places[word] = places.get(word, 0) | 1 << at
    all_ones = (1 << len(one)) - 1
    row = all_ones
    for word in other:
        hits = row & places.get(word, 0)
        row = ((row + hits) | (row - hits)) & all_ones
    return len(one) - row.bit_count()
