"""The demo's chat examples: enough of them, the same each time, and readable by the trainer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pyarrow.parquet")

import pyarrow.parquet as pq

SCRIPT = Path(__file__).parents[3] / "jobs" / "demo" / "make_data.py"


def _make(out: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--out", str(out), "--texts", str(out) + ".txt"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=out.parent, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_makes_the_same_real_examples_each_time(tmp_path: Path) -> None:
    for name in ("a.parquet", "b.parquet"):
        _make(tmp_path / name)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    examples = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert len(examples) >= 800
    answers = {row["messages"][0]["content"]: row["messages"][1]["content"] for row in examples}
    (about_dumps,) = (text for question, text in answers.items() if "json.dumps" in question)
    assert about_dumps.startswith("Serialize ``obj`` to a JSON formatted ``str``.")
    assert about_dumps in (tmp_path / "a.parquet.txt").read_text()
