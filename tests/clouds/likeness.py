"""What makes a local box look like the vendor's: its user, its keys, its GPUs."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.adapters.local.folder import Folder, Record


def record(folder: Folder, user: str) -> Record:
    return Record(
        provider_id=folder.path.name,
        instance=folder.path.name,
        mark=folder.path.name,
        offer="cloud",
        usd_per_hour=0.0,
        created_at=datetime.now(UTC),
        user=user,
        port=0,
        isolation="namespace",
    )


def passwd(user: str, home: Path) -> bytes:
    """This machine's accounts, with `user` as the first name of whoever runs us."""
    uid, gid = os.geteuid(), os.getegid()
    line = f"{user}:x:{uid}:{gid}:{user}:{home}:/bin/bash\n"
    others = Path("/etc/passwd").read_text().splitlines(keepends=True)
    return (line + "".join(each for each in others if not each.startswith(f"{user}:"))).encode()


def new_host_key(folder: Folder) -> None:
    for path in folder.sshd.glob("host_key*"):
        path.unlink()
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f"]
    subprocess.run([*command, str(folder.sshd / "host_key")], check=True, capture_output=True)


def fingerprint(public_key: str) -> str:
    blob = base64.b64decode(public_key.split()[1])
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def nvidia_smi(model: str, count: int) -> str:
    """What `nvidia-smi -L` prints; without a GPU it says so and fails, as the real one does."""
    lines = "".join(
        f"echo 'GPU {n}: {model} (UUID: GPU-00000000-0000-0000-0000-{n:012d})'\n"
        for n in range(count)
    )
    return f"#!/bin/sh\n{lines}" if count else "#!/bin/sh\necho 'No devices were found'\nexit 6\n"
