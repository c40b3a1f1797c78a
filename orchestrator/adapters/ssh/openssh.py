"""An OpenSSH process as a link: no user configuration, a pinned key, and a watchdog.

The bulk goes through OpenSSH and not a Python library: measured, it needs a quarter of the CPU.
ServerAlive and our own deadline both end a dead link, which ssh alone would wait on for ever.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import IO

from orchestrator.adapters.link import STALL_S, Pipes
from orchestrator.errors import HostKeyChanged, Locked, Missing, ShellError, Unreachable, Wiped
from orchestrator.ports import Endpoint
from remote.contract import check_name, shell_words

CIPHERS = "aes128-gcm@openssh.com,aes256-gcm@openssh.com,chacha20-poly1305@openssh.com,aes128-ctr"
CONNECT_TIMEOUT_S = 20
STDERR_BYTES = 4096
PIPE_BYTES = 1024 * 1024
_HOST = re.compile(r"[A-Za-z0-9:][A-Za-z0-9.:_-]{0,254}")
_REFUSED = re.compile(r"^\S+: Permission denied \(", re.MULTILINE)
_NO_AGENT = re.compile(r"can't open file '[^']*agent\.pyz': \[Errno 2\]")
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9._-]{0,63}")


def agent_root(run: str) -> str:
    """The agent's root on a box, relative to the home folder."""
    return f".gpujob/{check_name(run)}"


def agent_command(run: str, *words: str) -> str:
    """The shell command that runs the agent's command `words[0]` with the other words, isolated
    from the user's site packages."""
    root = agent_root(run)
    python = ["python3", "-I", "-S", f"{root}/agent.pyz"]
    return shell_words([*python, words[0], "--root", root, *words[1:]])


def check_endpoint(endpoint: Endpoint) -> Endpoint:
    """What a provider told becomes arguments of ssh: refuse what could become an option."""
    if not (_HOST.fullmatch(endpoint.host) and _USER.fullmatch(endpoint.user)):
        raise Unreachable(f"Not a host and user: {endpoint.host!r}, {endpoint.user!r}.")
    return endpoint


def ssh_command(
    endpoint: Endpoint, *, key: Path, known_hosts: Path, tty: bool = False
) -> list[str]:
    """The words before the remote command. `tty` is for a person, who also gets a terminal."""
    check_endpoint(endpoint)
    options = {
        "BatchMode": "yes",
        "IdentityFile": _quoted(key),
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "HostKeyAlias": check_name(endpoint.instance),
        "UserKnownHostsFile": _quoted(known_hosts),
        "GlobalKnownHostsFile": "none",
        "StrictHostKeyChecking": "yes",
        "UpdateHostKeys": "no",
        "CheckHostIP": "no",
        "PermitLocalCommand": "no",
        "ControlPath": "none",
        "ConnectTimeout": str(CONNECT_TIMEOUT_S),
        "ServerAliveInterval": "5",
        "ServerAliveCountMax": "3",
        "Compression": "no",
        "Ciphers": CIPHERS,
        "LogLevel": "ERROR",
    }
    words = ["ssh", "-F", "none", "-a", "-x", "-t" if tty else "-T", "-p", str(endpoint.port)]
    for name, value in options.items():
        words += ["-o", f"{name}={value}"]
    return [*words, "-l", endpoint.user, "--", endpoint.host]


class SshLink(Pipes):
    """One ssh process in its own process group; `close` leaves nothing of it. The Link port."""

    def __init__(self, command: list[str], where: str, *, patience_s: float = STALL_S) -> None:
        self._where = where
        self._process = process = _spawn(command)
        said, read, write = map(_take, (process.stderr, process.stdout, process.stdin))
        super().__init__(read, write, patience_s=patience_s)
        self._said = _Drain(said)

    @property
    def pid(self) -> int:
        return self._process.pid

    def blame(self, error: Exception) -> ShellError:
        """Unreachable, Locked, Wiped or HostKeyChanged, with what ssh and the box said last."""
        self.end()
        said = self._said.text()
        if "Host key verification failed" in said or "HOST IDENTIFICATION HAS CHANGED" in said:
            return HostKeyChanged(
                f"{self._where} answers with another host key than the one pinned. "
                "Nothing was sent to it.",
                hint="gpujob status shows what the provider says of this instance",
            )
        if _REFUSED.search(said):
            return Locked(f"{self._where} answers and does not take our key.")
        if _NO_AGENT.search(said):
            return Wiped(f"{self._where} has no agent.pyz any more: its disk was emptied.")
        return Unreachable(f"The link to {self._where} broke: {error}. {said}".strip())

    def end(self) -> None:
        """Kill the process group and reap it; another thread that reads sees the end."""
        if self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        self.end()
        self._said.close()
        super().close()


class _Drain:
    """Reads a descriptor to its end in a thread, so that nobody blocks on a full pipe, and
    keeps the last 4 KiB: the other side may say as much as it likes."""

    def __init__(self, fd: int) -> None:
        self._kept: deque[int] = deque(maxlen=STDERR_BYTES)
        self._thread = threading.Thread(target=self._read, args=(fd,), daemon=True)
        self._thread.start()

    def text(self) -> str:
        self._thread.join(timeout=1.0)
        return bytes(self._kept).decode(errors="replace").strip()

    def close(self) -> None:
        self._thread.join(timeout=1.0)

    def _read(self, fd: int) -> None:
        with os.fdopen(fd, "rb", buffering=0) as pipe:
            while block := pipe.read(65536):
                self._kept.extend(block)


def _spawn(command: list[str]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            pipesize=PIPE_BYTES,
        )
    except FileNotFoundError as error:
        raise Missing(
            "The OpenSSH client is not installed, and boxes are reached by it.",
            hint="sudo apt-get install openssh-client",
        ) from error


def _take(pipe: IO[bytes] | None) -> int:
    """A descriptor that is ours to close, of a pipe that Popen would close."""
    assert pipe is not None
    with pipe:
        return os.dup(pipe.fileno())


def _quoted(path: Path) -> str:
    """A file name as ssh reads option values: quotes against blanks, %% against tokens."""
    text = str(path).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{text}"'
