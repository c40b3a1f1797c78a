"""Seals: what is hashed is what is kept, whatever the trainer does to its own files."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from remote.agent import copies, hashing, sealing
from remote.agent.copies import Copies
from remote.agent.hashing import Hashers, spare_cores
from remote.agent.held import held_bytes
from remote.agent.private import make_private
from remote.agent.scan import list_tree
from remote.agent.seal import Seal, load_seals
from remote.agent.sealing import Changed, Job, end_with, give_back, make_seal
from remote.contract import CHUNK_BYTES, hash_stream


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


def test_files_are_listed_in_the_order_that_they_are_wanted_in(
    tmp_path: Path, source: Path
) -> None:
    files = list_tree(tmp_path / "pins/checkpoint-10.1")
    order = ["run.sh", "a", "deep/b"]
    wanted = job(tmp_path, files={path: files[path] for path in order})
    assert [entry.path for entry in make_seal(wanted, workers=3).manifest.files] == order


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, 3 * CHUNK_BYTES, 5 * CHUNK_BYTES + 7])
def test_several_workers_find_what_one_does(size: int) -> None:
    data = random.Random(size).randbytes(size)
    expected = hash_stream(io.BytesIO(data), "x", True)
    with Hashers(3) as hashers:
        assert hashers.entry(io.BytesIO(data), "x", size, True) == expected


@pytest.mark.parametrize(
    ("cores", "quota", "ranks", "spare"),
    [
        pytest.param(16, "max 100000", 4, 8, id="most that a disk can feed"),
        pytest.param(6, "max 100000", 4, 2, id="what the ranks leave"),
        pytest.param(2, "max 100000", 4, 1, id="at least one"),
        pytest.param(64, "500000 100000", 2, 3, id="a container's share"),
        pytest.param(64, "50000 100000", 1, 1, id="half a core"),
        pytest.param(4, "?", 1, 3, id="unreadable"),
    ],
)
def test_cores_to_spare(
    cores: int, quota: str, ranks: int, spare: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu.max").write_text(quota)
    monkeypatch.setattr(hashing, "_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    assert spare_cores(ranks) == spare


def test_a_copy_of_ours_is_moved_and_given_back_after_a_crash(tmp_path: Path, source: Path) -> None:
    """Where nothing can be linked a checkpoint shall not be on the disk three times."""
    pin = tmp_path / "pins/checkpoint-10.1"
    copied = frozenset(list_tree(pin))
    inode = (pin / "a").stat().st_ino
    made = make_seal(job(tmp_path, copied=copied))
    assert (made.folder / "tree/a").stat().st_ino == inode and list_tree(pin) == {}
    (made.folder / "manifest.json").unlink()
    give_back(made.folder, pin)
    assert set(list_tree(pin)) == copied and not made.folder.exists()
    assert make_seal(job(tmp_path, copied=copied)).manifest.files == made.manifest.files


def test_what_only_the_pin_names_is_moved_where_nothing_can_be_linked(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copies of an earlier agent, whose sources are gone: nobody knows them for copies."""
    shutil.rmtree(source)
    monkeypatch.setattr(sealing, "_clone", lambda *_: False)

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refused)
    pin = tmp_path / "pins/checkpoint-10.1"
    inode = (pin / "a").stat().st_ino
    made = make_seal(job(tmp_path))
    assert (made.folder / "tree/a").stat().st_ino == inode and list_tree(pin) == {}
    assert (made.folder / "tree/a").stat().st_mode & 0o777 == 0o444


def test_a_failure_of_one_file_leaves_no_seal(tmp_path: Path, source: Path) -> None:
    judged = job(tmp_path)
    (tmp_path / "pins/checkpoint-10.1/a").unlink()
    for path in ("deep/b", "run.sh"):  # they have no name but the pin's, and are moved
        (source / path).unlink()
    with pytest.raises(FileNotFoundError):
        make_seal(judged, workers=3)
    assert load_seals(tmp_path / "seals") == []
    assert set(list_tree(tmp_path / "pins/checkpoint-10.1")) == {"deep/b", "run.sh"}


def test_the_last_checkpoint_again_as_what_the_trainer_ended_with(
    tmp_path: Path, source: Path
) -> None:
    last = make_seal(job(tmp_path))
    final = end_with(last, tmp_path / "seals", 1)
    meta = final.manifest.meta
    assert (final.name, meta["final"], meta["step"], meta["attempt"]) == ("final", True, 10, 1)
    assert final.manifest.digest == last.manifest.digest
    assert (final.folder / "tree/a").stat().st_ino == (last.folder / "tree/a").stat().st_ino
    make_private(final)
    assert final.rewritten() is None and last.rewritten() is None


def test_links_weigh_nothing_until_the_trainer_s_name_is_gone(tmp_path: Path, source: Path) -> None:
    pins = tmp_path / "pins"
    assert held_bytes((pins,)) == 0
    (source / "a").unlink()
    on_disk = (pins / "checkpoint-10.1/a").stat().st_blocks * 512
    assert held_bytes((pins, tmp_path / "seals")) == on_disk > 0
    os.link(pins / "checkpoint-10.1/a", pins / "again")
    assert held_bytes((pins,)) == on_disk


def test_copies_under_way_are_counted_before_another_is_begun(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Together they must not fill what each alone would leave free."""
    made = Copies(tmp_path / "copying")
    try:
        (found,) = (each for path, each in list_tree(source).items() if path == "a")
        usage = shutil.disk_usage(tmp_path)
        room = int(usage.total * copies.RESERVE) + int(1.5 * found.size)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=room))
        assert made.fits(tmp_path, found)
        for _ in range(2):
            made.want(source / "a", tmp_path / "one", found)
        assert not made.fits(tmp_path, found)
        for _ in range(2):
            with contextlib.suppress(OSError):
                assert not made.want(source / "a", tmp_path / "two", found)
    finally:
        made.close()
    assert not (tmp_path / "two").exists()


def test_a_seal_that_would_fill_the_disk_links(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=usage.total // 20))
    monkeypatch.setattr(sealing, "_clone", lambda *_: False)
    made = make_seal(job(tmp_path))
    make_private(made)
    assert (made.folder / "tree/run.sh").stat().st_ino == (source / "run.sh").stat().st_ino
