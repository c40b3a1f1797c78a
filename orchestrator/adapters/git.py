"""What the repository of a folder has checked out, asked of git."""

from __future__ import annotations

import subprocess
from pathlib import Path

from orchestrator.errors import Missing
from orchestrator.ports import Checkout

TIMEOUT_S = 20.0


def checkout(folder: Path) -> Checkout | None:
    """None for a folder in no repository, or one without a commit. Raises Missing without git."""
    commit = _git(folder, "rev-parse", "--verify", "HEAD")
    if not commit:
        return None
    return Checkout(_git(folder, "symbolic-ref", "--short", "-q", "HEAD"), commit)


def _git(folder: Path, *words: str) -> str:
    """The one line that it says; empty when it says no."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError as error:
        raise Missing(
            "git is not installed, and a phase asks what is checked out; nothing was rented",
            hint="install git, or remove `git:` from the phase",
        ) from error
    except subprocess.TimeoutExpired:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
