"""Copies in place of links, for file systems that cannot link. The source is opened at once, so
the trainer may delete it while the copy is made in another thread."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Dict, Optional

from remote.agent.scan import Identity

RESERVE = 0.05  # of the disk: the trainer has to write its next checkpoint
BLOCK_BYTES = 1024 * 1024


class Copies:
    """Copies under way and done. One thread asks; `folder` is where unfinished copies lie."""

    def __init__(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self._folder = folder
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="copy")
        self._jobs: Dict[Path, Future[Optional[Identity]]] = {}
        self._seen: Dict[Path, Identity] = {}
        self._promised: Dict[Path, int] = {}  # bytes of copies that are not on the disk yet

    def fits(self, folder: Path, identity: Identity) -> bool:
        """Whether there is room for a copy besides those that are under way."""
        disk = shutil.disk_usage(folder)
        left = disk.free - sum(self._promised.values()) - identity.size
        return left >= disk.total * RESERVE

    def want(self, source: Path, target: Path, identity: Identity) -> bool:
        """Whether `target` holds a copy of `source` as of `identity`. Starts one when the source
        looks as it did when last asked: a file that grows is not copied over and over.

        Raises OSError when the last copy failed or there is no room for one."""
        if self.finished(target) == identity:
            return True
        if target in self._jobs:
            return False
        if self._seen.get(target) == identity:
            self._start(source, target)
        self._seen[target] = identity
        return False

    def finished(self, target: Path) -> Optional[Identity]:
        """What `target` is a copy of, once; None while it is made. Raises what it failed with."""
        job = self._jobs.get(target)
        if job is None or not job.done():
            return None
        del self._jobs[target]
        del self._promised[target]
        return job.result()

    def pending(self, folder: Path) -> bool:
        return any(folder in target.parents for target in self._jobs)

    def spare(self) -> Path:
        """A name, on the file system of the pins, for what is not finished yet."""
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder / uuid.uuid4().hex

    def close(self) -> None:
        self._pool.shutdown(wait=True)

    def _start(self, source: Path, target: Path) -> None:
        try:
            file = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return
        found = os.fstat(file)
        identity = Identity.of(found)
        if not stat.S_ISREG(found.st_mode) or not self.fits(target.parent, identity):
            os.close(file)
            raise OSError(errno.ENOSPC, "no room to copy %s out of the trainer's reach" % source)
        self._promised[target] = identity.size
        self._jobs[target] = self._pool.submit(self._copy, file, target)

    def _copy(self, file: int, target: Path) -> Optional[Identity]:
        """None when the source changed meanwhile."""
        temporary = self.spare()
        try:
            with os.fdopen(file, "rb") as reader, temporary.open("xb") as writer:
                before = Identity.of(os.fstat(file))
                for _ in range(0, before.size, BLOCK_BYTES):  # what grows is not followed
                    writer.write(reader.read(BLOCK_BYTES))
                writer.flush()
                found = os.fstat(file)
                os.fchmod(writer.fileno(), stat.S_IMODE(found.st_mode))
                # By its time the next supervisor knows what it is a copy of.
                os.utime(writer.fileno(), ns=(found.st_atime_ns, found.st_mtime_ns))
                after = Identity.of(found)
            if before != after:
                return None
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary.replace(target)
            return after
        finally:
            temporary.unlink(missing_ok=True)
