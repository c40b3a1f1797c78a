"""One attempt as its folder tells it: asked for, prepared, claimed by a wrapper, exited.

Every state is a file that appears whole, so whoever looks after a crash sees where things stood.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Optional

from remote.agent.durable import fsync_folder, read_json, utc_now, write_json
from remote.agent.paths import Root
from remote.agent.procs import Process
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
        return True

    def record_trainer(self, process: Process) -> None:
        write_json(self.folder / "pid", {"v": PROTOCOL, **process.to_json()})

    def record_exit(self, rc: int) -> None:
        write_json(self.folder / "exit.json", {"v": PROTOCOL, "rc": rc, "at": utc_now()})

    def exit_code(self) -> Optional[int]:
        """The trainer's exit code once nothing of it runs any more, else None.

        A trainer whose wrapper was killed has an end and no exit code: `UNKNOWN_RC`."""
        if not self.is_claimed or self.is_running:
            return None
        rc = self._recorded_rc()
        if rc is None:
            self.record_exit(UNKNOWN_RC)
            return UNKNOWN_RC
        return rc

    def read(self, name: str) -> Dict[str, Any]:
        return read_json(self.folder / name) or {}

    def _recorded_rc(self) -> Optional[int]:
        rc = self.read("exit.json").get("rc")
        return rc if isinstance(rc, int) else None
