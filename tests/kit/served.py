"""`agent serve` behind a socket, without ssh: real processes, and chunks small enough that a few MB
hold many of them."""

from __future__ import annotations

import os
import random
import select
import socket
import subprocess
import sys
from pathlib import Path

import remote
from kit.chaos import Back
from orchestrator.adapters.link import Pipes
from orchestrator.adapters.stream import Tuning
from orchestrator.errors import Unreachable
from remote.contract import Manifest

SMALL_CHUNK = 256 * 1024
# Both sides of a transfer have to agree on it, so each process is begun with these words.
_SMALL = f"import remote.contract as c; c.CHUNK_BYTES = {SMALL_CHUNK}; "
_AGENT = _SMALL + "from remote.agent.__main__ import main; main()"
HERE = Path(next(iter(remote.__path__))).parent
KIB, MIB = 1024, 1024 * 1024
START_S = 15.0
QUICK = Tuning(
    block_bytes=16 * KIB,
    piece_bytes=64 * KIB,
    least_bytes=16 * KIB,
    depth_bytes=192 * KIB,
    most_depth_bytes=256 * KIB,
    most_streams=4,
    share_bytes=1536 * KIB,
    long_share_bytes=1536 * KIB,
    window_s=0.05,
    spacing_s=0.005,
    retry_s=0.02,
    retry_most_s=0.2,
    late_s=0.1,
)


def small(words: str) -> list[str]:
    """A command line that runs Python `words` with small chunks."""
    return [sys.executable, "-c", _SMALL + words]


def environment(home: Path) -> dict[str, str]:
    path = os.pathsep.join([str(HERE), str(HERE / "tests")])
    return {"HOME": str(home), "PATH": "/usr/bin:/bin", "PYTHONPATH": path}


def serve(home: Path, root: Path) -> Back:
    """A new `agent serve`, with small chunks."""
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-c", _AGENT, "serve", "--root", str(root)]
    with theirs:
        process = subprocess.Popen(command, stdin=theirs, stdout=theirs, env=environment(home))

    def close() -> None:
        process.kill()
        process.wait()

    return Back(ours, process.kill, close)


class ProxyLink(Pipes):
    """A link to whatever listens on a Unix socket. The Link protocol."""

    def __init__(self, path: Path, patience_s: float) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise Unreachable(f"nobody listens: {error}") from error
        # A process has to begin first, which on a busy machine is no stall.
        select.select([self._socket], [], [], START_S)
        ends = (os.dup(self._socket.fileno()), os.dup(self._socket.fileno()))
        super().__init__(*ends, patience_s=patience_s)

    def blame(self, error: Exception) -> Exception:
        return Unreachable(f"the link broke: {error}")

    def end(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            return

    def close(self) -> None:
        self.end()
        self._socket.close()
        super().close()


def write_sizes(root: Path, rng: random.Random, sizes: list[int]) -> None:
    """Files of random bytes, some of them in folders."""
    for number, size in enumerate(sizes):
        path = root / (f"file-{number}" if number % 3 else f"folder/file-{number}")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            for first in range(0, size, MIB):
                file.write(rng.randbytes(min(MIB, size - first)))


def read_manifest(path: Path) -> Manifest:
    return Manifest.decode(path.read_bytes())
