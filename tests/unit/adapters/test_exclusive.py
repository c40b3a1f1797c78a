"""One at a time, also over processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.adapters.exclusive import Exclusive

OTHER = """
import sys
from pathlib import Path
from orchestrator.adapters.exclusive import Exclusive
path = Path(sys.argv[1])
print("asks", flush=True)
with Exclusive(path):
    print("released" if path.with_name("released").exists() else "in", flush=True)
    sys.stdin.readline()
"""


def test_another_process_waits_for_its_turn(tmp_path: Path) -> None:
    path = tmp_path / "state" / "thunder.turn"
    with Exclusive(path):
        other = _other(path)
        assert other.stdout and other.stdout.readline() == "asks\n"
        path.with_name("released").touch()
    with other:
        assert other.stdout.readline() == "released\n"
        other.kill()


def _other(path: Path) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", OTHER, str(path)]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_a_dead_holder_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "turn"
    with _other(path) as other:
        assert other.stdout and other.stdout.readline() == "asks\n"
        assert other.stdout.readline() == "in\n"
        other.kill()
    with Exclusive(path):
        pass


def test_after_an_error_it_is_free(tmp_path: Path) -> None:
    turn = Exclusive(tmp_path / "turn")
    with pytest.raises(ValueError), turn:
        raise ValueError
    with turn:
        pass
