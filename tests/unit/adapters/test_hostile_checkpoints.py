"""A box that lies about a checkpoint: refused, and the rest of the mirror is unharmed."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from kit.agent import Server, SocketLink, write_tree

from orchestrator.adapters.mirror import FolderMirror
from orchestrator.adapters.published import held, verify
from orchestrator.adapters.stamp import Stamp, set_stamp
from orchestrator.adapters.stream import FrameStream
from orchestrator.errors import GpujobError
from remote.contract import MAX_FILES, ContractError, FileEntry, Manifest

STAMP = Stamp("demo-1", "0a1b2c3d")


@pytest.fixture
def mirror(tmp_path: Path) -> FolderMirror:
    set_stamp(tmp_path / "mirror", STAMP)
    return FolderMirror(tmp_path / "mirror", STAMP.run, STAMP.ledger)


def box(tmp_path: Path, name: str) -> Server:
    tree = tmp_path / name
    files = {"weights": name.encode() * 900, "sub__state": b"s", "empty": b""}
    return Server(tree, write_tree(tree, **files), tmp_path / "inbox")


def fetch(mirror: FolderMirror, server: Server, name: str) -> Path:
    stream = FrameStream(lambda: SocketLink(server, 5.0))
    try:
        manifest = stream.manifest(name, 1)
        with mirror.partial(manifest) as partial:
            stream.pull(name, 1, partial, manifest, lambda _: None)
            return mirror.publish(name, 1, manifest)
    finally:
        stream.close()


def lying(server: Server, **changes: object) -> None:
    """A manifest that is well formed and not true of `weights`."""
    files = tuple(
        dataclasses.replace(each, **changes) if each.path == "weights" else each  # type: ignore[arg-type]
        for each in server.manifest.files
    )
    server.manifest = Manifest(files, server.manifest.meta)


def _entry(path: str) -> Callable[[Server], None]:
    def add(server: Server) -> None:
        more = FileEntry(path, 1, "0" * 64, ("0" * 64,))
        server.manifest = Manifest((*server.manifest.files, more))

    return add


def _replaced(what: str) -> Callable[[Server], None]:
    def put(server: Server) -> None:
        weights = server.tree / "weights"
        weights.unlink()
        match what:
            case "shorter":
                weights.write_bytes(b"w")
            case "other":
                weights.write_bytes(b"x" * (9 * 900))
            case "device":
                weights.symlink_to("/dev/zero")

    return put


LIES: dict[str, Callable[[Server], None]] = {
    "a size that is larger": lambda server: lying(server, size=10**6),
    "a size that is smaller": lambda server: lying(server, size=10),
    "a hash of a chunk": lambda server: lying(server, chunks=("0" * 64,)),
    "a hash of the whole": lambda server: lying(server, sha256="0" * 64),
    "a path that leaves": _entry("../../outside"),
    "an absolute path": _entry("/tmp/outside"),
    "a file inside a file": _entry("weights/inside"),
    "its own manifest folder": _entry("sub/../../.gpujob/run.json"),
    "a file that was cut after the seal": _replaced("shorter"),
    "a file that was changed after the seal": _replaced("other"),
    "a device instead of the file": _replaced("device"),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_a_lie_is_refused_and_what_is_published_is_unharmed(
    mirror: FolderMirror, tmp_path: Path, lie: Callable[[Server], None]
) -> None:
    fetch(mirror, box(tmp_path, "honest-01"), "checkpoint-10")
    hostile = box(tmp_path, "hostile-1")
    lie(hostile)
    before = sorted(path for path in tmp_path.rglob("*") if ".gpujob" not in path.parts)
    with pytest.raises(GpujobError):
        fetch(mirror, hostile, "checkpoint-20")
    after = sorted(path for path in tmp_path.rglob("*") if ".gpujob" not in path.parts)
    assert after == before, "nothing is seen of it, here or elsewhere"
    assert [(each.path.name, verify(each)) for each in held(mirror.folder)] == [
        ("checkpoint-10", [])
    ]
    assert fetch(mirror, box(tmp_path, "honest-02"), "checkpoint-20").name == "checkpoint-20"


def test_a_million_entries_are_refused_before_they_are_read() -> None:
    record = {"v": 2, "digest": "0" * 64, "meta": {}, "files": [0] * 1_000_000}
    with pytest.raises(ContractError, match=f"at most {MAX_FILES}"):
        Manifest.decode(json.dumps(record).encode())


@pytest.mark.parametrize("what", ["pipe", "link", "folder"])
def test_what_somebody_put_into_the_partial_is_not_published(
    mirror: FolderMirror, tmp_path: Path, what: str
) -> None:
    server = box(tmp_path, "honest-01")
    with mirror.partial(server.manifest) as partial:
        pass
    match what:
        case "pipe":
            os.mkfifo(partial / "weights")
        case "link":
            (partial / "weights").symlink_to("/etc/passwd")
        case "folder":
            (partial / "weights").mkdir()
    try:
        place = fetch(mirror, server, "checkpoint-10")
    except GpujobError:
        assert held(mirror.folder) == []
    else:
        assert [verify(each) for each in held(mirror.folder)] == [[]]
        assert (place / "weights").read_bytes() == b"honest-01" * 900
