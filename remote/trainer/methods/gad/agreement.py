"""How much of an answer is the teacher's: a diagnosis, never a reward."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int32]


def agreement(one: Ids, other: Ids) -> float:
    """ROUGE-L over tokens: the F1 of the longest common subsequence, 0 to 1."""
    return 2 * common(one, other) / (len(one) + len(other))


def common(one: Ids, other: Ids) -> int:
    """The length of the longest common subsequence."""
    best = np.zeros(len(other) + 1, dtype=np.int64)
    for token in one:
        longer = np.where(other == token, best[:-1] + 1, best[1:])
        best[1:] = np.maximum.accumulate(np.maximum(longer, best[1:]))
    return int(best[-1])
