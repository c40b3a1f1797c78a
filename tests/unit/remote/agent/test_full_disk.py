"""A box whose disk is full is no dead box: it lives, and what the controller holds makes room."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from remote.agent.durable import write_bytes
from remote.agent.slot import SLOT_BYTES, read_slot, write_slot

ROOT = Path(__file__).parents[4]
PROGRAM = ROOT / "tests/kit/full_disk.py"
NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]


def can_mount() -> bool:
    tried = subprocess.run([*NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], check=False)
    return tried.returncode == 0


def test_a_full_disk_stops_neither_the_heartbeat_nor_an_ack(tmp_path: Path) -> None:
    """The trainer fills it, and ends. What is acknowledged goes, although it is not in S3 yet."""
    if not can_mount():
        pytest.skip("no mount namespaces here")
    environ = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    command = [*NAMESPACE, sys.executable, str(PROGRAM), str(tmp_path)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    saw = json.loads(done.stdout)
    assert len(set(saw["beats"])) == 4
    assert "trainer.exited" not in saw["told_while_full"], "the disk was not full"
    assert saw["reply"] == {}
    assert saw["rc"] == -1
    assert saw["kept"] == ["checkpoint-20.1", "checkpoint-30.1"]
    assert saw["left"] == [], "no half-written file stays"


def test_a_slot_is_rewritten_in_its_place(tmp_path: Path) -> None:
    path = tmp_path / "heartbeat.json"
    assert read_slot(path) is None
    write_slot(path, {"a": "x" * 3 * SLOT_BYTES})
    inode = path.stat().st_ino
    write_slot(path, {"b": 1})
    assert read_slot(path) == {"b": 1} == json.loads(path.read_text())
    assert (path.stat().st_ino, path.stat().st_size) == (inode, SLOT_BYTES)
    path.write_text("[torn")
    assert read_slot(path) is None


def test_what_could_not_be_written_whole_is_not_left_there(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="directory"):
        (tmp_path / "taken").mkdir()
        write_bytes(tmp_path / "taken", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
