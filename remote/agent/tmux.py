"""The terminal that the trainer runs in, so that a person can attach and look."""

from __future__ import annotations

import os
import shutil
import subprocess

from remote.agent.paths import Root
from remote.agent.program import agent_command

SESSION = "train"
SOCKET = "tmux.sock"  # relative to the root: a socket's path may not exceed 107 bytes
MISSING = (
    "tmux is not installed on this box, and the trainer runs in it; nothing was started."
    " Install it in `setup:` (apt-get install -y tmux) or choose an image that has it"
)


class TmuxError(Exception):
    """tmux is missing or did not do what it was told."""


def check() -> None:
    """Raises TmuxError when there is no tmux."""
    if shutil.which("tmux") is None:
        raise TmuxError(MISSING)


def launch(root: Root, attempt: int) -> None:
    """Run the wrapper of `attempt` in the session `train`, in a window of its own when a person
    kept the session open. Raises TmuxError."""
    check()
    window = "attempt-%d" % attempt
    # As words and not as one text: then no login shell stands between, which may be nologin.
    wrapper = agent_command("run-trainer", root, "--attempt", str(attempt))
    new = ["new-session", "-d", "-s", SESSION, "-n", window, "-x", "200", "-y", "50", *wrapper]
    if _tmux(root, "has-session", "-t", "=" + SESSION).returncode == 0:
        new = ["new-window", "-d", "-t", "=%s:" % SESSION, "-n", window, *wrapper]
    done = _tmux(root, *new)
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()
        raise TmuxError("tmux could not start the trainer: %s" % said)


def _tmux(root: Root, *words: str) -> subprocess.CompletedProcess[bytes]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TMUX")}
    return subprocess.run(
        ["tmux", "-u", "-S", SOCKET, "-f", "/dev/null", *words],
        cwd=root.path,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        timeout=20,
    )
