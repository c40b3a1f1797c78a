"""A box whose disk is full, in one process: run it in a mount namespace of its own, with a folder
to mount a small disk on. It prints what it saw as one JSON object."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kit.writers_of_layouts import apply, huggingface
from remote.agent.durable import write_json
from remote.agent.facts import read
from remote.agent.paths import Root
from remote.agent.procs import Process
from remote.agent.serve import Server
from remote.agent.slot import read_slot, write_slot
from remote.agent.supervise import Supervisor

DISK_BYTES = 16 * 1024 * 1024
WEIGHTS_BYTES = 2 * 1024 * 1024
STEPS = (10, 20, 30)
PAGE_BYTES = 4096


def main() -> None:
    disk = Path(sys.argv[1])
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(disk)], check=True
    )
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    sys.stderr = (disk / "agent.log").open("a", buffering=1)
    root, out = Root(disk / "root"), disk / "work/out"
    trainer = _start(root, out)
    end = threading.Event()
    supervisor = Supervisor(root, "i1")
    thread = threading.Thread(target=supervisor.run, args=(end,))
    thread.start()
    try:
        print(json.dumps(_story(root, out, trainer)))
    finally:
        end.set()
        thread.join(30)
        if trainer.poll() is None:
            trainer.kill()
            trainer.wait()


def _story(root: Root, out: Path, trainer: subprocess.Popen[bytes]) -> dict[str, Any]:
    for step in STEPS:
        _save(out, step)
        _await(lambda step=step: f"checkpoint-{step}" in _sealed(root))
    oldest = root.seals / "checkpoint-10.1"
    (oldest / "tree/config.json").chmod(0o600)
    _fill(disk=out.parents[1], appended=(root.events, out.parents[1] / "agent.log"))
    # It has something to say that there is no room for: it was written into.
    with (oldest / "tree/config.json").open("r+b") as file:
        file.write(b"?")
    trainer.kill()
    trainer.wait()
    first = _pulse(root)
    _await(lambda: _pulse(root).get("trainer") == "exited")
    beats = [_next_pulse(root)["at"] for _ in range(3)]
    told = {fact.kind for fact in read(root.events)}
    reply = Server(root).answer({"op": "ack", "name": "checkpoint-10", "generation": 1}, b"")
    _await(lambda: not (oldest / "tree").exists())
    _await(lambda: any(fact.kind == "push.gave_up" for fact in read(root.events)))
    return {
        "beats": [first["at"], *beats],
        "told_while_full": sorted(told),
        "reply": reply[0],
        "rc": _pulse(root)["rc"],
        "kept": sorted(path.parent.name for path in root.seals.glob("*/tree")),
        "left": sorted(path.name for path in root.path.glob(".*")),
    }


def _start(root: Root, out: Path) -> subprocess.Popen[bytes]:
    """An attempt whose trainer is a process of ours; pushing is asked for and cannot work."""
    folder = root.attempt(1)
    for each in (folder, out):
        each.mkdir(parents=True)
    write_json(
        folder / "spec.json",
        {
            "v": 1,
            "instance": "i1",
            "attempt": 1,
            "workdir": str(out.parent),
            "command": "true",
            "env": {},
            "secrets": False,
            "checkpoints": "out",
            "layout": "huggingface",
            "world_size": 1,
            "resume_step": None,
        },
    )
    write_json(root.push, {"v": 1, "python": "/nonexistent"})
    trainer = subprocess.Popen(["sleep", "1000"])
    process = Process.of(trainer.pid)
    assert process
    for name in ("asked", "claim", "pid"):
        write_json(folder / name, {"v": 1, **process.to_json()})
    write_slot(folder / "exit.json", {"v": 1, "rc": None})
    return trainer


def _save(out: Path, step: int) -> None:
    for op in huggingface(step, 1).ops:
        apply(out, op)
    (out / f"checkpoint-{step}/optimizer.extra").write_bytes(os.urandom(WEIGHTS_BYTES))


def _fill(*, disk: Path, appended: tuple[Path, ...]) -> None:
    """To the last byte, those at the ends of files that are appended to included."""
    for path in appended:
        with path.open("ab") as file:
            file.write(b"#" * (-file.tell() % PAGE_BYTES - 1) + b"\n")
    with (disk / "filler").open("ab", buffering=0) as file:
        for size in (1024 * 1024, 4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue


def _sealed(root: Root) -> set[str]:
    return {str(f.data["name"]) for f in read(root.events) if f.kind == "checkpoint.sealed"}


def _pulse(root: Root) -> dict[str, Any]:
    return read_slot(root.heartbeat) or {}


def _next_pulse(root: Root) -> dict[str, Any]:
    before = _pulse(root)
    _await(lambda: _pulse(root) != before)
    return _pulse(root)


def _await(look: Callable[[], bool], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not look():
        if time.monotonic() > deadline:
            raise AssertionError("never seen")
        time.sleep(0.02)


if __name__ == "__main__":
    main()
