"""The stream-chaos campaign: each seed moves a tree while connections are cut, stalled and garbled
and processes are killed; at the end every file has to be there, byte for byte."""

from __future__ import annotations

import filecmp
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from kit.chaos import Proxy, plan
from kit.served import HERE, environment, serve, small, write_sizes

KINDS = ["cut", "cut", "cut all", "stall", "flip", "flip", "server", "client"]
MOST_FAULTS = 9
LIMIT_S = 120.0
MIB = 1024 * 1024

SEAL = """
import sys
from pathlib import Path
from remote.agent.scan import list_tree
from remote.agent.sealing import Job, make_seal
root = Path(sys.argv[1])
pin = root / "pins" / "checkpoint-1.1"
make_seal(Job(seals=root / "seals", pin=pin, files=list_tree(pin), copied=frozenset(), known={},
    name="checkpoint-1", generation=1, attempt=1, step=1, max_steps=None, world_size=1,
    final=False))
"""


def stream_chaos(seeds: list[int], folder: Path) -> Iterator[dict[str, Any]]:
    """Three of four seeds fetch, the others send. One sealed tree serves them all."""
    root = make_sealed(folder / "box")
    for seed in seeds:
        yield survive(seed, folder / str(seed), root)
        shutil.rmtree(folder / str(seed), ignore_errors=True)


def make_sealed(home: Path) -> Path:
    """The agent's root with a sealed tree of large, middle, small and empty files."""
    root, rng = home / ".gpujob" / "run", random.Random(7)
    sizes = [3 * MIB + 17, MIB, 256 * 1024, *(rng.randrange(1, 70_000) for _ in range(40)), 0, 1]
    write_sizes(root / "pins" / "checkpoint-1.1", rng, sizes)
    subprocess.run([*small(SEAL), str(root)], env=environment(home), check=True)
    return root


def survive(seed: int, folder: Path, root: Path) -> dict[str, Any]:
    """One seed, in an empty folder."""
    rng = random.Random(seed)
    folder.mkdir(parents=True)
    sealed = root / "seals" / "checkpoint-1.1"
    size = sum(path.stat().st_size for path in (sealed / "tree").rglob("*") if path.is_file())
    faults = plan(rng, KINDS, rng.randrange(1, MOST_FAULTS), size)
    what = "push" if seed % 4 == 3 else "pull"
    body = "import sys; from sim.stream_victim import main; main()"
    way = ["--socket", str(folder / "socket")]
    client = Client(what, folder, sealed, program=small(body), way=way)
    # A box that pushes takes the bytes in: its root is a new one, which holds none of them.
    served = folder / "root" if what == "push" else root
    served.mkdir(exist_ok=True)
    proxy = Proxy(
        _listener(folder / "socket"),
        lambda: serve(folder, served),
        faults,
        seed,
        kill_client=client.kill,
    )
    try:
        began = time.monotonic()
        violations = client.run()
    finally:
        client.kill()
        proxy.close()
    if not violations:
        violations = differences(sealed / "tree", client.dest)
    return {
        "seed": seed,
        "what": what,
        "faults": proxy.happened,
        "connections": proxy.connections,
        "killed": client.killed,
        "tries": client.tries,
        "payload_bytes": size,
        "moved_bytes": proxy.up if what == "push" else proxy.down,
        "seconds": round(time.monotonic() - began, 2),
        "violations": violations,
    }


class Client:
    """The victim, begun again whenever it was killed. `program` is how it is begun, and `way` the
    words that say how it reaches the box."""

    def __init__(
        self, what: str, folder: Path, sealed: Path, *, program: list[str], way: list[str]
    ) -> None:
        self.dest = folder / ("arrived" if what == "push" else "arrived.partial")
        self.killed = 0
        self.tries = 0
        words = ["--manifest", sealed / "manifest.json"]
        words += ["--source", sealed / "tree", "--dest", self.dest]
        self._command = [*program, what, *way, *map(str, words)]
        self._environment = environment(folder)
        self._process: subprocess.Popen[str] | None = None

    def run(self) -> list[str]:
        """What is wrong with how it ended."""
        deadline = time.monotonic() + LIMIT_S
        while True:
            self._process = subprocess.Popen(
                self._command,
                cwd=HERE,
                env=self._environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            try:
                _, said = self._process.communicate(timeout=max(1.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self.kill()
                return [
                    f"not done within {LIMIT_S:.0f} s: {self._process.communicate()[1][-2000:]}"
                ]
            self.tries += 1 + said.count("\n")
            if self._process.returncode == 0:
                return []
            if self._process.returncode != -9:
                return [f"the client ended with {self._process.returncode}: {said[-2000:]}"]
            self.killed += 1

    def kill(self) -> None:
        process = self._process
        if process and process.poll() is None:
            with suppress(ProcessLookupError):
                process.kill()


def _listener(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(32)
    return listener


def differences(tree: Path, arrived: Path) -> list[str]:
    """A line for each file that is not in both with the same bytes."""
    names = {path.relative_to(tree) for path in tree.rglob("*") if path.is_file()}
    found = {path.relative_to(arrived) for path in arrived.rglob("*") if path.is_file()}
    wrong = [f"{name} is missing or too many" for name in sorted(names ^ found)]
    same = {
        name for name in names & found if filecmp.cmp(tree / name, arrived / name, shallow=False)
    }
    return wrong + [f"{name} has other bytes" for name in sorted((names & found) - same)]
