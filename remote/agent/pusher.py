"""Has what is sealed pushed to S3 by a program of its own (`remote/push.py`), one at a time, and
says what became of it. The agent itself knows nothing of S3."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

from remote.agent.durable import read_json, utc_now, write_json
from remote.agent.facts import Facts
from remote.agent.paths import Root
from remote.contract import PROTOCOL

LOOK_S = 1.0
FIRST_WAIT_S = 5.0
MAX_WAIT_S = 300.0
MAX_COMPLAINTS = 50
RESERVE = 0.05  # of the disk: the trainer has to write its next checkpoint
BUSY = 75
_OURS = ("AWS_CA_BUNDLE",)


def has_room(folder: Path) -> bool:
    """Whether the disk has more than its reserve."""
    disk = os.statvfs(folder)
    return disk.f_bavail >= disk.f_blocks * RESERVE


class Pusher:
    """One thread steps. `clock` is monotonic; `has_room` looks at the disk of a folder."""

    def __init__(
        self,
        root: Root,
        facts: Facts,
        *,
        clock: Callable[[], float] = time.monotonic,
        has_room: Callable[[Path], bool] = has_room,
    ) -> None:
        self._root = root
        self._facts = facts
        self._clock = clock
        self._has_room = has_room
        self._child: Optional["subprocess.Popen[bytes]"] = None
        self._next_look = float("-inf")
        self._next_start = float("-inf")
        self._wait_s = FIRST_WAIT_S
        self._complained = ""
        self._complaints = 0

    def step(self) -> None:
        """Look, at most once in LOOK_S, and do what is due. Raises OSError; then call again."""
        now = self._clock()
        if now < self._next_look or not self._root.push.exists():
            return
        self._next_look = now + LOOK_S
        self._collect(now)
        self._give_up()
        if self._child is None and now >= self._next_start and self._waiting():
            self._start()
        self._tell_pushed()

    def pulse(self) -> Optional[Dict[str, Any]]:
        """For the heartbeat: how many seals wait, and how many bytes this push has sent."""
        if not self._root.push.exists():
            return None
        sent = (read_json(self._root.push_state) or {}).get("sent")
        return {"waiting": len(self._waiting()), "sent": sent if self._child else 0}

    def close(self) -> None:
        """What is under way goes on in the agent's next life."""
        if self._child and self._child.poll() is None:
            self._child.terminate()
            self._child.wait()
        self._child = None

    def _waiting(self) -> List[Path]:
        return [each for each in self._due() if is_held(each)]

    def _due(self) -> List[Path]:
        found = (each.parent for each in sorted(self._root.seals.glob("*/manifest.json")))
        return [each for each in found if not is_settled(each)]

    def _start(self) -> None:
        record = read_json(self._root.push) or {}
        command = [str(record.get("python") or "python3"), "-m", "remote.push", "push"]
        self._root.push_state.unlink(missing_ok=True)
        self._root.push_failed.unlink(missing_ok=True)
        try:
            self._child = subprocess.Popen(
                [*command, "--parent", str(os.getpid()), "--root", str(self._root.path)],
                cwd=self._root.path,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        except OSError as error:
            self._failed("the program that pushes did not start: %s" % error)

    def _collect(self, now: float) -> None:
        """What the program did is on disk, its end says only whether to wait."""
        if self._child is None or self._child.poll() is None:
            return
        code, self._child = self._child.returncode, None
        if code == 0:
            self._wait_s, self._complained = FIRST_WAIT_S, ""
            self._next_start = now
            return
        if code == BUSY or code == -signal.SIGTERM:
            self._next_start = now + LOOK_S
            return
        message = (read_json(self._root.push_failed) or {}).get("message")
        self._failed(str(message or "the program that pushes ended with %d" % code))

    def _failed(self, message: str) -> None:
        """Told once, until something else is wrong or it works again."""
        self._next_start = self._clock() + self._wait_s
        self._wait_s = min(2 * self._wait_s, MAX_WAIT_S)
        if message != self._complained and self._complaints < MAX_COMPLAINTS:
            self._facts.tell("push.failed", message=message[:500])
            self._complained = message
            self._complaints += 1

    def _tell_pushed(self) -> None:
        """After the seal was told of, since nobody knows it before."""
        for path in sorted(self._root.seals.glob("*/pushed")):
            record = read_json(path) or {}
            what = {key: record.get(key) for key in ("name", "generation")}
            if self._facts.was_told("checkpoint.sealed", **what):
                more = {key: record.get(key) for key in ("digest", "uri")}
                if self._facts.tell("checkpoint.pushed", **what, **more):
                    self._wait_s, self._complained = FIRST_WAIT_S, ""
        for path in sorted(self._root.seals.glob("*/unpushed")):
            record = read_json(path) or {}
            name, _, generation = path.parent.name.rpartition(".")
            what = {"name": name, "generation": int(generation)}
            if self._facts.was_told("checkpoint.sealed", **what):
                self._facts.tell("push.gave_up", **what, why=record.get("why"))

    def _give_up(self) -> None:
        """A server that is away must not fill the disk that the trainer needs: what the
        controller holds is not kept for it any longer than there is room. On a disk without any
        it may be gone (`sealer.py`) before that can be written down."""
        due = self._due()
        has_room = not due or self._has_room(self._root.seals)
        for folder in due:
            if (folder / "acked").exists() and not (has_room and is_held(folder)):
                why = "the disk is nearly full, and the controller holds it"
                write_json(folder / "unpushed", {"v": PROTOCOL, "at": utc_now(), "why": why})


def is_settled(seal: Path) -> bool:
    """Whether the seal is in S3, or will never be."""
    return (seal / "pushed").exists() or (seal / "unpushed").exists()


def is_held(seal: Path) -> bool:
    return (seal / "tree").is_dir()


def _environment() -> Dict[str, str]:
    """The program finds itself in our archive; whatever the box says of S3 is not meant for it."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AWS_", "PYTHON")) or name in _OURS
    }
    return {**kept, "PYTHONPATH": str(Path(sys.argv[0]).absolute())}
