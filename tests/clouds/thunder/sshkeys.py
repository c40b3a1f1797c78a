"""SSH keys as Thunder takes and makes them (§1.3, §3)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from clouds.thunder.replies import invalid

KINDS = ("ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-")
MARK = "gpujob-"


def checked_key(key: Any) -> str:
    """A public key in one line. Raises Refusal, also for a newline at its end."""
    words = key.split() if isinstance(key, str) else []
    if len(words) < 2 or not words[0].startswith(KINDS):
        raise invalid("invalid public key")
    if "\n" in key or "\r" in key:
        raise invalid("the public key must be a single line")
    return str(key)


def key_pair() -> tuple[str, str]:
    """A new private key (PEM) and its public half. Blocks for some milliseconds."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "key"
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "thunder", "-f", str(path)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True)
        return path.read_text(), path.with_suffix(".pub").read_text().strip()


def fingerprint(key: str) -> str:
    """As `ssh-keygen -l` has it; "" for what is no base64."""
    try:
        blob = base64.b64decode(key.split()[1], validate=True)
    except (binascii.Error, ValueError):
        return ""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def mark_of(keys: list[str]) -> str:
    """Whose instance it is: the first key comment that is a mark."""
    comments = (word for key in keys for word in key.split()[2:3])
    return next((each for each in comments if each.startswith(MARK)), "")
