"""The mirror folder: all of a checkpoint or nothing, and never over another."""

from __future__ import annotations

import errno
import json
import os
import random
import socket
import stat
from pathlib import Path
from typing import Any

import pytest
from kit.agent import Server, SocketLink, write_tree

from orchestrator.adapters.check import problems
from orchestrator.adapters.copyout import copy_out
from orchestrator.adapters.durable import disk_room
from orchestrator.adapters.mirror import FolderMirror
from orchestrator.adapters.partial import Journal
from orchestrator.adapters.published import Held, held, verify
from orchestrator.adapters.stamp import Stamp, check_stamp, set_stamp
from orchestrator.adapters.stream import FrameStream
from orchestrator.errors import (
    BadJobFile,
    GpujobError,
    IntegrityError,
    NotFound,
    StorageBlocked,
    Transient,
)
from remote.contract import CHUNK_BYTES, Manifest

RUN, LEDGER = "demo-1", "0a1b2c3d"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints"


@pytest.fixture
def mirror(folder: Path) -> FolderMirror:
    set_stamp(folder, Stamp(RUN, LEDGER))
    return FolderMirror(folder, RUN, LEDGER)


def sealed(tmp_path: Path, name: str = "box", **files: bytes) -> Server:
    tree = tmp_path / name
    files = files or {"weights": b"w" * 5000, "sub__state": b"s"}
    return Server(tree, write_tree(tree, **files), tmp_path / "inbox")


def fill(mirror: FolderMirror, server: Server) -> Path:
    """As a transfer does that is killed before it has published."""
    stream = FrameStream(lambda: SocketLink(server, 10.0))
    with mirror.partial(server.manifest) as partial:
        stream.pull("checkpoint-10", 1, partial, server.manifest, lambda _: None)
    stream.close()
    return partial


def fetch(mirror: FolderMirror, server: Server, generation: int = 1) -> Path:
    stream = FrameStream(lambda: SocketLink(server, 10.0))
    with mirror.partial(server.manifest) as partial:
        stream.pull("checkpoint-10", generation, partial, server.manifest, lambda _: None)
        stream.close()
        return mirror.publish("checkpoint-10", generation, server.manifest)


def names(folder: Path) -> set[str]:
    return {each.name for each in folder.iterdir()} - {".gpujob"}


def test_a_filled_partial_is_published_with_its_manifest(
    mirror: FolderMirror, folder: Path, tmp_path: Path
) -> None:
    server = sealed(tmp_path)
    place = fetch(mirror, server)
    assert place == folder / "checkpoint-10"
    assert problems(place, server.manifest) == []
    kept = Manifest.decode((folder / ".gpujob/manifests/checkpoint-10.json").read_bytes())
    assert kept == server.manifest
    assert list((folder / ".gpujob" / "incoming").iterdir()) == []
    assert mirror.holds(kept.digest) == place
    assert mirror.manifest(kept.digest) == kept
    assert json.loads((folder / ".gpujob/run.json").read_text())["run"] == RUN


def test_publishing_again_is_success(mirror: FolderMirror, folder: Path, tmp_path: Path) -> None:
    server = sealed(tmp_path)
    place = fetch(mirror, server)
    assert mirror.publish("checkpoint-10", 1, server.manifest) == place
    assert fetch(mirror, server, generation=2) == place
    assert names(folder) == {"checkpoint-10"}


def test_other_bytes_under_a_name_are_a_new_generation(
    mirror: FolderMirror, folder: Path, tmp_path: Path
) -> None:
    first, second = sealed(tmp_path, a=b"1"), sealed(tmp_path, "box2", a=b"2")
    third = sealed(tmp_path, "box3", a=b"3")
    assert fetch(mirror, first).name == "checkpoint-10"
    assert fetch(mirror, second, generation=2).name == "checkpoint-10~2"
    assert fetch(mirror, third, generation=2).name == "checkpoint-10~3"
    assert [(each.path.name, verify(each)) for each in mirror.held()] == [
        ("checkpoint-10", []),
        ("checkpoint-10~2", []),
        ("checkpoint-10~3", []),
    ]


