"""Which rows make which step, and how they are shared: the same for any number of ranks."""

from __future__ import annotations

import pytest

pytest.importorskip("numpy")

import numpy as np
from trainer_place import batches

from remote.trainer.data.order import Order
from remote.trainer.data.packing import pack
from remote.trainer.data.rows import Encoded, Report


class Rows:
    """A store of rows of given lengths, of which all but the first token are learned."""

    report = Report(0, 0, 0, 0, 0, 0)
    fingerprint = "rows"

    def __init__(self, lengths: list[tuple[int, ...]]) -> None:
        self.parts = len(lengths[0])
        self.lengths = np.asarray(lengths, dtype=np.int32)
        self.counts = self.lengths - 1

    def __len__(self) -> int:
        return len(self.lengths)

    def row(self, index: int) -> tuple[Encoded, ...]:
        ids = [np.arange(length, dtype=np.int32) for length in self.lengths[index]]
        return tuple(Encoded(each, each > 0) for each in ids)

    def source(self, index: int) -> str:
        return f"row {index}"


def _rows(count: int, *, parts: int = 1) -> Rows:
    return Rows([tuple(2 + (7 * row + part) % 11 for part in range(parts)) for row in range(count)])


def test_is_the_documented_stream() -> None:
    order = Order(_rows(10), batch=4, seed=3)
    expected = batches(10, 4, seed=3)
    for number in range(12):
        assert [row for (row,) in order.step(number).items] == next(expected)


def test_an_epoch_is_every_row_once_and_epochs_differ() -> None:
    order = Order(_rows(12), batch=4, seed=1)
    epochs = [
        [row for step in range(first, first + 3) for (row,) in order.step(step).items]
        for first in (0, 3)
    ]
    assert [sorted(epoch) for epoch in epochs] == [list(range(12))] * 2
    assert epochs[0] != epochs[1]


def test_knows_the_totals_of_the_global_batch() -> None:
    store = _rows(20, parts=2)
    step = Order(store, batch=6, seed=0).step(5)
    rows = [row for item in step.items for row in item]
    assert (step.rows, step.sequences) == (6, 12)
    assert step.tokens == store.lengths[rows].sum()
    assert step.learned == step.tokens - 12


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("micro", [1, 2, 4])
def test_shares_are_the_whole_step(ranks: int, micro: int) -> None:
    step = Order(_rows(50), batch=24, seed=0).step(1)
    shares = [step.share(rank, ranks, micro) for rank in range(ranks)]
    assert {len(share) for share in shares} == {24 // (ranks * micro)}
    assert all(len(rows) == micro for share in shares for rows in share)
    dealt = sorted(row for share in shares for rows in share for row in rows)
    assert dealt == sorted(row for (row,) in step.items)


def test_shares_are_about_equally_large() -> None:
    store = Rows([(1 + 10 * row,) for row in range(64)])
    step = Order(store, batch=64, seed=0).step(0)
    sizes = [int(store.lengths[rows].sum()) for rank in (0, 1) for rows in step.share(rank, 2, 8)]
    assert max(sizes) - min(sizes) <= 10 * 8


def test_what_cannot_be_shared_is_refused() -> None:
    with pytest.raises(ValueError, match="24 items are not 5 ranks x 1 x n"):
        Order(_rows(30), batch=24, seed=0).step(0).share(0, 5, 1)


def test_packs_hold_every_row_once_and_are_full() -> None:
    lengths = np.random.default_rng(0).integers(1, 60, 2000).astype(np.int32)
    packs = pack(lengths, size=64, seed=0)
    members = [packs[at] for at in range(len(packs))]
    assert sorted(row for rows in members for row in rows) == list(range(2000))
    sizes = [int(lengths[list(rows)].sum()) for rows in members]
    assert max(sizes) <= 64
    assert sum(sizes) / (64 * len(packs)) > 0.98
    again = pack(lengths, size=64, seed=0)
    assert [again[at] for at in range(len(again))] == members


def test_a_pack_travels_together() -> None:
    store = _rows(40)
    packs = pack(store.lengths[:, 0], size=24, seed=0)
    step = Order(store, batch=2, seed=0, packs=packs).step(3)
    assert step.rows > 2
    assert step.tokens <= 48
    (first,), (second,) = step.share(0, 2, 1), step.share(1, 2, 1)
    assert {tuple(first), tuple(second)} == set(step.items)
