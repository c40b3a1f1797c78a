"""What this machine has of what jobs need."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from orchestrator.adapters.durable import make_folder
from orchestrator.adapters.local.box import SYSTEM_PATH, has_namespaces
from orchestrator.core.checks import Check, State

INSTALL = "sudo apt-get install"
LOW_DISK_GB, NO_DISK_GB = 20.0, 1.0
# Every job is driven over ssh; the rest is what a box on this machine is made of.
NEEDED = {"ssh": "openssh-client", "ssh-keygen": "openssh-client"}
FOR_LOCAL = {"sshd": "openssh-server", "tmux": "tmux"}


def check_machine(state: Path, path: str | None = None) -> Iterator[Check]:
    """Python, programs, namespaces, the state folder. `path` is where programs are looked for,
    else PATH and where sshd usually is."""
    yield Check("python", "ok", platform.python_version())
    places = path or f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}"
    for name, package in NEEDED.items():
        yield _program(name, package, places, "fail", "every job")
    for name, package in FOR_LOCAL.items():
        yield _program(name, package, places, "warn", "`local`")
    yield _namespaces()
    yield _state_folder(state)


def _program(name: str, package: str, places: str, without: State, who: str) -> Check:
    found = shutil.which(name, path=places)
    if found:
        return Check(name, "ok", found)
    return Check(name, without, f"not installed; {who} needs it", f"{INSTALL} {package}")


def _namespaces() -> Check:
    if shutil.which("unshare") and has_namespaces():
        return Check("unshare", "ok", "a local box gets a process namespace of its own")
    return Check(
        "unshare",
        "warn",
        "no process namespaces here; a local box is ended by a supervisor instead",
        "run as root, or: sudo sysctl kernel.unprivileged_userns_clone=1",
    )


def _state_folder(state: Path) -> Check:
    try:
        make_folder(state)
        with tempfile.TemporaryFile(dir=state):
            pass
        free_gb = shutil.disk_usage(state).free / 1e9
    except OSError as error:
        return Check(
            "state folder",
            "fail",
            f"{state} cannot be written: {error.strerror}",
            "make it writable, or set GPUJOB_HOME to another folder",
        )
    found = f"{state}, {free_gb:.0f} GB free"
    if free_gb >= LOW_DISK_GB:
        return Check("state folder", "ok", found)
    advice = "free some room: code and logs are kept there"
    return Check("state folder", "warn" if free_gb >= NO_DISK_GB else "fail", found, advice)
