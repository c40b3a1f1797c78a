"""A micro batch: sequences laid end to end without padding, or padded for models that need it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import torch
from torch import Tensor

from remote.trainer.data.rows import Encoded


class Layout(Enum):
    """FLAT is one row of all sequences end to end; PADDED is one row a sequence."""

    FLAT = "flat"
    PADDED = "padded"


@dataclass(frozen=True)
class Batch:
    """Positions are flat: into the tokens of all rows, one after the other.

    `targets` are the positions whose next token is learned, sorted by sequence, `labels` those
    next tokens, `counts` the targets of each sequence, `ends` each sequence's last position.
    """

    ids: Tensor
    position_ids: Tensor
    attention_mask: Tensor | None
    cu_seqlens: Tensor
    lengths: tuple[int, ...]
    targets: Tensor
    labels: Tensor
    counts: Tensor
    ends: Tensor

    @property
    def sequences(self) -> int:
        return len(self.lengths)


def collate(
    sequences: Sequence[Encoded], *, layout: Layout, device: torch.device | str = "cpu"
) -> Batch:
    """Lay out sequences in this order. A padded position is never a target."""
    lengths = [len(each.ids) for each in sequences]
    width = max(lengths)
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    # Where each sequence begins in the flat positions of its layout.
    begins = bounds[:-1] if layout is Layout.FLAT else np.arange(len(lengths)) * width
    ids, positions, mask = _tokens(sequences, begins, width, layout)
    targets = [np.flatnonzero(each.learned) for each in sequences]
    labels = [each.ids[at] for each, at in zip(sequences, targets, strict=True)]
    before = [at - 1 + begin for at, begin in zip(targets, begins, strict=True)]

    def to(array: np.ndarray, dtype: torch.dtype = torch.long) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device, dtype, non_blocking=True)

    return Batch(
        ids=to(ids),
        position_ids=to(positions),
        attention_mask=to(mask) if mask is not None else None,
        cu_seqlens=to(bounds, torch.int32),
        lengths=tuple(lengths),
        targets=to(np.concatenate(before)),
        labels=to(np.concatenate(labels)),
        counts=to(np.asarray([len(at) for at in targets])),
        ends=to(begins + np.asarray(lengths) - 1),
    )


def _tokens(
    sequences: Sequence[Encoded], begins: np.ndarray, width: int, layout: Layout
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    if layout is Layout.FLAT:
        ids = np.concatenate([each.ids for each in sequences])
        positions = np.concatenate([np.arange(len(each.ids)) for each in sequences])
        return ids[None], positions[None], None
    ids = np.zeros(len(sequences) * width, dtype=np.int64)
    mask = np.zeros_like(ids)
    for begin, each in zip(begins, sequences, strict=True):
        ids[begin : begin + len(each.ids)] = each.ids
        mask[begin : begin + len(each.ids)] = 1
    shape = (len(sequences), width)
    positions = np.tile(np.arange(width), (len(sequences), 1))
    return ids.reshape(shape), positions, mask.reshape(shape)
