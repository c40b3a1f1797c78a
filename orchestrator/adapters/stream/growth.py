"""How many connections a transfer is worth. Pure: it is told what happened and when."""

from __future__ import annotations

from orchestrator.adapters.stream.tuning import Tuning


class Growth:
    """Over a long link, where one connection cannot carry much, as many as there may be; over a
    short one a first few, and one more as long as that makes it faster. `rtt_s` is what is known of
    the link beforehand."""

    def __init__(self, tuning: Tuning, rtt_s: float | None = None) -> None:
        self._tuning = tuning
        self._most = tuning.most_streams
        self._target = tuning.first_streams
        self.rtt_s = rtt_s
        self._base: float | None = None
        self._is_trial = False
        self._since: tuple[float, int] | None = None
        self._settled_until = 0.0
        self._up = 0

    def measured(self, rtt_s: float) -> None:
        """How long a small question took; the shortest counts."""
        self.rtt_s = rtt_s if self.rtt_s is None else min(rtt_s, self.rtt_s)

    def at_first(self, size: int, *, most: int) -> int:
        """How many a transfer of `size` bytes begins with."""
        return self.wanted(0.0, up=0, moved=0, left=size, most=most)

    def failed(self, now: float, up: int) -> None:
        """A connection broke, or could not be made, while `up` others work: sshd may refuse so
        many, so there are fewer for a while."""
        if up:
            self._most = max(1, min(self._most, up))
        self._settled_until = now + self._tuning.settle_s
        self._since = None

    def wanted(self, now: float, *, up: int, moved: int, left: int, most: int) -> int:
        """`up` connections have moved `moved` bytes, and `left` are still to move; no more than
        `most` are of use."""
        tuning = self._tuning
        is_long = (self.rtt_s or 0.0) >= tuning.long_rtt_s
        share = tuning.long_share_bytes if is_long else tuning.share_bytes
        worth = min(most, 1 + left // share)
        if now >= self._settled_until:
            self._most = tuning.most_streams
        if self.rtt_s is None:
            return min(self._target, self._most, worth)
        if is_long:
            return min(tuning.most_streams, self._most, worth)
        self._look(now, up, moved, left)
        return min(self._target, self._most, worth)

    def _look(self, now: float, up: int, moved: int, left: int) -> None:
        """After a while with the same connections, compare; and try one more, unless the transfer
        would end before that pays for making it."""
        if self._since is None or up != self._up:
            self._since, self._up = (now, moved), up
            return
        began, had = self._since
        if now - began < self._tuning.window_s or up < min(self._target, self._most):
            return
        rate, self._since = (moved - had) / (now - began), (now, moved)
        if self._is_trial and self._base and rate < self._base * self._tuning.growth:
            self._is_trial, self._base = False, None
            self._target = max(1, self._target - 1)
            self._settled_until = now + self._tuning.settle_s
        elif self._may_try(now) and left > rate * self._tuning.trial_s:
            self._is_trial, self._base = True, rate
            self._target += 1

    def _may_try(self, now: float) -> bool:
        return now >= self._settled_until and self._target < self._tuning.most_streams
