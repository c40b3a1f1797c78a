"""The oracle of the power-loss campaign sees what it is there to see; and, where LazyFS is, a
few losses."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest
from kit.agent import tree_manifest

from remote.contract import Manifest
from sim import powerloss
from sim.powerloss_disk import program

NAME = "checkpoint-10"


@pytest.fixture
def source(tmp_path: Path) -> powerloss.Source:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "weights").write_bytes(b"x" * 1000)
    manifest = tree_manifest(tree, name=NAME, generation=1)
    return powerloss.Source(tmp_path, tmp_path, {NAME: manifest})


def _mirror(folder: Path, weights: bytes, manifest: Manifest | None) -> Path:
    (folder / NAME).mkdir(parents=True)
    (folder / NAME / "weights").write_bytes(weights)
    (folder / ".gpujob/manifests").mkdir(parents=True)
    if manifest:
        (folder / ".gpujob/manifests" / f"{NAME}.json").write_bytes(manifest.encode())
    return folder


def test_a_whole_mirror(tmp_path: Path, source: powerloss.Source) -> None:
    mirror = _mirror(tmp_path / "mirror", b"x" * 1000, source.manifests[NAME])
    assert powerloss.wrong_in_mirror(mirror, source, [NAME]) == []


@pytest.mark.parametrize("weights", [b"", b"x" * 999 + b"y"], ids=["emptied", "other bytes"])
def test_torn_bytes(tmp_path: Path, source: powerloss.Source, weights: bytes) -> None:
    mirror = _mirror(tmp_path / "mirror", weights, source.manifests[NAME])
    (wrong,) = powerloss.wrong_in_mirror(mirror, source, [NAME])
    assert "weights" in wrong


def test_a_lost_manifest(tmp_path: Path, source: powerloss.Source) -> None:
    mirror = _mirror(tmp_path / "mirror", b"x" * 1000, None)
    assert powerloss.wrong_in_mirror(mirror, source, []) == [
        f"{NAME} can be seen without its manifest"
    ]


def test_a_lost_folder(tmp_path: Path, source: powerloss.Source) -> None:
    assert powerloss.wrong_in_mirror(tmp_path / "none", source, []) == []
    wrong = powerloss.wrong_in_mirror(tmp_path / "none", source, [NAME])
    assert wrong == [f"{NAME} was acknowledged and is gone"]


def test_a_ledger_that_forgot(tmp_path: Path, source: powerloss.Source) -> None:
    path = tmp_path / "ledger.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE events (kind TEXT, data TEXT)")
    db.close()
    assert powerloss.wrong_in_ledger(path, source, []) == []
    assert powerloss.wrong_in_ledger(path, source, [NAME]) == [f"the ledger forgot {NAME}"]


def test_it_says_how_to_get_lazyfs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LAZYFS", raising=False)
    with pytest.raises(SystemExit, match=r"github\.com/dsrhaslab/lazyfs"):
        program()


@pytest.mark.e2e
@pytest.mark.skipif("LAZYFS" not in os.environ, reason="LAZYFS does not name LazyFS's program")
def test_three_losses(tmp_path: Path) -> None:
    told = list(powerloss.power_loss([0, 1, 2], tmp_path))
    assert [each["violations"] for each in told] == [[], [], []]
