"""One at a time, over all threads and all processes of this machine."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path
from types import TracebackType

from orchestrator.adapters.durable import make_folder


class Exclusive:
    """A lock that is the same for everybody who names the same file; entering waits for its turn
    and raises OSError when the file cannot be made. The kernel gives back what a dead one held."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ours = threading.Lock()
        self._file = -1

    def __enter__(self) -> None:
        self._ours.acquire()
        try:
            make_folder(self._path.parent)
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX)
        except BaseException:
            self._release()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._release()

    def _release(self) -> None:
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)
        self._ours.release()