@pytest.mark.parametrize("what", ["folder", "file", "link", "empty"])
def test_what_was_there_before_is_never_overwritten(
    mirror: FolderMirror, folder: Path, tmp_path: Path, what: str
) -> None:
    place = folder / "checkpoint-10"
    match what:
        case "folder":
            place.mkdir()
            (place / "mine").write_text("mine")
        case "file":
            place.write_text("mine")
        case "link":
            place.symlink_to(tmp_path / "nowhere")
        case "empty":
            place.mkdir()
    before = os.lstat(place)
    assert fetch(mirror, sealed(tmp_path)).name == "checkpoint-10~1"
    assert os.lstat(place).st_ino == before.st_ino


def test_a_partial_that_is_not_complete_is_not_published(
    mirror: FolderMirror, folder: Path, tmp_path: Path
) -> None:
    server = sealed(tmp_path)
    with pytest.raises(IntegrityError, match="nothing was published"):
        mirror.publish("checkpoint-10", 1, server.manifest)
    journal = Journal(fill(mirror, server))
    lines = journal.path.read_bytes().splitlines(keepends=True)
    journal.path.write_bytes(b"".join(lines[:-1]))
    with pytest.raises(IntegrityError, match="nothing was published"):
        mirror.publish("checkpoint-10", 1, server.manifest)
    assert names(folder) == set()


def test_strangers_in_the_partial_are_not_published_and_hold_nothing_up(
    mirror: FolderMirror, tmp_path: Path
) -> None:
    """As a network file system leaves them, or a program that copies folders."""
    server = sealed(tmp_path)
    partial = fill(mirror, server)
    (partial / "sub" / "extra").symlink_to("/etc/passwd")
    (partial / ".nfs0001").write_bytes(b"n")
    (partial / ".sync" / "deep").mkdir(parents=True)
    place = mirror.publish("checkpoint-10", 1, server.manifest)
    assert problems(place, server.manifest) == []
    assert sorted(path.name for path in place.rglob("*")) == ["state", "sub", "weights"]


def test_a_partial_that_lost_a_file_is_not_published(
    mirror: FolderMirror, folder: Path, tmp_path: Path
) -> None:
    server = sealed(tmp_path)
    partial = fill(mirror, server)
    (partial / "sub" / "state").unlink()
    (partial / "sub" / "state").mkdir()
    with pytest.raises(IntegrityError, match="nothing was published"):
        mirror.publish("checkpoint-10", 1, server.manifest)
    assert names(folder) == set()
    assert problems(fetch(mirror, server), server.manifest) == []


def test_what_lies_beside_a_published_tree_takes_nothing_from_it(
    mirror: FolderMirror, tmp_path: Path
) -> None:
    """A desktop's own file in the folder is no reason to fetch the checkpoint again."""
    server = sealed(tmp_path)
    place = fetch(mirror, server)
    (place / ".DS_Store").write_bytes(b"x")
    again = FolderMirror(mirror.folder, RUN, LEDGER)
    assert again.holds(server.manifest.digest) == place
    assert fetch(mirror, server, generation=2) == place


def test_trees_of_one_name_never_meet_in_one_folder(mirror: FolderMirror, tmp_path: Path) -> None:
    """Generations count anew on each box: last.ckpt of a lost one, from S3, and of the next."""
    first, second = (
        sealed(tmp_path, weights=b"1" * 5000),
        sealed(tmp_path, "b", weights=b"2" * 5000),
    )
    with mirror.partial(first.manifest) as mine, mirror.partial(second.manifest) as other:
        assert mine != other
        for server, into in ((first, mine), (second, other)):
            stream = FrameStream(lambda server=server: SocketLink(server, 10.0))  # type: ignore[misc]
            stream.pull("last", 1, into, server.manifest, lambda _: None)
            stream.close()
        places = [mirror.publish("last", 1, each.manifest) for each in (second, first)]
    assert [each.name for each in places] == ["last", "last~1"]
    for place, server in zip(places, (second, first), strict=True):
        assert problems(place, server.manifest) == []
        assert mirror.holds(server.manifest.digest) == place


def test_one_tree_is_filled_by_one_transfer_at_a_time(mirror: FolderMirror, tmp_path: Path) -> None:
    server = sealed(tmp_path)
    another = FolderMirror(mirror.folder, RUN, LEDGER)
    with mirror.partial(server.manifest):
        with pytest.raises(Transient, match="under way"), another.partial(server.manifest):
            pass
        another.sweep(())
    assert fetch(another, server).name == "checkpoint-10"


