"""The cap on transfers: a bucket on a clock of ours, and a transfer through it."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from kit.agent import Server, SocketLink, write_tree

from orchestrator.adapters.check import problems
from orchestrator.adapters.stream import FrameStream, Pace
from orchestrator.core.bandwidth import Transfer, Window, rate_at
from orchestrator.ports import Moved

MB = 10**6
WORK = Transfer(None, (Window("07:00", "18:00", 0), Window("18:00", "22:00", 4)))


class Hand:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.s = 1000.0
        self.rate: float | None = None

    def pace(self) -> Pace:
        return Pace(lambda: self.rate, lambda: self.s)


@pytest.mark.parametrize("rate", [1 * MB, 40 * MB])
def test_what_is_spent_keeps_the_rate(rate: int) -> None:
    hand = Hand()
    hand.rate = rate
    pace, spent, piece = hand.pace(), 0, 1 << 20
    while spent < 10 * rate:
        hand.s += pace.wait_s()
        if pace.wait_s() <= 0:
            pace.spend(piece)
            spent += piece
    past_s = hand.s - 1000.0
    assert spent - piece <= rate * (past_s + 0.25), "more than the cap and one burst"
    assert spent >= rate * past_s * 0.95, "less than the cap allows"


def test_without_a_cap_nobody_waits() -> None:
    pace = Hand().pace()
    pace.spend(10**12)
    assert (pace.wait_s(), pace.is_paused) == (0.0, False)


def test_a_pause_ends_within_a_second_of_its_hour() -> None:
    hand = Hand()
    hand.rate = 0
    pace = hand.pace()
    assert pace.is_paused and pace.wait_s() > 0
    hand.rate = None
    hand.s += 1.0
    assert not pace.is_paused and pace.wait_s() == 0


def test_a_debt_of_a_slow_hour_is_not_paid_in_a_fast_one() -> None:
    hand = Hand()
    hand.rate = 1
    pace = hand.pace()
    assert pace.wait_s() < 1
    pace.spend(MB)
    assert pace.wait_s() > 900_000
    hand.rate = 100 * MB
    hand.s += 1
    assert pace.wait_s() < 1


@pytest.mark.parametrize(
    ("rate", "streams"), [(None, 1024), (0, 1), (MB, 1), (5 * MB, 1), (6 * MB, 2), (40 * MB, 8)]
)
def test_a_low_cap_is_not_worth_many_connections(rate: float | None, streams: int) -> None:
    hand = Hand()
    hand.rate = rate
    assert hand.pace().streams() == streams


@pytest.fixture
def server(tmp_path: Path) -> Server:
    data = random.Random(5).randbytes(24 * MB)
    manifest = write_tree(tmp_path / "box", weights=data, state=data[:MB], config=b"{}")
    return Server(tmp_path / "box", manifest, tmp_path / "inbox")


@pytest.fixture
def stream(server: Server, request: pytest.FixtureRequest) -> Iterator[FrameStream]:
    made = FrameStream(lambda: SocketLink(server, 30.0), pace=request.param)
    yield made
    made.close()


@pytest.mark.parametrize("stream", [Pace(lambda: 20 * MB)], indirect=True, ids=["20 MB/s"])
@pytest.mark.parametrize("way", ["down", "up"])
def test_a_transfer_keeps_the_cap(
    server: Server, stream: FrameStream, tmp_path: Path, way: str
) -> None:
    began = time.monotonic()
    if way == "up":
        stream.push(tmp_path / "box", server.manifest, "work", "merge", lambda _: None)
    else:
        stream.pull("checkpoint-10", 1, tmp_path / "into", server.manifest, lambda _: None)
    # A burst is free, and so is a piece for each of the four connections that the cap is worth.
    assert time.monotonic() - began >= (server.manifest.size_bytes - 9.2 * MB) / (20 * MB)
    where = tmp_path / "into" if way == "down" else tmp_path / "inbox" / "work"
    assert problems(where, server.manifest) == []


class Day:
    """The time of day, and a transfer's words by it."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
        self.said: list[tuple[int, bool]] = []
        self.heard = threading.Event()

    def rate(self) -> float | None:
        return rate_at(WORK, self.now)

    def told(self, moved: int) -> None:
        assert isinstance(moved, Moved)
        self.said.append((int(moved), moved.is_paused))
        if len(self.said) > 3:
            self.heard.set()


def test_a_window_that_is_closed_lets_nothing_through_until_it_opens(
    server: Server, tmp_path: Path
) -> None:
    day, into = Day(), tmp_path / "into"
    stream = FrameStream(lambda: SocketLink(server, 30.0), pace=Pace(day.rate))
    words = ("checkpoint-10", 1, into, server.manifest, day.told)
    transfer = threading.Thread(target=stream.pull, args=words)
    transfer.start()
    try:
        assert day.heard.wait(20)
        assert set(day.said) == {(0, True)}
        assert server.parts("read") == []
        day.now = day.now.replace(hour=22)
        transfer.join(30)
    finally:
        stream.close()
        transfer.join()
    assert day.said[-1] == (server.manifest.size_bytes, False)
    assert problems(into, server.manifest) == []


def test_a_window_that_closes_midway_stops_what_is_under_way(
    server: Server, tmp_path: Path
) -> None:
    day, into, asked = Day(), tmp_path / "into", list[int]()
    day.now = day.now.replace(hour=19)

    def told(moved: int) -> None:
        day.told(moved)
        if moved and not asked:
            day.now = day.now.replace(hour=9)
        if day.said[-1][1]:
            asked.append(len(server.parts("read")))
        if len(asked) == 5:
            day.now = day.now.replace(hour=23)

    stream = FrameStream(lambda: SocketLink(server, 30.0), pace=Pace(day.rate))
    try:
        stream.pull("checkpoint-10", 1, into, server.manifest, told)
    finally:
        stream.close()
    # The connection may have looked at the clock a moment before it was turned.
    assert len(set(asked[1:])) == 1 and asked[-1] < len(server.parts("read"))
    assert problems(into, server.manifest) == []
