"""Short rows put together into packs of at most so many tokens, by best fit, in bounded memory."""

from __future__ import annotations

from bisect import bisect_left, insort

import numpy as np
import numpy.typing as npt

WINDOW = 65536


class Packs:
    """Rows by pack, as two flat arrays: 10 million rows are 120 MB."""

    def __init__(self, rows: npt.NDArray[np.int32], bounds: npt.NDArray[np.int64]) -> None:
        self._rows, self._bounds = rows, bounds

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def __getitem__(self, index: int) -> tuple[int, ...]:
        first, end = self._bounds[index], self._bounds[index + 1]
        return tuple(self._rows[first:end].tolist())


def pack(lengths: npt.NDArray[np.int32], *, size: int, seed: int) -> Packs:
    """Put rows of these lengths, none longer than `size`, into packs: windows of shuffled rows,
    the longest first, each where least room would be left."""
    shuffled = np.random.Generator(np.random.PCG64(seed)).permutation(len(lengths))
    rows = np.empty(len(lengths), dtype=np.int32)
    bounds: list[int] = [0]
    for first in range(0, len(lengths), WINDOW):
        window = shuffled[first : first + WINDOW]
        for members in _best_fit(window, lengths[window], size):
            rows[bounds[-1] : bounds[-1] + len(members)] = members
            bounds.append(bounds[-1] + len(members))
    return Packs(rows, np.asarray(bounds, dtype=np.int64))


def _best_fit(
    window: npt.NDArray[np.int64], lengths: npt.NDArray[np.int32], size: int
) -> list[list[int]]:
    packs: list[list[int]] = []
    open_by_room: dict[int, list[int]] = {}
    rooms: list[int] = []  # the rooms of open packs, sorted, each once
    for at in np.argsort(-lengths.astype(np.int64), kind="stable").tolist():
        length = int(lengths[at])
        found = bisect_left(rooms, length)
        if found == len(rooms):
            index, left = len(packs), size - length
            packs.append([])
        else:
            room = rooms[found]
            index, left = open_by_room[room].pop(), room - length
            if not open_by_room[room]:
                del open_by_room[room], rooms[found]
        packs[index].append(int(window[at]))
        if left > 0:
            _open(open_by_room, rooms, left, index)
    return packs


def _open(open_by_room: dict[int, list[int]], rooms: list[int], room: int, index: int) -> None:
    if room not in open_by_room:
        open_by_room[room] = []
        insort(rooms, room)
    open_by_room[room].append(index)
