"""What a repository has checked out, by real git."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from orchestrator.adapters.git import checkout
from orchestrator.errors import Missing


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=me", "-c", "user.email=me@example.org"]
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *words], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "code"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    (folder / "a.py").write_text("1\n")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "one")
    return folder


def test_branch_and_commit(repository: Path) -> None:
    found = checkout(repository)
    assert found and (found.branch, found.commit) == ("main", git(repository, "rev-parse", "HEAD"))
    (repository / "below").mkdir()
    assert checkout(repository / "below") == found


def test_a_commit_without_a_branch(repository: Path) -> None:
    git(repository, "switch", "-q", "--detach")
    found = checkout(repository)
    assert found and found.branch == "" and len(found.commit) == 40


def test_no_repository_or_no_commit(tmp_path: Path) -> None:
    assert checkout(tmp_path) is None
    git(tmp_path, "init", "-q")
    assert checkout(tmp_path) is None


def test_no_git(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(repository))
    with pytest.raises(Missing, match="git is not installed"):
        checkout(repository)
