"""A gradient that is not finite is dropped and said, at every ZeRO stage."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("deepspeed")

import trainer_kit as kit

pytestmark = [pytest.mark.e2e, pytest.mark.trainer]
PROGRAM = Path(__file__).parent / "programs" / "skip_steps.py"


def test_at_every_stage(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(PROGRAM)],
        cwd=tmp_path,
        env=kit.environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"stage"')]
    assert [line["stage"] for line in lines] == [0, 1, 2, 3]
    for line in lines:
        assert [skipped for skipped, _ in line["said"]] == [False, True, False, True], line
        first, bad, second, worse = (norm for _, norm in line["said"])
        assert (first, second) == (pytest.approx(math.sqrt(8), abs=1e-4), pytest.approx(0.8485))
        assert not math.isfinite(bad)
        assert not math.isfinite(worse)
        assert line["same"], line
