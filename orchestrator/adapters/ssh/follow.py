"""The port Follower: JSON lines of `agent follow`, as they arrive."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from orchestrator.adapters.link import Link
from remote.contract import MAX_LINE_BYTES, ContractError, skip_to_magic

HEARTBEATS_A_SIGN = 5  # one comes each second


class LineFollower:
    """Iterates once. The agent says something each second, so the link's patience is a watchdog:
    a box that falls silent is Unreachable.

    Every few heartbeats are answered with an empty line, by which the box knows that somebody
    is here: what it sends into a half-open link tells it nothing (`remote/agent/heard.py`)."""

    def __init__(self, connect: Callable[[], Link]) -> None:
        self._connect = connect
        self._reading = threading.Lock()
        self._state = threading.Lock()
        self._link: Link | None = None
        self._closed = False
        self._heartbeats = 0

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        with self._reading:
            link = self._open()
            if link is None:
                return
            try:
                skip_to_magic(link.reader)
                while (record := _next(link)) is not None:
                    self._answer(link, record)
                    yield record
                raise ContractError("the box ended it")
            except (OSError, ValueError) as error:
                if self._closed:
                    return
                raise link.blame(error) from error
            finally:
                self._closed = True
                link.close()

    def close(self) -> None:
        """End the iteration, from any thread; returns when nothing of the link is left."""
        with self._state:
            self._closed = True
            link = self._link
        if link is not None:
            link.end()

    def _answer(self, link: Link, record: Mapping[str, Any]) -> None:
        if "heartbeat" in record:
            if self._heartbeats % HEARTBEATS_A_SIGN == 0:
                link.writer.write(b"\n")
            self._heartbeats += 1

    def _open(self) -> Link | None:
        with self._state:
            if not self._closed:
                self._link = self._connect()
            return self._link


def _next(link: Link) -> Mapping[str, Any] | None:
    line = link.reader.readline(MAX_LINE_BYTES)
    if not line:
        return None
    if not line.endswith(b"\n"):
        raise ContractError("a line was cut short or is longer than 1 MiB")
    record = json.loads(line)
    if not isinstance(record, dict):
        raise ContractError("a line is not an object")
    return record
