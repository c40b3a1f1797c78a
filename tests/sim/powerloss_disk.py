"""A disk that can lose its power: LazyFS keeps every byte that was not fsynced to itself, and
forgets it when it is told to. Names, on the other hand, are on its disk at once."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from types import TracebackType

HOW_TO_GET_IT = """LAZYFS has to name the program of LazyFS (github.com/dsrhaslab/lazyfs).
It is not here.
With g++, libfuse3-dev, libspdlog-dev, libtoml11-dev and fuse3, in its folder:
  g++ -std=c++17 -O1 -DFMT_HEADER_ONLY -Ilibs/libpcache/include -Ilazyfs/include \\
    $(pkg-config --cflags fuse3) $(find libs/libpcache/src lazyfs/src -name '*.cpp') \\
    lazyfs/include/lazyfs/fusepp/Fuse.cpp -o lazyfs.bin $(pkg-config --libs fuse3 spdlog) -lpthread
then: make campaign NAME=power-loss SEEDS=100 LAZYFS=$PWD/lazyfs.bin"""
MOUNT_S, FORGET_S = 30.0, 30.0
CONFIG = """[faults]
fifo_path="{faults}"
fifo_path_completed="{done}"
[cache]
apply_eviction=false
[cache.simple]
custom_size="0.5gb"
blocks_per_page=1
[filesystem]
log_all_operations=false
logfile=""
"""


class LazyDisk:
    """Mounted at `path` while the context lasts."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "disk"
        self._folder = folder
        self._faults, self._done = folder / "faults", folder / "done"

    def __enter__(self) -> LazyDisk:
        for path in (self.path, self._folder / "below"):
            path.mkdir(parents=True)
        for fifo in (self._faults, self._done):
            os.mkfifo(fifo)
        self._answers = os.open(self._done, os.O_RDWR | os.O_NONBLOCK)  # both ends: none waits
        text = CONFIG.format(faults=self._faults, done=self._done)
        (self._folder / "lazyfs.toml").write_text(text)
        self._mount()
        return self

    def lose_power(self) -> None:
        """Forget what was written and not fsynced, and come up again: the kernel, too, shall
        remember nothing. Whoever wrote has to be dead."""
        with self._faults.open("w") as faults:
            faults.write("lazyfs::clear-cache\n")
        deadline = time.monotonic() + FORGET_S
        while not self._has_forgotten():
            assert time.monotonic() < deadline, "LazyFS did not say that it forgot"
            time.sleep(0.01)
        self._unmount()
        self._mount()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._unmount()
        os.close(self._answers)

    def _mount(self) -> None:
        command = [program(), str(self.path), "-f"]
        command += ["--config-path", str(self._folder / "lazyfs.toml")]
        command += ["-o", "modules=subdir", "-o", f"subdir={self._folder / 'below'}"]
        with (self._folder / "lazyfs.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + MOUNT_S
        while not self._is_mounted():
            assert self._process.poll() is None, f"LazyFS ended: {self._process.returncode}"
            assert time.monotonic() < deadline, "LazyFS is not mounted"
            time.sleep(0.02)

    def _unmount(self) -> None:
        """A killed LazyFS keeps nothing; asked to end, it aborts, which takes its time."""
        self._process.kill()
        self._process.wait()
        unmount = ["fusermount3", "-uz", str(self.path)]
        deadline = time.monotonic() + MOUNT_S
        while self._is_mounted():
            assert time.monotonic() < deadline, f"{self.path} is still mounted"
            subprocess.run(unmount, capture_output=True, check=False)

    def _is_mounted(self) -> bool:
        mounts = Path("/proc/self/mounts").read_text().splitlines()
        return any(line.split()[1] == str(self.path) for line in mounts)

    def _has_forgotten(self) -> bool:
        try:
            return b"finished" in os.read(self._answers, 200)
        except BlockingIOError:
            return False


def program() -> str:
    """Where LazyFS is. Raises SystemExit, with how to get it, when it is nowhere."""
    found = os.environ.get("LAZYFS", "")
    if not found or not os.access(found, os.X_OK):
        raise SystemExit(HOW_TO_GET_IT)
    return found
