"""A box to fetch from: the local provider's own kind of sshd with an sftp server and an address,
the real agent, and checkpoints that it sealed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.adapters.local import box
from orchestrator.adapters.local.folder import Folder, Record
from orchestrator.adapters.ssh import SshBoxes
from orchestrator.adapters.ssh.openssh import CIPHERS
from orchestrator.adapters.zipapp import build_agent
from remote.contract import MARKER

RUN, INSTANCE = "bench-1", "bench-1-1"
WAIT_S = 120.0
DIE_WITH_US = ("setpriv", "--pdeathsig", "KILL")
SFTP_SERVERS = ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server")

# What a trainer of ours does at the end of a save: the files, then the marker, by rename.
SAVE = 'mkdir -p "out/$1" && mv "$2"/* "out/$1/" && touch "$3" && mv "$3" "out/$1/{marker}"'


@dataclass(frozen=True)
class Sealed:
    """A checkpoint on the box: what the engine asks for by name, the others by its folder."""

    what: str
    name: str
    tree: Path
    size_bytes: int
    seal_s: float


class Box:
    """One home folder on this machine; sshd may serve it at several addresses. A context."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "state"
        self._folder = Folder(folder / "box")
        self._folder.path.mkdir(parents=True)
        self._tools = box.find_tools()
        self.boxes = SshBoxes(self.state)
        user = os.environ.get("USER", "") if os.geteuid() else "root"
        self.user = user or subprocess.check_output(["id", "-un"], text=True).strip()
        record = Record(
            "local-bench", INSTANCE, "", "", 0.0, datetime.now(UTC), self.user, 0, "supervisor"
        )
        box.write_keys(self._folder, self._tools, self.boxes.public_key())
        box.write_files(self._folder, self._folder, record)
        self._root = self._folder.home / ".gpujob" / RUN
        self._work = self._folder.home / "gpujob" / RUN
        for each in (self._root, self._work):
            each.mkdir(parents=True)
        (self._root / "agent.pyz").write_bytes(build_agent())
        self._attempt = 0

    @property
    def key(self) -> Path:
        return self.state / "ssh" / "key"

    def host_key(self) -> str:
        words = (self._folder.sshd / "host_key.pub").read_text().split()
        return " ".join(words[:2])

    def serve(self, address: str, enter: list[str]) -> Served:
        """Start an sshd at `address`, by the words of `enter` before its command line."""
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        config = (self._folder.sshd / "config").read_text()
        config = config.replace("ListenAddress 127.0.0.1", f"ListenAddress {address}")
        server = next(path for path in SFTP_SERVERS if Path(path).exists())
        path = self._folder.sshd / f"config-{address}"
        path.write_text(f"{config}Subsystem sftp {server}\n")
        port = _free_port()
        command = [
            *DIE_WITH_US,
            *enter,
            self._tools.sshd,
            "-D",
            "-e",
            "-f",
            str(path),
            "-p",
            str(port),
        ]
        return Served(self, address, port, command, self._folder.sshd / f"log-{address}")

    def seal(self, what: str, tree: Path) -> Sealed:
        """Have the agent seal what lies in `tree`, which is used up. The time counts from the
        trainer's marker to the manifest."""
        self._attempt += 1
        name = f"checkpoint-{self._attempt}"
        marker = tree.with_name(f"{name}.marker")
        marker.write_text(json.dumps(_marker(name, self._attempt, tree)))
        spec = _spec(self._attempt, SAVE.format(marker=MARKER), [name, str(tree), str(marker)])
        folder = self._root / "attempts" / str(self._attempt)
        folder.mkdir(parents=True)
        (folder / "spec.json").write_text(json.dumps(spec))
        self._agent("start", "--instance", INSTANCE, "--attempt", str(self._attempt))
        seal = self._root / "seals" / f"{name}.1"
        _until(lambda: (seal / "manifest.json").exists(), f"the seal of {name}")
        sealed_at = (seal / "manifest.json").stat().st_mtime
        complete_at = (self._work / "out" / name / MARKER).stat().st_mtime
        _until(self._is_settled, "the agent to settle")
        self._end_agent()
        shutil.rmtree(self._work / "out")
        shutil.rmtree(self._root / "pins", ignore_errors=True)
        size = sum(path.stat().st_size for path in (seal / "tree").rglob("*") if path.is_file())
        return Sealed(what, name, seal / "tree", size, sealed_at - complete_at)

    def forget(self, sealed: Sealed) -> None:
        shutil.rmtree(sealed.tree.parent)

    def __enter__(self) -> Box:
        return self

    def __exit__(self, *error: object) -> None:
        self._end_agent()

    def _agent(self, *words: str) -> None:
        command = [sys.executable, str(self._root / "agent.pyz"), *words]
        home = {"HOME": str(self._folder.home), "PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
        subprocess.run(
            [*command, "--root", str(self._root)],
            env=home,
            stdout=subprocess.DEVNULL,
            check=True,
        )

    def _is_settled(self) -> bool:
        told = (self._root / "events.jsonl").read_text().splitlines()
        facts = [json.loads(line) for line in told]
        return any(
            fact["kind"] == "agent.settled" and fact["data"]["attempt"] == self._attempt
            for fact in facts
        )

    def _end_agent(self) -> None:
        """Its supervisor would go on looking for checkpoints; `serve` does not need it."""
        with suppress(OSError, ValueError, ProcessLookupError):
            pid = int(json.loads((self._root / "agent.json").read_text())["pid"])
            os.kill(pid, signal.SIGKILL)
            _until(lambda: not _runs(pid), "the agent's end")


class Served:
    """The box at one address; a context."""

    def __init__(self, box: Box, host: str, port: int, command: list[str], log: Path) -> None:
        self.box, self.host, self.port = box, host, port
        with log.open("wb") as said:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=said)
        try:
            _until(lambda: b"Server listening" in log.read_bytes(), "sshd to listen")
        except BaseException:
            self.close()
            raise
        box.boxes.pin(INSTANCE, RUN, [box.host_key()], host, port)
        self.known_hosts = log.with_name(f"known-{host}")
        self.known_hosts.write_text(f"[{host}]:{port} {box.host_key()}\n")
        self.config = log.with_name(f"ssh-{host}")
        self.config.write_text(_client_config(self))

    def cpu_s(self) -> float:
        """What its sessions have used; asks once all of them have ended."""
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children")
        _until(lambda: not children.read_text().strip(), "the end of the sessions")
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return sum(int(ticks) for ticks in fields[11:15]) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _client_config(served: Served) -> str:
    """For everybody else's tools, with the ciphers that ours asks for: they lose nothing."""
    return f"""Host box
HostName {served.host}
Port {served.port}
User {served.box.user}
IdentityFile {served.box.key}
IdentitiesOnly yes
UserKnownHostsFile {served.known_hosts}
StrictHostKeyChecking yes
BatchMode yes
Compression no
Ciphers {CIPHERS}
LogLevel ERROR
"""


def _marker(name: str, step: int, tree: Path) -> dict[str, object]:
    files = [path for path in sorted(tree.rglob("*")) if path.is_file()]
    listed = [
        {"path": path.relative_to(tree).as_posix(), "size": path.stat().st_size} for path in files
    ]
    head = {"v": 1, "name": name, "step": step, "world_size": 1}
    return {**head, "nonce": "bench", "files": listed}


def _spec(attempt: int, script: str, words: list[str]) -> dict[str, object]:
    quoted = " ".join(f"'{word}'" for word in words)
    return {
        "v": 1,
        "instance": INSTANCE,
        "attempt": attempt,
        "workdir": f"gpujob/{RUN}",
        "command": f"sh -c '{script}' sh {quoted}",
        "env": {"GPUJOB_CHECKPOINT_DIR": "out"},
        "secrets": False,
        "path": None,
        "checkpoints": "out",
        "layout": "huggingface",
        "world_size": 1,
        "resume_step": None,
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {WAIT_S:.0f} s for {what}")
        time.sleep(0.02)
