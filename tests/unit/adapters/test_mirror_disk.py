"""The mirror on a disk that is full, read-only, not mounted, or blind to upper and lower case."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kit.agent import Server, SocketLink, tree_manifest, write_tree

from orchestrator.adapters.check import problems
from orchestrator.adapters.copyout import copy_out
from orchestrator.adapters.disk import Disk, Space, collisions
from orchestrator.adapters.durable import disk_room
from orchestrator.adapters.mirror import FolderMirror
from orchestrator.adapters.published import held
from orchestrator.adapters.stamp import Stamp, set_stamp
from orchestrator.adapters.stream import FrameStream
from orchestrator.errors import BadJobFile, IntegrityError, StorageBlocked

STAMP = Stamp("demo-1", "0a1b2c3d")
MIB = 2**20


class Told(Disk):
    """A disk as the test says it is."""

    def __init__(self, free_bytes: int = 10**12, *, blind: bool = False) -> None:
        self.free_bytes = free_bytes
        self.blind = blind

    def space(self, folder: Path) -> Space:
        return Space(self.free_bytes, 10**12)

    def is_case_blind(self, folder: Path) -> bool:
        return self.blind


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    set_stamp(tmp_path / "mirror", STAMP)
    return tmp_path / "mirror"


def mirror_of(folder: Path, disk: Disk | None = None) -> FolderMirror:
    return FolderMirror(folder, STAMP.run, STAMP.ledger, disk)


def box(tmp_path: Path, name: str = "box", **files: bytes) -> Server:
    tree = tmp_path / name
    return Server(tree, write_tree(tree, **files), tmp_path / "inbox")


def fetch(mirror: FolderMirror, server: Server, name: str = "checkpoint-10") -> Path:
    stream = FrameStream(lambda: SocketLink(server, 10.0))
    try:
        with mirror.partial(server.manifest) as partial:
            stream.pull(name, 1, partial, server.manifest, lambda _: None)
            return mirror.publish(name, 1, server.manifest)
    finally:
        stream.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real disk of 12 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("may not mount a disk here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk_blocks_and_goes_on_when_there_is_room(
    small_disk: Path, tmp_path: Path
) -> None:
    folder = small_disk / "mirror"
    set_stamp(folder, STAMP)
    mirror, server = mirror_of(folder), box(tmp_path, weights=os.urandom(6 * MIB))
    (small_disk / "other").write_bytes(bytes(8 * MIB))
    for _ in range(3):
        with pytest.raises(StorageBlocked, match="is full") as caught:
            fetch(mirror, server)
    assert (caught.value.reason, server.reads) == ("full", []), "seen before a byte was moved"
    with pytest.raises(StorageBlocked, match="is full"):
        mirror.room(server.manifest.digest, server.manifest.size_bytes)
    assert mirror.room() < 6 * MIB
    (small_disk / "other").unlink()
    assert mirror.room(server.manifest.digest, server.manifest.size_bytes) > 6 * MIB
    assert problems(fetch(mirror, server), server.manifest) == []


def test_a_disk_that_fills_up_midway_keeps_what_came(small_disk: Path, tmp_path: Path) -> None:
    """What nobody can see before: another program takes the room while bytes come."""
    folder = small_disk / "mirror"
    set_stamp(folder, STAMP)
    server = box(tmp_path, a=os.urandom(4 * MIB), b=os.urandom(4 * MIB))
    mirror = mirror_of(folder)
    stream = FrameStream(lambda: SocketLink(server, 10.0))
    with pytest.raises(StorageBlocked) as caught, mirror.partial(server.manifest) as partial:
        (small_disk / "other").write_bytes(bytes(6 * MIB))
        stream.pull("checkpoint-10", 1, partial, server.manifest, lambda _: None)
    stream.close()
    assert caught.value.reason == "full"
    assert held(folder) == []
    (small_disk / "other").unlink()
    sent: list[int] = []

    def count(header: Any, payload: bytes) -> Any:
        sent.append(len(payload))
        return header, payload

    server.bend = count
    place = fetch(mirror, server)
    assert sum(sent) <= 4 * MIB, "what was verified is not fetched again"
    assert problems(place, server.manifest) == []


def test_a_disk_that_turns_read_only_harms_nothing(small_disk: Path, tmp_path: Path) -> None:
    folder = small_disk / "mirror"
    set_stamp(folder, STAMP)
    mirror, server = mirror_of(folder), box(tmp_path, weights=b"w" * 5000)
    place = fetch(mirror, server)
    later = box(tmp_path, "later", weights=b"x" * 5000)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for act in (mirror.room, lambda: mirror.prune(server.manifest.digest),
                lambda: fetch(mirror, later, "checkpoint-20")):  # fmt: skip
        with pytest.raises(StorageBlocked) as caught:
            act()
        assert caught.value.reason == "read-only"
    assert mirror.holds(server.manifest.digest) == place
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    fetch(mirror, later, "checkpoint-20")
    assert len(held(folder)) == 2


def test_a_disk_that_is_not_mounted_is_no_loss(small_disk: Path, tmp_path: Path) -> None:
    folder = small_disk / "mirror"
    set_stamp(folder, STAMP)
    mirror, server = mirror_of(folder), box(tmp_path, weights=b"w")
    fetch(mirror, server)
    subprocess.run(["mount", "--move", str(small_disk), str(_made(tmp_path / "away"))], check=True)
    try:
        digest = server.manifest.digest
        for act in (lambda: mirror.holds(digest), lambda: mirror.prune(digest), mirror.room,
                    lambda: fetch(mirror, server, "checkpoint-20")):  # fmt: skip
            with pytest.raises(StorageBlocked, match="may not be mounted") as caught:
                act()
            assert caught.value.reason == "missing"
        assert list(small_disk.iterdir()) == [], "nothing is put under the mount point"
    finally:
        subprocess.run(["mount", "--move", str(tmp_path / "away"), str(small_disk)], check=True)
    assert mirror.holds(server.manifest.digest)


def _made(path: Path) -> Path:
    path.mkdir()
    return path


def test_a_folder_that_vanished_blocks_until_it_is_claimed_again(
    folder: Path, tmp_path: Path
) -> None:
    mirror, server = mirror_of(folder), box(tmp_path, weights=b"w")
    fetch(mirror, server)
    shutil.rmtree(folder)
    with pytest.raises(StorageBlocked) as caught:
        fetch(mirror, server)
    assert not folder.exists()
    # The command that the hint names is one that can be typed.
    command = (caught.value.hint or "").partition("anew: ")[2]
    subprocess.run(["bash", "-c", command], check=True)
    assert problems(fetch(mirror, server), server.manifest) == []


def test_a_folder_that_another_run_took_is_not_written_to(folder: Path, tmp_path: Path) -> None:
    server = box(tmp_path, weights=b"w")
    shutil.rmtree(folder)
    set_stamp(folder, Stamp("other-1", STAMP.ledger))
    with pytest.raises(BadJobFile, match="other-1"):
        fetch(mirror_of(folder), server)


def test_room_is_needed_for_what_is_not_here_yet_and_some_is_spared(
    folder: Path, tmp_path: Path
) -> None:
    server = box(tmp_path, a=b"a" * 300_000, b=b"b" * 300_000)
    mirror = mirror_of(folder)
    fetch(mirror, server)
    after = box(tmp_path, "later", a=b"a" * 300_000, b=b"c" * 300_000)
    tight = mirror_of(folder, Told(2**30 + 310_000))
    with tight.partial(after.manifest) as partial:
        assert (partial / "a").samefile(folder / "checkpoint-10" / "a")
    for free in (2**30 + 250_000, 0):
        with pytest.raises(StorageBlocked):
            fetch(mirror_of(folder, Told(free)), after, "checkpoint-20")
    assert Space(100, 1000).usable_bytes == 80
    assert Space(10, 1000).usable_bytes == 0
    assert Space(2**40, 2**42).usable_bytes == 2**40 - 2**30


PATHS = {
    "upper and lower case": ["Model.bin", "model.bin"],
    "a folder": ["State/a", "state/b"],
    "a file and a folder": ["STATE", "state/b"],
    "an accent in two ways": ["caf\u00e9", "cafe\u0301"],
    "sharp s": ["stra\u00dfe", "STRASSE"],
}


@pytest.mark.parametrize("paths", PATHS.values(), ids=PATHS)
def test_names_that_collide_are_refused_where_they_would_be_one(
    folder: Path, tmp_path: Path, paths: list[str]
) -> None:
    for path in paths:
        target = tmp_path / "box" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(path)
    server = Server(tmp_path / "box", tree_manifest(tmp_path / "box"), tmp_path / "inbox")
    blind = mirror_of(folder, Told(blind=True))
    with pytest.raises(IntegrityError, match="one name on the disk") as caught:
        fetch(blind, server)
    assert "only copy is on its box" in caught.value.message
    assert server.reads == []
    assert problems(fetch(mirror_of(folder, Told()), server), server.manifest) == []


def test_names_that_do_not_collide() -> None:
    assert collisions(["a/b", "a/c", "b", "a.b"]) == []


def test_the_disk_itself_is_asked(folder: Path) -> None:
    space = Disk().space(folder)
    assert 0 < space.free_bytes <= space.total_bytes
    assert Disk().is_case_blind(folder) == (folder / ".GPUJOB").exists()
    (folder / ".GPUJOB").mkdir(exist_ok=True)
    assert Disk().is_case_blind(folder)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (errno.ENOSPC, "full"),
        (errno.EDQUOT, "full"),
        (errno.EROFS, "read-only"),
        (errno.EIO, "failing"),
        (errno.ESTALE, "failing"),
    ],
)
def test_a_disk_that_takes_nothing_says_why_and_what_is_safe(
    tmp_path: Path, code: int, reason: str
) -> None:
    with (
        pytest.raises(StorageBlocked, match="Nothing is lost") as caught,
        disk_room(tmp_path, safe="Nothing is lost."),
    ):
        raise OSError(code, "no")
    assert caught.value.reason == reason
    assert str(tmp_path) in caught.value.message


@pytest.mark.parametrize("code", [errno.ENOENT, errno.EACCES, errno.EMFILE])
def test_what_is_not_the_disks_fault_is_told_as_it_is(tmp_path: Path, code: int) -> None:
    with pytest.raises(OSError) as caught, disk_room(tmp_path, safe=""):
        raise OSError(code, "no")
    assert caught.value.errno == code


def test_a_folder_that_goes_while_it_is_written_to_is_missing(tmp_path: Path) -> None:
    with pytest.raises(StorageBlocked) as caught, disk_room(tmp_path / "gone", safe=""):
        (tmp_path / "gone" / "file").write_text("x")
    assert caught.value.reason == "missing"


def test_a_full_disk_does_not_spoil_a_copy(small_disk: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mirror"
    set_stamp(folder, STAMP)
    server = box(tmp_path, a=os.urandom(5 * MIB), b=os.urandom(5 * MIB))
    fetch(mirror_of(folder), server)
    (checkpoint,) = held(folder)
    (small_disk / "other").write_bytes(bytes(5 * MIB))
    dest = small_disk / "out"
    with pytest.raises(StorageBlocked, match="intact"):
        copy_out(checkpoint, dest)
    assert not dest.exists()
    (small_disk / "other").unlink()
    read: list[int] = []
    assert copy_out(checkpoint, dest, told=read.append) is True
    assert problems(dest, server.manifest) == []
    assert read[0] == 5 * MIB, "the file that was copied whole is not copied again"


def test_a_file_system_that_does_not_tell_its_size_is_not_full() -> None:
    """As some of FUSE's, and Linux's own /proc."""
    assert os.statvfs("/proc").f_blocks == 0
    assert Disk().space(Path("/proc")).usable_bytes > 10**15
