"""Whatever only root may do is no proof: here a test runs as somebody else."""

from __future__ import annotations

import os
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534


@contextmanager
def folder_of_nobody() -> Iterator[Path]:
    """A folder that `as_nobody` may write to; pytest's own are root's alone."""
    folder = Path(tempfile.mkdtemp(prefix="gpujob-"))
    try:
        if os.geteuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
        yield folder
    finally:
        shutil.rmtree(folder)


def as_nobody(do: Callable[[], None]) -> None:
    """Run `do` in a child that is not root. Raises AssertionError with what it raised."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        _run(do, writer)
    os.close(writer)
    with os.fdopen(reader) as said:
        message = said.read()
    os.waitpid(child, 0)
    assert message == "done", message


def _run(do: Callable[[], None], writer: int) -> None:
    message = "done"
    try:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        do()
    except BaseException:
        message = traceback.format_exc()
    finally:
        os.write(writer, message.encode())
        os._exit(0)
