"""What tokenised data looks like to everything that comes after tokenisation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

Kind = Literal["chat", "pairs", "distill"]
PARTS: dict[Kind, int] = {"chat": 1, "pairs": 2, "distill": 1}


@dataclass(frozen=True)
class Encoded:
    """One conversation as tokens.

    `learned[i]` says that token i is a target: its probability, given the tokens before it,
    counts. The first token has nothing before it and is never learned.
    """

    ids: npt.NDArray[np.int32]
    learned: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Request:
    """What shall be tokenised. `key` is the settings' key that errors name.

    chat: one part. pairs: chosen and rejected, of which the last answer is learned. distill: a
    prompt, ending where the assistant begins, and the teacher's answer, which is learned.
    """

    files: tuple[str, ...]
    kind: Kind
    max_length: int
    template: Path | None
    cache: Path
    limit: int | None = None
    key: str = "data"
    vocabulary: int | None = None


@dataclass(frozen=True)
class Report:
    """Rows read, kept, cut to the longest length, and dropped because nothing is learned;
    tokens and learned tokens of those kept."""

    rows: int
    used: int
    truncated: int
    masked: int
    tokens: int
    learned: int


class Store(Protocol):
    """Tokenised rows, 0 to len - 1 in the order of the files; dropped rows are not in it."""

    parts: int
    report: Report
    fingerprint: str  # of all that decides the tokens

    def __len__(self) -> int: ...

    @property
    def lengths(self) -> npt.NDArray[np.int32]:
        """Tokens, by row and part."""

    @property
    def counts(self) -> npt.NDArray[np.int32]:
        """Learned tokens, by row and part."""

    def row(self, index: int) -> tuple[Encoded, ...]: ...

    def source(self, index: int) -> str:
        """File and row, for messages."""
