"""What the trainer's end-to-end tests share: a tiny model, chat data, runs of real ranks."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from remote.contract import MARKER

REPOSITORY = Path(__file__).parents[2]
SERVER = Path(__file__).parent / "programs" / "warm_ranks.py"
# How ranks are started: so many forked from a process that has imported everything, or a module.
OWN = ("remote.trainer.launch", "--ranks", "2")
TORCHRUN = (
    *("torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "remote.trainer"),
)
ALONE = ("remote.trainer",)
How = int | tuple[str, ...]
WORDS = ("the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "and", "sleeps")


def workshop(folder: Path) -> Path:
    """A work folder with `tiny/` and `chat.jsonl`; built in a child, which imports torch."""
    text = folder / "text.txt"
    text.write_text("\n".join(" ".join(WORDS[i % 7 :]) for i in range(200)))
    command = [sys.executable, "-m", "remote.trainer.tiny", "--out", "tiny", "--texts", str(text)]
    command += ["--hidden", "32", "--vocabulary", "300"]
    subprocess.run(command, cwd=folder, env=environment(folder), check=True, capture_output=True)
    write_chats(folder / "chat.jsonl", 64)
    return folder


def write_chats(path: Path, count: int) -> None:
    with path.open("w") as file:
        for i in range(count):
            answer = " ".join(WORDS[(i + j) % len(WORDS)] for j in range(1 + i % 9))
            chat = [
                {"role": "user", "content": f"Say it {i} times."},
                {"role": "assistant", "content": answer},
            ]
            file.write(json.dumps({"messages": chat}) + "\n")


def write_pairs(folder: Path) -> None:
    """`pairs.jsonl`: each chat of `chat.jsonl`, and the answer of another one as the worse."""
    chats = _chats(folder)
    pairs = zip(chats, [*chats[5:], *chats[:5]], strict=True)
    lines = (json.dumps({"chosen": one, "rejected": [one[0], other[1]]}) for one, other in pairs)
    (folder / "pairs.jsonl").write_text("\n".join(lines))


def write_distillation(folder: Path) -> None:
    """`distill.jsonl`: the chats of `chat.jsonl` as a teacher's answers."""
    rows = ({"content": c[:1], "teacher_response": c[1]["content"]} for c in _chats(folder))
    (folder / "distill.jsonl").write_text("\n".join(map(json.dumps, rows)))


def _chats(folder: Path) -> list[list[dict[str, str]]]:
    lines = (folder / "chat.jsonl").read_text().splitlines()
    return [json.loads(line)["messages"] for line in lines]


def settings(folder: Path, name: str, *, stage: int | None = None, **changes: Any) -> str:
    """Write `name`.json; return its name."""
    args = {"per_device_train_batch_size": 2, "learning_rate": 0.01, **changes.pop("args", {})}
    train = {"method": "sft", "model": "tiny", "data": "chat.jsonl", "max_seq_length": 64}
    if stage is not None:
        train["deepspeed"] = str(REPOSITORY / "jobs" / "deepspeed" / f"zero{stage}.json")
    (folder / f"{name}.json").write_text(json.dumps({**train, "args": args, **changes}))
    return f"{name}.json"


def environment(folder: Path, **more: str) -> dict[str, str]:
    """A home and a temporary folder of its own, so that what is littered is found."""
    own = {"HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp")}
    for path in own.values():
        Path(path).mkdir(exist_ok=True)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GPUJOB_")}
    return {**kept, **own, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", **more}


class Warm:
    """Processes forked by programs/warm_ranks.py; what tests use of `subprocess.Popen`."""

    _server: subprocess.Popen[str] | None = None

    def __init__(self, ranks: int, argv: list[str], *, cwd: Path, log: Path, env: dict[str, str]):
        self._rc = log.with_suffix(".rc")
        self._rc.unlink(missing_ok=True)
        request = {"ranks": ranks, "cwd": str(cwd), "env": env, "argv": argv, "log": str(log)}
        server = self._serving(env)
        assert server.stdin and server.stdout
        server.stdin.write(json.dumps({**request, "rc": str(self._rc)}) + "\n")
        server.stdin.flush()
        self.pid = int(server.stdout.readline())

    def poll(self) -> int | None:
        gone = not psutil.pid_exists(self.pid)
        if self._rc.exists():
            return int(self._rc.read_text())
        return -signal.SIGKILL if gone else None

    def wait(self, timeout: float = 240) -> int:
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            assert time.monotonic() < deadline, f"not ended within {timeout} s"
            time.sleep(0.02)
        return code

    @classmethod
    def _serving(cls, env: dict[str, str]) -> subprocess.Popen[str]:
        """It ends with this process, whose end of the pipe it reads."""
        if cls._server is None:
            cls._server = subprocess.Popen(
                [sys.executable, str(SERVER)],
                env={**env, "HF_HUB_OFFLINE": "1", "DS_ACCELERATOR": "cpu"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        return cls._server


Process = Warm | subprocess.Popen[bytes]


@contextlib.contextmanager
def started(
    folder: Path, train: str, out: str, *words: str, how: How = 2, **env: str
) -> Iterator[Process]:
    """The ranks of one run, in the background; whatever is left of them is killed at the end."""
    more = environment(folder, GPUJOB_CHECKPOINT_DIR=out, GPUJOB_METRICS=f"{out}.jsonl", **env)
    process = _start(folder, [train, *words], folder / f"{out}.log", how, more)
    try:
        yield process
    finally:
        kill(process)


def _start(folder: Path, argv: list[str], log: Path, how: How, env: dict[str, str]) -> Process:
    if isinstance(how, int):
        return Warm(how, argv, cwd=folder, log=log, env=env)
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", *how, *argv],
            cwd=folder,
            env=env,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )


def run(folder: Path, train: str, out: str, *words: str, **more: Any) -> int:
    """Run to the end; return the exit code. The log is `out`.log."""
    with started(folder, train, out, *words, **more) as process:
        return process.wait(timeout=240)


def kill(process: Process) -> None:
    """SIGKILL the launcher and every rank (torchrun gives each its own session)."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_for(path: Path, process: Process, *, text: str = "") -> None:
    """Wait until `path` is there and holds `text`; fail with the log when the run ends first."""
    deadline = time.monotonic() + 240
    while not (path.exists() and text in path.read_text()):
        assert process.poll() is None, "the run ended before its time"
        assert time.monotonic() < deadline, f"{path} did not come"
        time.sleep(0.05)


def metrics(folder: Path, out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{out}.jsonl").read_text().splitlines()]


def marker(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / MARKER).read_text()))


def listed(folder: Path, *, subfolders: bool = True) -> list[dict[str, Any]]:
    """What a marker of `folder` has to list, found without the code under test."""
    entries = []
    for top, folders, names in os.walk(folder):
        if not subfolders:
            folders.clear()
        for name in names:
            path = Path(top, name)
            if name != MARKER:
                relative = str(path.relative_to(folder))
                entries.append({"path": relative, "size": os.path.getsize(path)})  # noqa: PTH202
    return sorted(entries, key=lambda entry: str(entry["path"]))
