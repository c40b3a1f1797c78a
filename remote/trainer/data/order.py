"""Which rows make which step: a pure function of seed and step, so there is no position to save.

The epochs' permutations follow each other in one stream, and step n takes the next `batch` items
of it. No number of ranks and no split into micro batches changes what a step learns from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from remote.trainer.data.packing import Packs
from remote.trainer.data.rows import Store

Item = tuple[int, ...]


@dataclass(frozen=True)
class StepRows:
    """The global batch of one step, and its totals, which every rank so knows without asking.

    An item is the rows that travel together: one row, or a pack. `tokens` counts all,
    `learned` the targets.
    """

    items: tuple[Item, ...]
    sizes: tuple[int, ...]
    rows: int
    sequences: int
    tokens: int
    learned: int

    def share(self, rank: int, ranks: int, micro: int) -> list[list[int]]:
        """The micro batches of one rank, as row numbers; as many on each rank.

        Items are dealt by size, to and fro, so that micro batches are about equally large.
        """
        slots = len(self.items) // micro
        if slots * micro != len(self.items) or slots % ranks:
            raise ValueError(f"{len(self.items)} items are not {ranks} ranks x {micro} x n")
        by_size = sorted(range(len(self.items)), key=lambda at: (-self.sizes[at], at))
        dealt: list[list[int]] = [[] for _ in range(slots)]
        for turn in range(micro):
            hand = by_size[turn * slots : (turn + 1) * slots]
            for slot, at in enumerate(hand if turn % 2 == 0 else reversed(hand)):
                dealt[slot].extend(self.items[at])
        return dealt[rank::ranks]


class Order:
    """The steps over a store: `batch` items each, reshuffled every epoch."""

    def __init__(self, store: Store, *, batch: int, seed: int, packs: Packs | None = None) -> None:
        self._store, self.batch, self._seed, self._packs = store, batch, seed, packs
        self.items = len(packs) if packs is not None else len(store)
        self._epoch = lru_cache(maxsize=2)(self._permutation)

    @property
    def steps_per_epoch(self) -> float:
        return self.items / self.batch

    def step(self, number: int) -> StepRows:
        """Step `number`, counted from 0."""
        first = number * self.batch
        items = tuple(self._item(at) for at in range(first, first + self.batch))
        tokens = [self._tokens(item) for item in items]
        rows = [row for item in items for row in item]
        return StepRows(
            items=items,
            sizes=tuple(tokens),
            rows=len(rows),
            sequences=len(rows) * self._store.parts,
            tokens=sum(tokens),
            learned=int(self._store.counts[rows].sum(dtype=np.int64)),
        )

    def _item(self, at: int) -> Item:
        epoch, place = divmod(at, self.items)
        index = int(self._epoch(epoch)[place])
        return self._packs[index] if self._packs is not None else (index,)

    def _permutation(self, epoch: int) -> npt.NDArray[np.int64]:
        return np.random.Generator(np.random.PCG64([self._seed, epoch])).permutation(self.items)

    def _tokens(self, item: Sequence[int]) -> int:
        return int(self._store.lengths[list(item)].sum(dtype=np.int64))
