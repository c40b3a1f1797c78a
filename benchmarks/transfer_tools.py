"""The ways to fetch a folder from a box, each as a command line: ours, and those it is beside."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from transfer_box import INSTANCE, RUN, Sealed, Served

HERE = Path(__file__).parent
ENGINE = "gpujob"
Command = Callable[[Served, Sealed, Path], list[str]]


@dataclass(frozen=True)
class Tool:
    """`command` makes the folder at its last argument from the checkpoint; ours makes a mirror with
    it inside. One that `tells` prints how long it took as JSON: its Python was started before, as
    the daemon's is."""

    name: str
    command: Command
    needs: str
    tells: bool = False
    is_ours: bool = False

    @property
    def is_here(self) -> bool:
        return find(self.needs) is not None or find_spec(self.needs) is not None


def find(program: str) -> str | None:
    """In this Python's environment, or in PATH."""
    return shutil.which(program, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")


def _gpujob(served: Served, sealed: Sealed, dest: Path) -> list[str]:
    return _engine(served, sealed, dest, lead_s=sealed.seal_s)


def _cold(served: Served, sealed: Sealed, dest: Path) -> list[str]:
    return _engine(served, sealed, dest, lead_s=0.0)


def _engine(served: Served, sealed: Sealed, dest: Path, *, lead_s: float) -> list[str]:
    asked = {
        "state": str(served.box.state),
        "endpoint": [INSTANCE, served.host, served.port, served.box.user],
        "run": RUN,
        "name": sealed.name,
        "size_bytes": sealed.size_bytes,
        "mirror": str(dest),
        "lead_s": lead_s,
    }
    return [sys.executable, str(HERE / "transfer_engine.py"), json.dumps(asked)]


def _scp(served: Served, sealed: Sealed, dest: Path) -> list[str]:
    return ["scp", "-q", "-r", "-F", str(served.config), f"box:{sealed.tree}", str(dest)]


def _sftp(served: Served, sealed: Sealed, dest: Path) -> list[str]:
    get = f"echo get -r {sealed.tree} {dest} | sftp -q -F {served.config} -b - box"
    return ["sh", "-c", get]


def _rsync(served: Served, sealed: Sealed, dest: Path) -> list[str]:
    return ["rsync", "-a", "-e", f"ssh -F {served.config}", f"box:{sealed.tree}/", f"{dest}/"]


def _tar(served: Served, sealed: Sealed, dest: Path) -> list[str]:
    pack = f"ssh -F {served.config} box tar -C {sealed.tree} -cf - ."
    return ["sh", "-c", f"mkdir {dest} && {pack} | tar -C {dest} -xf -"]


def _rclone(served: Served, sealed: Sealed, dest: Path) -> list[str]:
    options = {
        "--config": "/dev/null",
        "--sftp-host": served.host,
        "--sftp-port": str(served.port),
        "--sftp-user": served.box.user,
        "--sftp-key-file": str(served.box.key),
        "--sftp-known-hosts-file": str(served.known_hosts),
        "--sftp-ciphers": "aes128-gcm@openssh.com",
        "--transfers": "8",
        "--multi-thread-streams": "8",
        "--multi-thread-cutoff": "64M",
    }
    words = [word for option in options.items() for word in option]
    return [find("rclone") or "rclone", "copy", *words, f":sftp:{sealed.tree}", str(dest)]


def _paramiko(served: Served, sealed: Sealed, dest: Path) -> list[str]:
    asked = {
        "host": served.host,
        "port": served.port,
        "user": served.box.user,
        "key": str(served.box.key),
        "known_hosts": str(served.known_hosts),
        "tree": str(sealed.tree),
        "dest": str(dest),
    }
    return [sys.executable, str(HERE / "transfer_paramiko.py"), json.dumps(asked)]


TOOLS = (
    Tool(ENGINE, _gpujob, "ssh", tells=True, is_ours=True),
    Tool(f"{ENGINE}, cold", _cold, "ssh", tells=True, is_ours=True),
    Tool("scp -r", _scp, "scp"),
    Tool("sftp get -r", _sftp, "sftp"),
    Tool("rsync -a", _rsync, "rsync"),
    Tool("tar over ssh", _tar, "tar"),
    Tool("rclone x8", _rclone, "rclone"),
    Tool("paramiko", _paramiko, "paramiko", tells=True),
)
