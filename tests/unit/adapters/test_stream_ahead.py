"""Connections that are made ahead of need: over a long way alone, no more than are worth it, and
none is left over."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kit.agent import Server, SocketLink, write_tree

from orchestrator.adapters.check import problems
from orchestrator.adapters.link import Link
from orchestrator.adapters.stream import FrameStream, Pace, Tuning, Way
from orchestrator.errors import Unreachable
from remote.contract import Manifest

MIB = 1024 * 1024
LONG, SHORT = 0.08, 0.001
# Without a wait between two that are made ahead, and in pieces that give each something to do.
SWIFT = Tuning(
    piece_bytes=64 * 1024, long_share_bytes=MIB, share_bytes=MIB, spacing_s=0.001, retry_s=0.005
)


class Connections:
    """Makes links, counts them, and fails when told to."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._lock = threading.Lock()
        self.made: list[SocketLink] = []
        self.open = 0
        self.fails: Callable[[int], bool] = lambda count: False

    def __call__(self) -> Link:
        with self._lock:
            count = len(self.made)
            link = _Counted(self, self._server)
            self.made.append(link)
        if self.fails(count):
            link.close()
            raise Unreachable("refused")
        return link

    def add(self, change: int) -> None:
        with self._lock:
            self.open += change


class _Counted(SocketLink):
    def __init__(self, connections: Connections, server: Server) -> None:
        super().__init__(server, 30.0)
        self._connections = connections
        self._is_open = True
        connections.open += 1

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._connections.add(-1)
        super().close()


@pytest.fixture
def server(tmp_path: Path) -> Server:
    manifest = write_tree(tmp_path / "box", weights=os.urandom(8 * MIB), config=b"{}")
    return Server(tmp_path / "box", manifest, tmp_path / "inbox")


@pytest.fixture
def connections(server: Server) -> Connections:
    return Connections(server)


@pytest.fixture
def open_stream(connections: Connections) -> Iterator[Callable[..., FrameStream]]:
    streams: list[FrameStream] = []

    def make(rtt_s: float | None, pace: Pace | None = None) -> FrameStream:
        way = Way(rtt_s)
        streams.append(FrameStream(connections, pace=pace or Pace(), tuning=SWIFT, way=way))
        return streams[-1]

    yield make
    for stream in streams:
        stream.close()


def until(is_so: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.005)
    return is_so()


@pytest.mark.parametrize(
    ("rtt_s", "size_bytes", "pace", "made"),
    [
        (None, MIB // 2, None, 1),
        (None, 100 * MIB, None, 2),
        (SHORT, MIB // 2, None, 1),
        (SHORT, 100 * MIB, None, 2),
        (SHORT, 4096 * MIB, None, 2),
        (LONG, 0, None, 1),
        (LONG, MIB // 2, None, 1),
        (LONG, 3 * MIB, None, 4),
        (LONG, 100 * MIB, None, 8),
        (LONG, 100 * MIB, Pace(lambda: 12e6), 3),
    ],
    ids=[
        "unknown, small",
        "unknown, large",
        "short, small",
        "short, large",
        "short, huge",
        "nothing told",
        "small",
        "middle",
        "large",
        "capped",
    ],
)
def test_as_many_are_made_ahead_as_are_worth_it(
    connections: Connections,
    open_stream: Callable[..., FrameStream],
    rtt_s: float | None,
    size_bytes: int,
    pace: Pace | None,
    made: int,
) -> None:
    stream = open_stream(rtt_s, pace)
    stream.manifest("checkpoint-10", 1, size_bytes)
    assert until(lambda: len(connections.made) == made)
    stream.close()
    assert until(lambda: connections.open == 0)
    assert len(connections.made) == made


def test_a_transfer_uses_them_and_leaves_one(
    connections: Connections,
    open_stream: Callable[..., FrameStream],
    server: Server,
    tmp_path: Path,
) -> None:
    stream = open_stream(LONG)
    manifest = stream.manifest("checkpoint-10", 1, 100 * MIB)
    stream.pull("checkpoint-10", 1, tmp_path / "into", manifest, lambda _: None)
    assert problems(tmp_path / "into", server.manifest) == []
    assert len(connections.made) <= 8
    assert until(lambda: connections.open == 1), "that for questions stays"


def test_those_that_cannot_be_made_cost_nothing_but_themselves(
    connections: Connections, server: Server, tmp_path: Path
) -> None:
    connections.fails = lambda count: 0 < count < 8
    way = Way()
    stream = FrameStream(connections, tuning=SWIFT, way=way)
    try:
        stream.manifest("checkpoint-10", 1)  # the first of all is the one for questions
        way.rtt_s = LONG
        manifest = stream.manifest("checkpoint-10", 1, 100 * MIB)
        assert until(lambda: len(connections.made) == 8)
        stream.pull("checkpoint-10", 1, tmp_path / "into", manifest, lambda _: None)
    finally:
        stream.close()
    assert problems(tmp_path / "into", server.manifest) == []


def test_what_is_expected_is_there_when_it_is_asked_for(
    connections: Connections,
    open_stream: Callable[..., FrameStream],
    server: Server,
    tmp_path: Path,
) -> None:
    stream = open_stream(LONG)
    stream.expect(100 * MIB)
    assert until(lambda: len(connections.made) == 8)
    manifest = stream.manifest("checkpoint-10", 1, 100 * MIB)
    stream.pull("checkpoint-10", 1, tmp_path / "into", manifest, lambda _: None)
    assert len(connections.made) == 8, "no other was made"


def test_what_is_expected_and_does_not_come_is_given_back(
    connections: Connections, open_stream: Callable[..., FrameStream]
) -> None:
    stream = open_stream(LONG)
    stream.expect(3 * MIB)
    assert until(lambda: len(connections.made) == 4)
    stream.close()
    assert until(lambda: connections.open == 0)


def _manifest(stream: FrameStream, server: Server, folder: Path) -> None:
    stream.manifest("checkpoint-10", 1)


def _pull(stream: FrameStream, server: Server, folder: Path) -> None:
    stream.pull("checkpoint-10", 1, folder / "into", server.manifest, lambda _: None)


def _push_what_is_there(stream: FrameStream, server: Server, folder: Path) -> None:
    (folder / "code").mkdir()
    stream.push(folder / "code", Manifest(()), "gpujob/code", "merge", lambda _: None)


@pytest.mark.parametrize("ask", [_manifest, _pull, _push_what_is_there])
def test_every_use_learns_how_long_the_way_is(
    ask: Callable[[FrameStream, Server, Path], None],
    connections: Connections,
    server: Server,
    tmp_path: Path,
) -> None:
    way = Way()
    stream = FrameStream(connections, tuning=SWIFT, way=way)
    try:
        ask(stream, server, tmp_path)
    finally:
        stream.close()
    assert way.rtt_s is not None and 0 < way.rtt_s < 20