def test_what_nobody_fetches_any_more_is_swept_away(
    mirror: FolderMirror, folder: Path, tmp_path: Path
) -> None:
    wanted, other = sealed(tmp_path), sealed(tmp_path, "box2", weights=b"2")
    kept, left = fill(mirror, wanted), fill(mirror, other)
    mirror.sweep({wanted.manifest.digest})
    assert (kept.exists(), left.exists()) == (True, False)
    fetch(mirror, wanted)
    assert list((folder / ".gpujob" / "incoming").iterdir()) == []


def damage(place: Path) -> None:
    weights = place / "weights"
    weights.chmod(0o644)
    with weights.open("r+b") as file:
        file.write(b"X")


def test_a_damaged_checkpoint_is_not_held_and_its_copy_is_kept(
    mirror: FolderMirror, folder: Path, tmp_path: Path
) -> None:
    server = sealed(tmp_path)
    place = fetch(mirror, server)
    damage(place)
    assert mirror.holds(server.manifest.digest) is None
    (checkpoint,) = mirror.held()
    assert verify(checkpoint) == [
        "weights: other bytes than were verified in chunk 0 (from byte 0)"
    ]
    assert fetch(mirror, server, generation=2).name == "checkpoint-10~2"
    assert mirror.holds(server.manifest.digest) == folder / "checkpoint-10~2"


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda place: (place / "weights").unlink(), ["weights: missing"]),
        (lambda place: (place / "new").touch(), ["new: not in the manifest"]),
        (lambda place: os.truncate(place / "weights", 1), ["weights: 1 bytes instead of 5000"]),
    ],
    ids=["missing", "extra", "short"],
)
def test_verify_names_what_is_wrong(
    mirror: FolderMirror, tmp_path: Path, harm: object, said: list[str]
) -> None:
    place = fetch(mirror, sealed(tmp_path))
    harm(place)  # type: ignore[operator]
    (checkpoint,) = mirror.held()
    assert verify(checkpoint) == said


def test_a_manifest_without_its_folder_is_nothing(
    mirror: FolderMirror, folder: Path, tmp_path: Path
) -> None:
    """As after a crash between the two: the manifest is written first."""
    server = sealed(tmp_path)
    fill(mirror, server)
    manifests = folder / ".gpujob" / "manifests"
    manifests.mkdir()
    (manifests / "checkpoint-10.json").write_bytes(server.manifest.encode())
    (manifests / "checkpoint-20.json").write_bytes(b"not a manifest")
    assert mirror.held() == []
    with pytest.raises(NotFound):
        mirror.manifest(server.manifest.digest)
    assert mirror.publish("checkpoint-10", 1, server.manifest).name == "checkpoint-10"


def test_an_unchanged_file_is_linked_and_not_fetched(
    mirror: FolderMirror, folder: Path, tmp_path: Path
) -> None:
    first = sealed(tmp_path, base=b"b" * 9000, adapter=b"1", empty=b"")
    second = sealed(tmp_path, "box2", base=b"b" * 9000, adapter=b"2", empty=b"")
    fetch(mirror, first)
    place = fetch(mirror, second, generation=2)
    assert second.reads == [("adapter", 0)]
    assert (place / "base").samefile(folder / "checkpoint-10" / "base")
    assert problems(place, second.manifest) == []


def test_a_checkpoint_that_shares_its_larger_part_moves_the_rest_alone(
    mirror: FolderMirror, folder: Path, tmp_path: Path
) -> None:
    """Sixty of a hundred bytes are shared file by file; counted where the box sends them."""
    parts = random.Random(7)
    shared = {f"base-{n}": parts.randbytes(60_000) for n in range(10)}
    first = sealed(tmp_path, adapter=parts.randbytes(400_000), **shared)
    second = sealed(tmp_path, "box2", adapter=parts.randbytes(400_000), **shared)
    sent: list[int] = []

    def count(header: Any, payload: bytes) -> Any:
        sent.append(len(payload))
        return header, payload

    fetch(mirror, first)
    second.bend = count
    place = fetch(mirror, second, generation=2)
    assert problems(place, second.manifest) == []
    assert sum(sent) <= 0.45 * second.manifest.size_bytes
    on_disk = {
        each.stat().st_ino for each in (*place.iterdir(), *(folder / "checkpoint-10").iterdir())
    }
    assert len(on_disk) == 12, "what is shared is on the disk once"


