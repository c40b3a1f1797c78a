"""Seals: what is hashed is what is kept, whatever the trainer does to its own files."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from remote.agent.private import make_private
from remote.agent.scan import list_tree
from remote.agent.seal import Changed, Job, Seal, load_seals, make_seal
from remote.contract import CHUNK_BYTES


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder, pin = tmp_path / "checkpoint-10", tmp_path / "pins/checkpoint-10.1"
    (folder / "deep").mkdir(parents=True)
    (pin / "deep").mkdir(parents=True)
    (folder / "a").write_bytes(b"x" * (CHUNK_BYTES + 5))
    (folder / "deep/b").write_bytes(b"")
    (folder / "run.sh").write_bytes(b"#!")
    (folder / "run.sh").chmod(0o755)
    for path in ("a", "deep/b", "run.sh"):
        os.link(folder / path, pin / path)
    return folder


def job(tmp_path: Path, **changes: Any) -> Job:
    pin = tmp_path / "pins/checkpoint-10.1"
    fields: dict[str, Any] = {
        "seals": tmp_path / "seals",
        "pin": pin,
        "files": list_tree(pin),
        "copied": frozenset(),
        "known": list_tree(pin),
        "name": "checkpoint-10",
        "generation": 1,
        "attempt": 1,
        "step": 10,
        "max_steps": 40,
        "world_size": 2,
        "final": False,
    }
    return Job(**{**fields, **changes})


def test_a_seal_is_its_manifest(tmp_path: Path, source: Path) -> None:
    seal = make_seal(job(tmp_path))
    entries = {entry.path: entry for entry in seal.manifest.files}
    whole = (source / "a").read_bytes()
    assert entries["a"].sha256 == hashlib.sha256(whole).hexdigest()
    assert len(entries["a"].chunks) == 2 and entries["deep/b"].chunks == ()
    assert entries["run.sh"].executable and not entries["a"].executable
    assert (seal.folder / "tree/a").read_bytes() == whole
    assert seal.fact()["digest"] == seal.manifest.digest and seal.fact()["max_steps"] == 40
    assert load_seals(tmp_path / "seals") == [seal]


def test_a_rewrite_of_the_same_inode_does_not_reach_a_seal(tmp_path: Path, source: Path) -> None:
    seal = make_seal(job(tmp_path))
    make_private(seal)
    assert Seal.load(seal.folder) == seal and seal.rewritten() is None
    with (source / "a").open("r+b") as file:
        file.write(b"torch.save")
    (source / "run.sh").write_bytes(b"other")
    assert (seal.folder / "tree/a").read_bytes()[:10] == b"x" * 10
    assert (seal.folder / "tree/run.sh").read_bytes() == b"#!"
    assert seal.rewritten() is None
    assert (seal.folder / "tree/a").stat().st_mode & 0o777 == 0o444
    assert (source / "a").stat().st_mode & 0o200, "the trainer has to be able to save again"


def test_what_is_still_linked_is_watched(tmp_path: Path, source: Path) -> None:
    seal = make_seal(job(tmp_path))
    if (seal.folder / "tree/a").stat().st_ino != (source / "a").stat().st_ino:
        pytest.skip("this file system clones: nothing is ever shared")
    assert (source / "a").stat().st_mode & 0o200
    assert seal.rewritten() is None
    with (source / "a").open("r+b") as file:
        file.write(b"torch.save")
    assert seal.rewritten() == "a"
    make_private(seal)
    assert seal.rewritten() == "a", "what was rewritten is not taken for what was sealed"


def test_what_changed_since_it_was_judged_is_not_sealed(tmp_path: Path, source: Path) -> None:
    judged = job(tmp_path)
    with (source / "a").open("ab") as file:
        file.write(b"more")
    with pytest.raises(Changed):
        make_seal(judged)
    assert Seal.load(tmp_path / "seals/checkpoint-10.1") is None
    assert make_seal(job(tmp_path)).manifest.size_bytes == CHUNK_BYTES + 11


def test_sealed_once_whatever_happens_to_the_pin(tmp_path: Path, source: Path) -> None:
    first = make_seal(job(tmp_path))
    (source / "a").write_bytes(b"other")
    assert make_seal(job(tmp_path)) == first


def test_a_half_made_seal_is_made_again(tmp_path: Path, source: Path) -> None:
    folder = tmp_path / "seals/checkpoint-10.1/tree"
    folder.mkdir(parents=True)
    (folder / "stray").write_bytes(b"of a killed agent")
    seal = make_seal(job(tmp_path))
    assert set(list_tree(seal.folder / "tree")) == {"a", "deep/b", "run.sh"}


def test_forgetting_keeps_the_record(tmp_path: Path, source: Path) -> None:
    seal = make_seal(job(tmp_path))
    seal.forget()
    again = Seal.load(seal.folder)
    assert again == seal and not again.is_held
    assert again.rewritten() is None
