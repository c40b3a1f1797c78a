"""The installation's client key, and the pinned host key of each box."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from orchestrator.adapters.durable import make_folder, sync_folder, write_whole
from orchestrator.errors import HostKeyChanged, Missing, Unreachable
from remote.contract import check_name

_KEY = re.compile(r"(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(?:256|384|521)) ([A-Za-z0-9+/]+={0,2})")
FINGERPRINT = "SHA256:"
SCAN_TIMEOUT_S = 10


class ClientKey:
    """One ed25519 key an installation, made at first use; processes that race agree on one."""

    def __init__(self, state: Path) -> None:
        self.path = state.absolute() / "ssh" / "key"

    def public(self) -> str:
        """The public key as one line, e.g. "ssh-ed25519 AAAA…". Raises Missing."""
        self.make()
        public = self.path.with_name("key.pub")
        if not public.exists():
            write_whole(public, _keygen("-y", "-f", str(self.path)).encode())
        return public.read_text().strip()

    def make(self) -> None:
        """A hard link takes the name only if nobody else did, and it is whole from birth."""
        if self.path.exists():
            return
        make_folder(self.path.parent)
        with TemporaryDirectory(dir=self.path.parent) as folder:
            made = Path(folder) / "key"
            _keygen("-q", "-t", "ed25519", "-N", "", "-C", "gpujob", "-f", str(made))
            with made.open("rb") as file:
                os.fsync(file.fileno())
            try:
                self.path.hardlink_to(made)
            except FileExistsError:
                return
        sync_folder(self.path.parent)


def known_hosts(state: Path, run: str, instance: str) -> Path:
    """Where the host keys of one instance are pinned, under its id instead of its address."""
    return state.absolute() / "runs" / check_name(run) / "known_hosts" / check_name(instance)


def pin(path: Path, keys: Sequence[str]) -> None:
    """Record `keys`. Raises HostKeyChanged when others are pinned. Repeatable."""
    wanted = [_checked(key) for key in keys]
    pinned = pinned_keys(path)
    if pinned and not set(wanted) & set(pinned):
        raise HostKeyChanged(
            f"{path.name} shows another host key than the one that was pinned: "
            f"{', '.join(wanted)} instead of {', '.join(pinned)}. Nothing was sent to it.",
            hint=f"if its provider says that it was made anew, remove {path}",
        )
    if set(wanted) != set(pinned):
        make_folder(path.parent)
        write_whole(path, "".join(f"{path.name} {key}\n" for key in wanted).encode())


def pin_matching(path: Path, fingerprints: Sequence[str], host: str, port: int) -> None:
    """Record those keys that answer there and have one of the `fingerprints` ("SHA256:…").

    Raises HostKeyChanged when none has, Unreachable when nothing answers. Repeatable."""
    told = set(fingerprints)
    if any(fingerprint(key) in told for key in pinned_keys(path)):
        return
    found = scan(host, port)
    matching = [key for key in found if fingerprint(key) in told]
    if not matching:
        raise HostKeyChanged(
            f"{path.name} ({host}:{port}) answers with {', '.join(map(fingerprint, found))}, and "
            f"its provider tells {', '.join(sorted(told))}. Nothing was sent to it.",
            hint="gpujob status shows what the provider says of this instance",
        )
    pin(path, matching)


def repin(path: Path, told: Sequence[str], host: str, port: int) -> bool:
    """Whether another key answers than the pinned one, which `told` (keys or fingerprints) vouches
    for; then it is pinned instead. Raises HostKeyChanged when nothing does, Unreachable."""
    found = scan(host, port)
    if set(found) & set(pinned_keys(path)):
        return False
    matching = [key for key in found if key in told or fingerprint(key) in told]
    if not matching:
        raise HostKeyChanged(
            f"{path.name} ({host}:{port}) answers with {', '.join(map(fingerprint, found))}, which "
            "its provider does not tell. Nothing was sent to it."
        )
    path.unlink(missing_ok=True)
    pin(path, matching)
    return True


def fingerprint(key: str) -> str:
    """What ssh-keygen -l shows of a public key: "SHA256:" and base64 without its padding."""
    digest = hashlib.sha256(base64.b64decode(key.split()[1])).digest()
    return f"{FINGERPRINT}{base64.b64encode(digest).decode().rstrip('=')}"


def pinned_keys(path: Path) -> list[str]:
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return []
    return [line.split(" ", 1)[1] for line in lines if line]


def scan(host: str, port: int) -> list[str]:
    """The host keys that answer there. Raises Unreachable."""
    command = ["ssh-keyscan", "-T", str(SCAN_TIMEOUT_S), "-p", str(port), host]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=3 * SCAN_TIMEOUT_S)
    except FileNotFoundError as error:
        raise _no_client() from error
    except subprocess.TimeoutExpired as error:
        raise Unreachable(f"{host}:{port} told no host key in time.") from error
    lines = [
        line.split(" ", 1)[1] for line in done.stdout.splitlines() if line[:1] not in ("", "#")
    ]
    keys = [key for key in lines if _KEY.fullmatch(key)]
    if not keys:
        said = done.stderr.strip()[-500:]
        raise Unreachable(f"{host}:{port} told no host key. {said}".strip())
    return keys


def _checked(key: str) -> str:
    match = _KEY.match(key)
    if match is None:
        raise HostKeyChanged(f"The provider told something that is no host key: {key[:80]!r}.")
    return f"{match[1]} {match[2]}"


def _keygen(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["ssh-keygen", *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError as error:
        raise _no_client() from error
    if done.returncode != 0:
        raise Missing(f"ssh-keygen failed: {done.stderr.strip()}", hint="gpujob doctor")
    return done.stdout


def _no_client() -> Missing:
    return Missing(
        "The OpenSSH client is not installed, and boxes are reached by it.",
        hint="sudo apt-get install openssh-client",
    )
