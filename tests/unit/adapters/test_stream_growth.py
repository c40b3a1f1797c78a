"""How many connections a transfer is given, by what it was seen to move."""

from __future__ import annotations

import pytest

from orchestrator.adapters.stream.growth import Growth
from orchestrator.adapters.stream.tuning import MIB, Tuning

HUGE = 1000 * 1024 * MIB
TUNING = Tuning()
FIRST = TUNING.first_streams


class Transfer:
    """One whose rate depends on how many connections work, looked at every 0.1 s."""

    def __init__(self, *, rtt_s: float | None, left: int, rates: list[float]) -> None:
        self._growth = Growth(TUNING)
        if rtt_s is not None:
            self._growth.measured(rtt_s)
        self._left = left
        self._rates = rates
        self._moved = 0
        self._now = 0.0
        self.most = self.streams = 0

    def go_on(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.1)):
            self.streams = self._growth.wanted(
                self._now, up=self.streams, moved=self._moved, left=self._left, most=1024
            )
            self.most = max(self.most, self.streams)
            self._now += 0.1
            step = int(self._rates[min(self.streams, len(self._rates) - 1)] * 0.1)
            self._moved, self._left = self._moved + step, max(0, self._left - step)

    def fail(self, up: int) -> None:
        self._growth.failed(self._now, up)


@pytest.mark.parametrize(
    ("rtt_s", "left", "streams"),
    [
        pytest.param(None, HUGE, FIRST, id="the way is not known"),
        pytest.param(0.001, HUGE, FIRST, id="short"),
        pytest.param(0.001, 1, 1, id="short, a byte"),
        pytest.param(0.08, HUGE, TUNING.most_streams, id="long"),
        pytest.param(0.08, 1, 1, id="long, a byte"),
        pytest.param(0.08, 2 * TUNING.long_share_bytes, 3, id="long, worth three"),
    ],
)
def test_the_first_ones(rtt_s: float | None, left: int, streams: int) -> None:
    transfer = Transfer(rtt_s=rtt_s, left=left, rates=[0.0])
    transfer.go_on(0.1)
    assert transfer.streams == streams


def test_more_as_long_as_they_bring_more() -> None:
    transfer = Transfer(rtt_s=0.001, left=HUGE, rates=[0, 1e8, 2e8, 3e8, 4e8, 4e8])
    transfer.go_on(5.0)
    assert transfer.most == 5
    assert transfer.streams == 4, "the fifth brought nothing"
    transfer.go_on(TUNING.settle_s - 2.0)
    assert transfer.streams == 4
    transfer.go_on(4.0)
    assert transfer.most == 5, "tried again after a while"


def test_none_is_tried_for_the_end_of_a_transfer() -> None:
    rate = 4e8
    left = int(rate * (TUNING.window_s + TUNING.trial_s - 0.1))
    transfer = Transfer(rtt_s=0.001, left=left, rates=[0, rate, rate, 2 * rate])
    transfer.go_on(10.0)
    assert transfer.most == FIRST


def test_fewer_for_a_while_after_one_was_refused() -> None:
    transfer = Transfer(rtt_s=0.08, left=HUGE, rates=[0, 1e7])
    transfer.go_on(0.1)
    transfer.fail(up=3)
    transfer.go_on(1.0)
    assert transfer.streams == 3
    transfer.go_on(TUNING.settle_s)
    assert transfer.streams == TUNING.most_streams
