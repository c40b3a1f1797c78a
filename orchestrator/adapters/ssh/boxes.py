"""The port Boxes: opens shell, stream and follower to a box, all with the same pinned key."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from orchestrator.adapters.clock import SystemClock
from orchestrator.adapters.link import STALL_S
from orchestrator.adapters.ssh.follow import LineFollower
from orchestrator.adapters.ssh.keys import (
    FINGERPRINT,
    ClientKey,
    known_hosts,
    pin,
    pin_matching,
    pinned_keys,
    repin,
    scan,
)
from orchestrator.adapters.ssh.openssh import (
    SshLink,
    agent_command,
    check_endpoint,
    ssh_command,
)
from orchestrator.adapters.ssh.shell import FabricShell
from orchestrator.adapters.stream import FrameStream, Pace, Way
from orchestrator.core.bandwidth import Transfer, rate_at
from orchestrator.errors import HostKeyChanged
from orchestrator.ports import Clock, Endpoint


class SshBoxes:
    """Keys and pins live below `state`; `stall_s` is how long a link may be silent."""

    def __init__(
        self, state: Path, *, stall_s: float = STALL_S, clock: Clock | None = None
    ) -> None:
        self._state = state
        self._stall_s = stall_s
        self._key = ClientKey(state)
        self._clock = clock or SystemClock()
        self._paces: dict[str, Pace] = {}
        self._ways: dict[tuple[str, str], Way] = {}
        self._expected: dict[tuple[str, Endpoint], FrameStream] = {}
        self._lock = threading.Lock()

    def public_key(self) -> str:
        return self._key.public()

    def pin(self, instance: str, run: str, host_keys: Sequence[str], host: str, port: int) -> None:
        path = known_hosts(self._state, run, instance)
        keys = [key for key in host_keys if not key.startswith(FINGERPRINT)]
        if keys:
            pin(path, keys)
            return
        check_endpoint(Endpoint(instance, host, port, "root"))
        if host_keys:
            pin_matching(path, host_keys, host, port)
        elif not pinned_keys(path):
            pin(path, scan(host, port))

    def repin(
        self, instance: str, run: str, host_keys: Sequence[str], host: str, port: int
    ) -> bool:
        check_endpoint(Endpoint(instance, host, port, "root"))
        return repin(known_hosts(self._state, run, instance), host_keys, host, port)

    def shell(self, endpoint: Endpoint, run: str) -> FabricShell:
        self._key.make()
        pinned = pinned_keys(self._pinned(endpoint, run))
        return FabricShell(endpoint, key=self._key.path, pinned=pinned)

    def stream(self, endpoint: Endpoint, run: str, transfer: Transfer | None = None) -> FrameStream:
        with self._lock:
            ready = self._expected.pop((run, endpoint), None)
        return ready or self._stream(endpoint, run, transfer)

    def expect(
        self, endpoint: Endpoint, run: str, size_bytes: int, transfer: Transfer | None = None
    ) -> None:
        stream = self._stream(endpoint, run, transfer)
        with self._lock:
            kept = self._expected.setdefault((run, endpoint), stream)
        if kept is stream:
            stream.expect(size_bytes)

    def expect_nothing(self, endpoint: Endpoint, run: str) -> None:
        with self._lock:
            ready = self._expected.pop((run, endpoint), None)
        if ready:
            ready.close()

    def follow(
        self, endpoint: Endpoint, run: str, *, events: int, log: int, metrics: int, sights: int = 0
    ) -> LineFollower:
        words = ["--events", str(events), "--log", str(log), "--metrics", str(metrics)]
        # An agent of an earlier release knows no sights: it told none, so none are asked for.
        words += ["--sights", str(sights)] if sights else []
        return LineFollower(lambda: self._agent(endpoint, run, "follow", *words))

    def attach_command(self, endpoint: Endpoint, run: str) -> list[str]:
        """The ssh command line for a person's terminal; append the remote command, if any."""
        self._key.make()
        pinned = self._pinned(endpoint, run)
        return ssh_command(endpoint, key=self._key.path, known_hosts=pinned, tty=True)

    def _stream(self, endpoint: Endpoint, run: str, transfer: Transfer | None) -> FrameStream:
        pace = self._pace(run, transfer)
        with self._lock:
            way = self._ways.setdefault((run, endpoint.instance), Way())
        return FrameStream(lambda: self._agent(endpoint, run, "serve"), pace=pace, way=way)

    def _pace(self, run: str, transfer: Transfer | None) -> Pace:
        """One for all streams of a run: the cap is theirs together."""
        with self._lock:
            if run not in self._paces:
                self._paces[run] = Pace(lambda: rate_at(transfer, self._clock.now().astimezone()))
            return self._paces[run]

    def _agent(self, endpoint: Endpoint, run: str, *words: str) -> SshLink:
        self._key.make()
        pinned = self._pinned(endpoint, run)
        command = ssh_command(endpoint, key=self._key.path, known_hosts=pinned)
        where = f"{endpoint.instance} ({endpoint.host}:{endpoint.port})"
        return SshLink([*command, agent_command(run, *words)], where, patience_s=self._stall_s)

    def _pinned(self, endpoint: Endpoint, run: str) -> Path:
        path = known_hosts(self._state, run, endpoint.instance)
        if not pinned_keys(path):
            raise HostKeyChanged(
                f"No host key of {endpoint.instance} is pinned, so nobody can tell who answers "
                "there. Nothing was sent to it.",
                hint="gpujob watch pins it again from what the provider says",
            )
        return path
