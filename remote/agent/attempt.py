"""One attempt as its folder tells it: asked for, prepared, claimed by a wrapper, exited.

Every state is a file that appears whole, so whoever looks after a crash sees where things stood.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Optional

from remote.agent.durable import fsync_file, fsync_folder, read_json, utc_now, write_json
from remote.agent.paths import Root
from remote.agent.procs import Process
from remote.agent.slot import read_slot, write_slot
from remote.contract import PROTOCOL

UNKNOWN_RC = -1


@dataclass(frozen=True)
class Attempt:
    """The folder `attempts/<number>`. `asked`: start it. `baseline.json`: what was there before
    it. `claim`: the wrapper that runs it. `pid`: its trainer. `exit.json`: how that ended."""

    root: Root
    number: int

    @property
    def folder(self) -> Path:
        return self.root.attempt(self.number)

    @property
    def is_asked(self) -> bool:
        return (self.folder / "asked").exists()

    @property
    def is_claimed(self) -> bool:
        return (self.folder / "claim").exists()

    @property
    def wrapper(self) -> Optional[Process]:
        return Process.from_json(read_json(self.folder / "claim"))

    @property
    def trainer(self) -> Optional[Process]:
        return Process.from_json(read_json(self.folder / "pid"))

    @property
    def refusal(self) -> Optional[str]:
        """Why it could not be started, until it is asked for again."""
        record = read_json(self.folder / "refused.json")
        return None if record is None else str(record.get("error"))

    @property
    def is_running(self) -> bool:
        """Whether the trainer, or what is left of it, may still write."""
        wrapper, trainer = self.wrapper, self.trainer
        return bool((wrapper and wrapper.alive) or (trainer and trainer.alive))

    @property
    def recorded_rc(self) -> Optional[int]:
        """What the wrapper wrote down; what it started may still run."""
        rc = (read_slot(self.folder / "exit.json") or {}).get("rc")
        return rc if isinstance(rc, int) else None

    def ask(self) -> None:
        (self.folder / "refused.json").unlink(missing_ok=True)
        write_json(self.folder / "asked", {"v": PROTOCOL, "at": utc_now()})

    def refuse(self, error: str) -> None:
        write_json(self.folder / "refused.json", {"v": PROTOCOL, "error": error})

    def claim(self) -> bool:
        """Make this process the attempt's wrapper; False when it has one, alive or not."""
        me = Process.of(os.getpid())
        if me is None:
            raise OSError("/proc does not show this process")
        mine = self.folder / (".claim.%d" % os.getpid())
        mine.write_text(json.dumps({"v": PROTOCOL, **me.to_json()}))
        try:
            os.link(mine, self.folder / "claim")
        except FileExistsError:
            return False
        finally:
            mine.unlink()
        fsync_folder(self.folder)
        write_slot(self.folder / "exit.json", {"v": PROTOCOL, "rc": None})  # room to end on
        return True

    def record_trainer(self, process: Process) -> None:
        write_json(self.folder / "pid", {"v": PROTOCOL, **process.to_json()})

    def record_exit(self, rc: int) -> None:
        """A trainer often ends because the disk is full: that needs no room any more."""
        write_slot(self.folder / "exit.json", {"v": PROTOCOL, "rc": rc, "at": utc_now()})
        fsync_file(self.folder / "exit.json")

    def exit_code(self) -> Optional[int]:
        """The trainer's exit code once nothing of it runs any more, else None.

        A trainer whose wrapper was killed has an end and no exit code: `UNKNOWN_RC`."""
        if not self.is_claimed or self.is_running:
            return None
        if self.recorded_rc is None:
            self.record_exit(UNKNOWN_RC)
        return self.recorded_rc

    def read(self, name: str) -> Dict[str, Any]:
        return read_json(self.folder / name) or {}
