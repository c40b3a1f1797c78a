"""The transfer benchmark runs, so that it cannot rot; what it measures here is of no interest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "transfer.py"


def test_it_measures_what_is_here_and_leaves_nothing(tmp_path: Path) -> None:
    scratch, told = tmp_path / "scratch", tmp_path / "told.json"
    scratch.mkdir()
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--quick", "--json", str(told)],
        env={**os.environ, "TMPDIR": str(scratch)},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(told.read_text())
    ours = next(trial for trial in found["trials"] if trial["tool"] == "gpujob")
    assert ours["what"] == "shards" and ours["size_bytes"] > 4_000_000
    assert ours["client_cpu_s"] > 0 and ours["server_cpu_s"] > 0
    assert {"scp -r", "sftp get -r", "paramiko"} <= {trial["tool"] for trial in found["trials"]}
    assert found["seal_s"]["shards"] > 0
    assert len(found["latency_s"]) == 1 and found["latency_s"][0] > 0
    assert all("is not installed" in note for note in found["notes"])
    assert "| gpujob |" in done.stdout
    assert list(scratch.iterdir()) == []