def test_what_was_just_published_is_not_read_again_and_what_changed_is(
    mirror: FolderMirror, tmp_path: Path
) -> None:
    server = sealed(tmp_path)
    place, digest = fetch(mirror, server), server.manifest.digest
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("orchestrator.adapters.mirror.is_whole", _no_reading)
        assert mirror.holds(digest) == place
        anew = FolderMirror(mirror.folder, RUN, LEDGER)
        with pytest.raises(AssertionError, match="read"):
            anew.holds(digest)
    damage(place)
    assert mirror.holds(digest) is None


def _no_reading(*_: object) -> list[str]:
    raise AssertionError("it is read")


def test_a_damaged_file_is_not_linked_on(
    mirror: FolderMirror, folder: Path, tmp_path: Path
) -> None:
    first = sealed(tmp_path, weights=b"b" * 9000)
    second = sealed(tmp_path, "box2", weights=b"b" * 9000, adapter=b"2")
    damage(fetch(mirror, first))
    before = (folder / "checkpoint-10" / "weights").read_bytes()
    place = fetch(mirror, second, generation=2)
    assert problems(place, second.manifest) == []
    assert (folder / "checkpoint-10" / "weights").read_bytes() == before


def test_another_run_s_folder_is_refused(
    mirror: FolderMirror, folder: Path, tmp_path: Path
) -> None:
    check_stamp(tmp_path / "of-no-run")
    check_stamp(folder, RUN)
    for run in (None, "demo-2"):
        with pytest.raises(BadJobFile, match=f"run {RUN}"):
            check_stamp(folder, run)
    with pytest.raises(BadJobFile):
        FolderMirror(folder, "demo-2", LEDGER).room()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"run": 1}'])
def test_a_stamp_that_cannot_be_read_is_refused(folder: Path, text: str) -> None:
    (folder / ".gpujob").mkdir(parents=True)
    (folder / ".gpujob" / "run.json").write_text(text)
    with pytest.raises(BadJobFile, match="whose folder"):
        check_stamp(folder, RUN)


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "x\n"])
def test_a_hostile_name_becomes_no_path(mirror: FolderMirror, tmp_path: Path, name: str) -> None:
    server = sealed(tmp_path)
    fill(mirror, server)
    with pytest.raises(ValueError, match="not a checkpoint name"):
        mirror.publish(name, 1, server.manifest)


def test_a_copy_is_verified_writable_and_repeatable(
    mirror: FolderMirror, folder: Path, tmp_path: Path
) -> None:
    server = sealed(tmp_path)
    fetch(mirror, server)
    (checkpoint,) = held(folder)
    dest = tmp_path / "out" / "best"
    assert copy_out(checkpoint, dest) is True
    assert copy_out(checkpoint, dest) is False
    assert problems(dest, server.manifest) == []
    assert os.access(dest / "weights", os.W_OK)
    assert not (dest / "weights").samefile(checkpoint.path / "weights")
    (dest / "weights").write_bytes(b"")
    with pytest.raises(GpujobError, match="something else"):
        copy_out(checkpoint, dest)


def test_a_damaged_checkpoint_is_not_copied_out(mirror: FolderMirror, tmp_path: Path) -> None:
    server = sealed(tmp_path)
    place = fetch(mirror, server)
    damage(place)
    with pytest.raises(IntegrityError, match="damaged"):
        copy_out(Held(place, server.manifest), tmp_path / "out" / "best")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_mirror_that_cannot_be_read_is_what_a_copy_blames(
    mirror: FolderMirror, tmp_path: Path
) -> None:
    server = sealed(tmp_path)
    place = fetch(mirror, server)
    (place / "weights").unlink()
    with socket.socket(socket.AF_UNIX) as unreadable:  # to open it fails as a bad disk does
        unreadable.bind(str(place / "weights"))
    with pytest.raises(StorageBlocked) as caught:
        copy_out(Held(place, server.manifest), tmp_path / "out" / "best")
    assert (caught.value.reason, str(mirror.folder) in caught.value.message) == ("failing", True)
    assert str(tmp_path / "out") not in caught.value.message


