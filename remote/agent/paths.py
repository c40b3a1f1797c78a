"""Where things are below the agent's root: `docs/formats.md` §5, and nothing else knows names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import List


@dataclass(frozen=True)
class Root:
    """The agent's folder on the box, absolute."""

    path: Path

    @staticmethod
    def at(text: str) -> Root:
        """`text` may be relative to the home folder, where ssh sessions begin."""
        return Root(below_home(text))

    @property
    def agent(self) -> Path:
        return self.path / "agent.json"

    @property
    def agent_lock(self) -> Path:
        return self.path / "agent.lock"

    @property
    def agent_log(self) -> Path:
        return self.path / "agent.log"

    @property
    def start_lock(self) -> Path:
        return self.path / "start.lock"

    @property
    def heartbeat(self) -> Path:
        return self.path / "heartbeat.json"

    @property
    def heard(self) -> Path:
        return self.path / "heard"

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def log(self) -> Path:
        return self.path / "log"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def sights(self) -> Path:
        return self.path / "sights.jsonl"

    @property
    def reports(self) -> Path:
        """Where the receiver of progress reports listens."""
        return self.path / "reports.json"

    @property
    def report_token(self) -> Path:
        return self.path / "reports.token"

    @property
    def secrets(self) -> Path:
        return self.path / "secrets.env"

    @property
    def push(self) -> Path:
        """Where checkpoints are pushed to; nothing is pushed without it."""
        return self.path / "push.json"

    @property
    def push_keys(self) -> Path:
        return self.path / "s3.env"

    @property
    def push_state(self) -> Path:
        return self.path / "push.state"

    @property
    def push_failed(self) -> Path:
        return self.path / "push.failed"

    @property
    def push_lock(self) -> Path:
        """Held by the one program that pushes."""
        return self.path / "push.lock"

    @property
    def restore_lock(self) -> Path:
        """Held by whoever puts a checkpoint where the trainer will look, from wherever."""
        return self.path / "restore.lock"

    @property
    def restore(self) -> Path:
        """How far that is."""
        return self.path / "restore.json"

    @property
    def pins(self) -> Path:
        return self.path / "pins"

    @property
    def seals(self) -> Path:
        return self.path / "seals"

    @property
    def pinned(self) -> Path:
        return self.path / "pinned"

    @property
    def incoming(self) -> Path:
        return self.path / "incoming"

    def attempt(self, number: int) -> Path:
        return self.path / "attempts" / str(number)

    def attempts(self) -> List[int]:
        """Numbers of the attempts that have a folder, oldest first."""
        folder = self.path / "attempts"
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        return sorted(int(name) for name in names if name.isdigit())


def below_home(text: str) -> Path:
    """An absolute path, or one relative to the home folder."""
    return Path.home() / text
