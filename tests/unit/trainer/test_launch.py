"""The launcher of one machine's ranks: environment, exit codes, signals."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from remote.trainer.launch import start, wait

REPOSITORY = Path(__file__).parents[3]


def _ranks(code: str, count: int = 2) -> list[subprocess.Popen[bytes]]:
    return list(start(count, [sys.executable, "-c", f"import os, signal, sys, time\n{code}"]))


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("pass", 0),
        ("sys.exit(143)", 143),
        ("sys.exit(3 if os.environ['RANK'] == '1' else 0)", 3),
        ("os.kill(os.getpid(), signal.SIGKILL)", 137),
    ],
    ids=["all-well", "stopped", "one-failed", "killed"],
)
def test_returns_the_first_failure(code: str, expected: int) -> None:
    assert wait(_ranks(code)) == expected


def test_each_rank_knows_itself_and_all_know_one_port(tmp_path: Path) -> None:
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    code = (
        f"values = [os.environ[name] for name in {names}]\n"
        f"open({str(tmp_path)!r} + '/' + os.environ['RANK'], 'w').write(' '.join(values))"
    )
    assert wait(_ranks(code)) == 0
    first, second = ((tmp_path / str(rank)).read_text().split() for rank in (0, 1))
    assert first[:4] == ["0", "0", "2", "2"]
    assert second[:4] == ["1", "1", "2", "2"]
    assert first[4:] == second[4:]


def test_a_rank_left_waiting_is_killed_after_the_grace() -> None:
    ranks = _ranks("sys.exit(7) if os.environ['RANK'] == '0' else time.sleep(600)")
    assert wait(ranks, grace_s=0.2) == 7
    assert ranks[1].returncode == -signal.SIGKILL


def test_a_signal_reaches_the_ranks_and_their_code_comes_back(tmp_path: Path) -> None:
    package = tmp_path / "remote" / "trainer"
    package.mkdir(parents=True)
    (tmp_path / "remote" / "__init__.py").touch()
    for name in ("launch.py", "setup.py", "settings.py", "problems.py", "__init__.py"):
        (package / name).write_bytes((REPOSITORY / "remote" / "trainer" / name).read_bytes())
    (package / "__main__.py").write_text(
        "import os, signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
        "os.write(1, b'ready\\n')\n"
        "signal.pause()\n"
    )
    launcher = subprocess.Popen(
        [sys.executable, "-m", "remote.trainer.launch", "--ranks", "2", "train.json"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert launcher.stdout is not None
        assert [launcher.stdout.readline() for _ in range(2)] == [b"ready\n"] * 2
        launcher.send_signal(signal.SIGTERM)
        assert launcher.wait(timeout=30) == 143
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(launcher.pid, signal.SIGKILL)
        launcher.communicate()
