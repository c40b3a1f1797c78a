"""The figures that a transfer goes by, in one place; each was measured or follows from one that was
(`benchmarks/transfer.py`)."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True)
class Tuning:
    """`block_bytes` is read, hashed and written at once; `piece_bytes` is asked for at once;
    `depth_bytes` is how much is asked for and not here yet on each connection, at the least: as
    much more as comes within two round trips keeps it from ever waiting. What is on its way when
    a connection breaks comes twice, so that it is no more than that.

    One ssh channel carries at most 2 MiB a round trip: over a long link more of them help, over a
    short one only the CPU that they cost shows. One more is tried when at least `trial_s` of the
    transfer are left. `retry_s` is the first of growing waits before a
    connection is made again, `fruitless` how many in a row may bring nothing before the box counts
    as unreachable."""

    block_bytes: int = MIB
    piece_bytes: int = MIB
    least_bytes: int = MIB // 4
    depth_bytes: int = 2 * MIB
    most_depth_bytes: int = 6 * MIB
    most_streams: int = 8
    first_streams: int = 2
    long_rtt_s: float = 0.02
    share_bytes: int = 48 * MIB
    long_share_bytes: int = 12 * MIB
    growth: float = 1.08
    window_s: float = 0.8
    settle_s: float = 15.0
    trial_s: float = 4.0
    spacing_s: float = 0.04
    waiting_s: float = 0.15
    retry_s: float = 0.25
    retry_most_s: float = 8.0
    fruitless: int = 4
    report_s: float = 0.25
    late_s: float = 0.25
