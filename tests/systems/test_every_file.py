"""Every job file in `jobs/` is one, and what it brings from beside it is there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from systems_kit import JOBS, STAND_IN

from orchestrator.core.spec import load_job

FILES = sorted(JOBS.rglob("*.yaml"))
SYSTEMS = ("chai", "finetune", "mahals", "socrates", "torchllms")


def own(name: str) -> list[str]:
    return [path.stem for path in FILES if path.parent == JOBS / name]


@pytest.mark.parametrize(
    "path",
    [each for each in FILES if each.parent.name in SYSTEMS],
    ids=lambda path: f"{path.parent.name}/{path.stem}",
)
def test_it_validates_and_finds_what_it_names(path: Path) -> None:
    job = load_job(path)
    assert job.budget.usd or job.refuse, "a file that rents says what it may cost"
    for phase, whole in job.parts:
        assert whole.at(job.base).local(whole.code.path).is_dir(), phase.name
        for item in whole.data:
            assert whole.at(job.base).local(item.source).exists(), f"{phase.name}: {item.source}"


@pytest.mark.parametrize("system", SYSTEMS)
def test_each_system_has_its_own_trainer_s_file_and_ours(system: str) -> None:
    names = own(system)
    assert any("native" in name for name in names) and any("native" not in name for name in names)


def test_every_file_is_in_the_documentation() -> None:
    text = (JOBS.parent / "docs" / "systems.md").read_text()
    for system in SYSTEMS:
        for name in own(system):
            assert f"`{system}/{name}`" in text or f"`{name}`" in text or "native-" in name, name


@pytest.mark.parametrize("name", ["train", "val"])
def test_the_parquet_stand_ins_have_the_guide_s_columns(name: str) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(JOBS / "chai" / "data" / f"transformed_chai_{name}.parquet")
    assert table.column_names == ["content", "teacher_response"]
    assert table.num_rows >= 8


def test_a_stand_in_refuses_a_machine_that_costs_money(tmp_path: Path) -> None:
    found = tmp_path / "nvidia-smi"
    found.write_text("#!/bin/sh\n")
    found.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", "import pieces; pieces.begin()"],
        env={**os.environ, "PATH": str(tmp_path), "PYTHONPATH": str(STAND_IN)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "put your checkout" in done.stderr