def test_a_copy_that_was_cut_off_goes_on_with_what_it_has(
    mirror: FolderMirror, folder: Path, tmp_path: Path
) -> None:
    server = sealed(tmp_path, a=b"a" * 9000, b=b"b" * 9000, c=b"c" * 9000)
    fetch(mirror, server)
    (checkpoint,) = held(folder)
    dest, seen = tmp_path / "out" / "best", []

    def cut(size_bytes: int) -> None:
        seen.append(size_bytes)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy_out(checkpoint, dest, told=cut)
    assert not dest.exists()
    (beside,) = (tmp_path / "out").iterdir()
    first = (beside / "a").stat().st_ino
    (beside / "left").write_text("by something else")
    (beside / "c").symlink_to("/etc/passwd")
    assert copy_out(checkpoint, dest) is True
    assert problems(dest, server.manifest) == []
    assert (dest / "a").stat().st_ino == first
    assert [each.name for each in (tmp_path / "out").iterdir()] == ["best"]


def test_a_copy_of_some_files(mirror: FolderMirror, folder: Path, tmp_path: Path) -> None:
    server = sealed(tmp_path, weights=b"w" * 9000, optimizer=b"o" * 9000, sub__config=b"{}")
    fetch(mirror, server)
    (checkpoint,) = held(folder)
    chosen = tuple(each for each in checkpoint.manifest.files if each.path != "optimizer")
    dest = tmp_path / "out"
    assert copy_out(checkpoint, dest, chosen) is True
    assert sorted(each.name for each in dest.rglob("*")) == ["config", "sub", "weights"]
    assert copy_out(checkpoint, dest, chosen) is False
    with pytest.raises(GpujobError, match="something else"):
        copy_out(checkpoint, dest)


def test_two_copies_to_one_place_do_not_mix(
    mirror: FolderMirror, folder: Path, tmp_path: Path
) -> None:
    fetch(mirror, sealed(tmp_path))
    (checkpoint,) = held(folder)
    dest = tmp_path / "out"

    def meanwhile(_: int) -> None:
        with pytest.raises(GpujobError, match="another `gpujob pull`"):
            copy_out(checkpoint, dest)

    assert copy_out(checkpoint, dest, told=meanwhile) is True


@pytest.mark.parametrize("chunk", [0, 1, 2])
def test_one_flipped_bit_is_named_with_its_chunk(tmp_path: Path, chunk: int) -> None:
    tree = tmp_path / "tree"
    data = bytearray(os.urandom(2 * CHUNK_BYTES + 100))
    manifest = write_tree(tree, weights=bytes(data), other=b"o")
    assert problems(tree, manifest) == []
    read: list[int] = []
    with (tree / "weights").open("r+b") as file:
        file.seek(chunk * CHUNK_BYTES + 50)
        file.write(bytes([data[chunk * CHUNK_BYTES + 50] ^ 4]))
    where = f"in chunk {chunk} (from byte {chunk * CHUNK_BYTES})"
    assert problems(tree, manifest, read.append) == [
        f"weights: other bytes than were verified {where}"
    ]
    assert sum(read) == manifest.size_bytes
    (tree / "weights").write_bytes(bytes(len(data)))
    assert problems(tree, manifest) == [
        "weights: other bytes than were verified in chunk 0 (from byte 0) and in 2 more chunks"
    ]


@pytest.mark.parametrize("what", ["link", "pipe", "folder", "device"])
def test_what_is_no_regular_file_is_not_read(tmp_path: Path, what: str) -> None:
    tree = tmp_path / "tree"
    manifest = write_tree(tree, weights=b"w" * 10)
    (tree / "weights").unlink()
    match what:
        case "link":
            (tmp_path / "out").write_bytes(b"w" * 10)
            (tree / "weights").symlink_to(tmp_path / "out")
        case "pipe":
            os.mkfifo(tree / "weights")
        case "folder":
            (tree / "weights").mkdir()
        case "device":
            if os.geteuid() != 0:
                pytest.skip("may not make a device")
            os.mknod(tree / "weights", 0o600 | stat.S_IFCHR, os.makedev(1, 5))
    (said,) = problems(tree, manifest)
    assert said.startswith("weights: ")


def test_a_full_disk_says_that_nothing_is_lost(tmp_path: Path) -> None:
    with (
        pytest.raises(GpujobError, match="is full"),
        disk_room(tmp_path, safe="Nothing is lost."),
    ):
        raise OSError(errno.ENOSPC, "no space")
    with pytest.raises(PermissionError), disk_room(tmp_path, safe=""):
        raise PermissionError(errno.EACCES, "no")
