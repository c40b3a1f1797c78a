"""What is put in order before the libraries are imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

pytestmark = pytest.mark.trainer

PROGRAM = """
import os, sys
from remote.trainer import setup
from remote.trainer.settings import parse

args = {"use_cpu": sys.argv[1] == "cpu"}
setup.prepare(parse({"method": "sft", "model": "m", "data": "d", "full": True, "args": args}))
import torch
print(os.environ["CUDA_VISIBLE_DEVICES"], torch.cuda.is_available(), torch.cuda.device_count())
"""


@pytest.mark.parametrize(("where", "seen"), [("cpu", ""), ("any", "0")])
def test_use_cpu_hides_the_gpus(tmp_path: Path, where: str, seen: str) -> None:
    paths = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, where],
        cwd=tmp_path,
        env={**os.environ, **paths, "CUDA_VISIBLE_DEVICES": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    visible, available, count = done.stdout.split(" ")
    assert visible == seen
    if where == "cpu":
        assert (available, int(count)) == ("False", 0)
