"""The keeper of one attempt without processes: the trainer is whoever writes, time is a number."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from remote.agent.attempt import Attempt
from remote.agent.durable import write_json
from remote.agent.facts import Facts, read
from remote.agent.keeper import Keeper
from remote.agent.paths import Root
from remote.agent.prepare import place, supersede, write_baseline
from remote.agent.spec import Spec
from remote.contract import Manifest


class Keeping:
    """`out` is the checkpoint folder. Each look is `tick_s` after the last one."""

    def __init__(self, home: Path, layout: Any, **said: Any) -> None:
        self.root = Root(home / "root")
        self.out = home / "work/out"
        self.out.mkdir(parents=True, exist_ok=True)
        self.now = 1000.0
        self.attempt = Attempt(self.root, int(said.get("attempt", 1)))
        self.attempt.folder.mkdir(parents=True)
        self.spec = self._spec(home, layout, said)
        self.superseded = supersede(self.spec)
        place(self.spec)
        write_baseline(self.attempt, self.spec)
        self.facts = Facts(self.root.events, "i1")
        self.keeper = self._open()

    def look(self, times: int = 1, *, tick_s: float = 0.3, ended: bool = False) -> None:
        for _ in range(times):
            self.now += tick_s
            self.keeper.step(ended=ended)

    def settle(self, timeout_s: float = 20.0) -> None:
        """Look until nothing is pinned any more."""
        self._until(lambda: not self.keeper.pinning, timeout_s, ended=False)

    def await_sealed(self, name: str, timeout_s: float = 20.0) -> None:
        def is_told() -> bool:
            return any(each["name"] == name for each in self.told("checkpoint.sealed"))

        self._until(is_told, timeout_s, ended=False)

    def end(self, rc: int = 0, timeout_s: float = 20.0) -> None:
        """The trainer ends, and the keeper is done."""
        write_json(self.attempt.folder / "claim", {"v": 1, "pid": 2**22 + 1, "started": "0"})
        self.attempt.record_exit(rc)
        self._until(lambda: self.keeper.finish(rc), timeout_s, ended=True)

    def succeed(self) -> None:
        """The supervisor was killed, and another takes over."""
        self.keeper.close()
        self.facts = Facts(self.root.events, "i1")
        self.keeper = self._open()

    def told(self, kind: str) -> list[dict[str, Any]]:
        return [fact.data for fact in read(self.root.events) if fact.kind == kind]

    def sealed(self, name: str, generation: int = 1) -> Manifest:
        folder = self.root.seals / f"{name}.{generation}"
        return Manifest.decode((folder / "manifest.json").read_bytes())

    def close(self) -> None:
        self.keeper.close()

    def _open(self) -> Keeper:
        return Keeper(self.root, self.facts, self.attempt, self.spec, clock=lambda: self.now)

    def _until(self, look: Callable[[], bool], timeout_s: float, *, ended: bool) -> None:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            self.look(ended=ended)
            if look():
                return
            time.sleep(0.002)  # hashing is done in threads of its own
        raise AssertionError(f"not settled: {self.keeper.pinning}, {self.told('agent.error')}")

    def _spec(self, home: Path, layout: Any, said: dict[str, Any]) -> Spec:
        record = {
            "v": 1,
            "instance": "i1",
            "attempt": self.attempt.number,
            "workdir": str(home / "work"),
            "command": "true",
            "env": {},
            "secrets": False,
            "checkpoints": "out",
            "layout": layout,
            "world_size": 1,
            "resume_step": None,
        }
        write_json(self.attempt.folder / "spec.json", {**record, **said})
        return Spec.read(self.root, self.attempt.number)
