"""The agent's answers: sealed bytes and uploads, and whatever a confused controller may ask."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from remote.agent.paths import Root
from remote.agent.scan import list_tree
from remote.agent.seal import Job, Seal, make_seal
from remote.agent.serve import Server, serve
from remote.contract import CHUNK_BYTES, MAGIC, FileEntry, Manifest, hash_stream, read_frame

NAME = {"name": "checkpoint-10", "generation": 1}
BIG = os.urandom(1024) * (CHUNK_BYTES // 1024) + b"tail"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def root(home: Path) -> Root:
    made = Root.at(".gpujob/run")
    made.path.mkdir(parents=True)
    return made


@pytest.fixture
def seal(root: Root) -> Seal:
    pin = root.pins / "checkpoint-10.1"
    (pin / "deep").mkdir(parents=True)
    (pin / "deep/weights").write_bytes(BIG)
    (pin / "state").write_bytes(b"{}")
    return make_seal(
        Job(
            seals=root.seals,
            pin=pin,
            files=list_tree(pin),
            copied=frozenset(),
            known={},
            name="checkpoint-10",
            generation=1,
            attempt=1,
            step=10,
            max_steps=None,
            world_size=1,
            final=False,
        )
    )


@pytest.fixture
def ask(root: Root) -> Callable[..., tuple[dict[str, Any], bytes]]:
    server = Server(root)

    def asking(op: Any, payload: bytes = b"", **header: Any) -> tuple[dict[str, Any], bytes]:
        return server.answer({"op": op, **header}, payload)

    return asking


Ask = Callable[..., tuple[dict[str, Any], bytes]]


def tree(folder: Path, **files: bytes) -> Manifest:
    entries = []
    for name, data in files.items():
        path = name.replace("__", "/")
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
        entries.append(hash_stream(io.BytesIO(data), path))
    return Manifest(tuple(entries))


def send(ask: Ask, source: Path, manifest: Manifest, need: list[tuple[str, int]]) -> None:
    for path, chunk in need:
        data = (source / path).read_bytes()[chunk * CHUNK_BYTES : (chunk + 1) * CHUNK_BYTES]
        reply = ask("write", data, upload=manifest.digest, path=path, chunk=chunk)
        assert reply == ({}, b"")


def content(folder: Path) -> dict[str, bytes]:
    return {path: (folder / path).read_bytes() for path in list_tree(folder)}


def test_a_sealed_checkpoint_is_read_in_ranges(ask: Ask, seal: Seal) -> None:
    assert Manifest.decode(ask("manifest", **NAME)[1]).digest == seal.manifest.digest
    where = {**NAME, "path": "deep/weights"}
    assert ask("read", **where, offset=0, length=CHUNK_BYTES) == ({}, BIG[:CHUNK_BYTES])
    assert ask("read", **where, offset=CHUNK_BYTES, length=4) == ({}, b"tail")


BAD = {
    "no op": ({"op": None}, "refused"),
    "op is a list": ({"op": []}, "refused"),
    "unknown op": ({"op": "shell"}, "refused"),
    "no name": ({"op": "manifest"}, "refused"),
    "name is a path": ({"op": "manifest", "name": "../x", "generation": 1}, "refused"),
    "generation is text": ({"op": "manifest", "name": "a", "generation": "1"}, "refused"),
    "generation is true": ({"op": "manifest", "name": "a", "generation": True}, "refused"),
    "never sealed": ({"op": "ack", "name": "a", "generation": 1}, "not_found"),
    "path leaves": ({"op": "read", **NAME, "path": "../seal.json"}, "refused"),
    "path unknown": ({"op": "read", **NAME, "path": "x", "offset": 0, "length": 1}, "not_found"),
    "too long": (
        {"op": "read", **NAME, "path": "state", "offset": 0, "length": 2**25},
        "refused",
    ),
    "past the end": ({"op": "read", **NAME, "path": "state", "offset": 2, "length": 1}, "refused"),
    "negative": ({"op": "read", **NAME, "path": "state", "offset": -1, "length": 1}, "refused"),
    "no manifest": ({"op": "offer", "dest": "x", "mode": "merge"}, "refused"),
    "mode": ({"op": "offer", "dest": "x", "mode": "copy"}, "refused"),
    "nothing offered": ({"op": "commit", "upload": "0" * 64}, "not_found"),
    "write before offer": ({"op": "write", "upload": "0", "path": "a", "chunk": 0}, "not_found"),
    "restore nothing": (
        {"op": "restore", "name": "a", "digest": "0" * 64, "dest": "x"},
        "not_found",
    ),
    "restore to nowhere": (
        {"op": "restore", "name": "a", "digest": "0" * 64, "dest": "../x"},
        "refused",
    ),
}


@pytest.mark.parametrize(("header", "kind"), BAD.values(), ids=BAD)
def test_bad_requests_are_answered(
    root: Root, seal: Seal, header: dict[str, Any], kind: str
) -> None:
    reply, payload = Server(root).answer(header, b"junk")
    assert (reply["error"], payload) == (kind, b"") and reply["message"]


@pytest.mark.parametrize("stream", [b"\0\0\0\2[]", b"\xff\xff\xff\xffx", b"\0\0", b"\0\0\0\1{"])
def test_what_is_no_frame_ends_the_stream_with_an_error(root: Root, stream: bytes) -> None:
    out = io.BytesIO()
    assert serve(root, io.BytesIO(stream), out) == 1
    out.seek(len(MAGIC))
    frame = read_frame(out)
    assert frame and frame[0]["error"] == "refused"


def test_rewritten_bytes_are_never_served(ask: Ask, seal: Seal) -> None:
    path = seal.folder / "tree/state"
    path.chmod(0o600)
    path.write_bytes(b"[]")
    reply, payload = ask("read", **NAME, path="state", offset=0, length=2)
    assert (reply["error"], payload) == ("changed", b"")


def test_an_acknowledged_and_forgotten_seal_is_not_found(ask: Ask, seal: Seal) -> None:
    assert ask("ack", **NAME) == ({}, b"")
    assert seal.is_acked
    seal.forget()
    assert ask("manifest", **NAME)[0]["error"] == "not_found"
    assert ask("read", **NAME, path="state", offset=0, length=2)[0]["error"] == "not_found"
    assert ask("ack", **NAME) == ({}, b""), "the answer to the first may have been lost"


def test_restoring_copies_and_sets_aside(ask: Ask, seal: Seal, home: Path) -> None:
    dest = home / "out/checkpoint-10"
    dest.mkdir(parents=True)
    (dest / "state").write_bytes(b"half")
    request = {"name": "checkpoint-10", "digest": seal.manifest.digest, "dest": "out/checkpoint-10"}
    assert ask("restore", **request) == ({"digest": seal.manifest.digest}, b"")
    assert content(dest) == {"deep/weights": BIG, "state": b"{}"}
    assert (home / "out/_superseded/checkpoint-10/state").read_bytes() == b"half"
    inode = (dest / "state").stat().st_ino
    assert inode != (seal.folder / "tree/state").stat().st_ino
    assert ask("restore", **request) == ({"digest": seal.manifest.digest}, b"")
    assert (dest / "state").stat().st_ino == inode, "what is there is left alone"
    assert sorted(path.name for path in (home / "out").iterdir()) == [
        "_superseded",
        "checkpoint-10",
    ]


def test_a_damaged_seal_is_not_restored(ask: Ask, seal: Seal, home: Path) -> None:
    (seal.folder / "tree/state").chmod(0o600)
    (seal.folder / "tree/state").write_bytes(b"[]")
    reply, _ = ask(
        "restore", name="checkpoint-10", digest=seal.manifest.digest, dest="out/checkpoint-10"
    )
    assert reply["error"] == "changed"
    assert list((home / "out").iterdir()) == []


def test_merging_leaves_other_files_alone(ask: Ask, home: Path, tmp_path: Path) -> None:
    source, work = tmp_path / "src", home / "work"
    manifest = tree(source, a=b"new", deep__b=BIG, empty=b"", same=b"same")
    tree(work, a=b"old", other=b"mine", same=b"same")
    kept = (work / "same").stat().st_ino
    reply, _ = ask("offer", manifest.encode(), dest="work", mode="merge")
    assert reply["need"] == [("a", 0), ("deep/b", 0), ("deep/b", 1)]
    send(ask, source, manifest, reply["need"])
    assert content(work)["a"] == b"old", "nothing is in place before the commit"
    assert ask("commit", upload=manifest.digest) == ({"digest": manifest.digest}, b"")
    assert content(work) == {**content(source), "other": b"mine"}
    assert (work / "same").stat().st_ino == kept
    assert ask("offer", manifest.encode(), dest="work", mode="merge")[0]["need"] == []
    assert ask("commit", upload=manifest.digest)[0] == {"digest": manifest.digest}


def test_an_upload_goes_on_after_a_break(ask: Ask, root: Root, home: Path, tmp_path: Path) -> None:
    manifest = tree(tmp_path / "src", a=b"one", b=BIG)
    reply, _ = ask("offer", manifest.encode(), dest="work/checkpoint-5", mode="folder")
    send(ask, tmp_path / "src", manifest, reply["need"][:2])
    with (root.incoming / manifest.digest / "journal").open("ab") as journal:
        journal.write(b"1 ")  # torn by the kill

    def again(op: str, payload: bytes = b"", **header: Any) -> tuple[dict[str, Any], bytes]:
        return server.answer({"op": op, **header}, payload)

    server = Server(root)
    reply, _ = again("offer", manifest.encode(), dest="work/checkpoint-5", mode="folder")
    assert reply["need"] == [("b", 1)]
    assert again("commit", upload=manifest.digest)[0]["error"] == "changed"
    assert not (home / "work/checkpoint-5").exists()
    reply, _ = again("offer", manifest.encode(), dest="work/checkpoint-5", mode="folder")
    send(again, tmp_path / "src", manifest, reply["need"])
    assert "error" not in again("commit", upload=manifest.digest)[0]
    assert content(home / "work/checkpoint-5") == content(tmp_path / "src")
    assert list(root.incoming.iterdir()) == []


def test_damage_in_staging_is_found_at_the_commit(
    ask: Ask, root: Root, home: Path, tmp_path: Path
) -> None:
    manifest = tree(tmp_path / "src", a=b"one")
    reply, _ = ask("offer", manifest.encode(), dest="work", mode="merge")
    send(ask, tmp_path / "src", manifest, reply["need"])
    (root.incoming / manifest.digest / "tree/a").write_bytes(b"two")
    assert ask("commit", upload=manifest.digest)[0]["error"] == "changed"
    assert not (home / "work/a").exists()
    reply, _ = ask("offer", manifest.encode(), dest="work", mode="merge")
    assert reply["need"] == [("a", 0)], "and it is asked for again"


def test_a_chunk_that_is_not_the_offered_one_is_refused(ask: Ask, tmp_path: Path) -> None:
    manifest = tree(tmp_path / "src", a=b"one")
    ask("offer", manifest.encode(), dest="work", mode="merge")
    where = {"upload": manifest.digest, "path": "a"}
    assert ask("write", b"two", **where, chunk=0)[0]["error"] == "changed"
    assert ask("write", b"one", **where, chunk=1)[0]["error"] == "refused"
    assert ask("write", b"one", upload=manifest.digest, path="b", chunk=0)[0]["error"] == "refused"


def test_nothing_is_written_through_a_link(ask: Ask, home: Path, tmp_path: Path) -> None:
    outside, work = home / "outside", home / "work"
    outside.mkdir()
    work.mkdir()
    (work / "way").symlink_to(outside)
    (work / "link").symlink_to(outside / "target")
    manifest = tree(tmp_path / "src", way__a=b"one")
    reply, _ = ask("offer", manifest.encode(), dest="work", mode="merge")
    assert reply["error"] == "refused" and "leads out" in reply["message"]
    manifest = tree(tmp_path / "src2", link=b"one")
    reply, _ = ask("offer", manifest.encode(), dest="work", mode="merge")
    send(ask, tmp_path / "src2", manifest, reply["need"])
    assert "error" not in ask("commit", upload=manifest.digest)[0]
    assert list(outside.iterdir()) == [] and not (work / "link").is_symlink()


@pytest.mark.parametrize("dest", ["", "a/../..", "/", ".", "a\nb"])
def test_no_place_for_a_tree(ask: Ask, tmp_path: Path, dest: str) -> None:
    manifest = tree(tmp_path / "src", a=b"one")
    reply, _ = ask("offer", manifest.encode(), dest=dest, mode="merge")
    assert reply["error"] == "refused"


def test_a_folder_is_replaced_by_one_rename(ask: Ask, home: Path, tmp_path: Path) -> None:
    tree(home / "work/checkpoint-5", a=b"old", extra=b"x")
    manifest = tree(tmp_path / "src", a=b"new")
    reply, _ = ask("offer", manifest.encode(), dest="work/checkpoint-5", mode="folder")
    send(ask, tmp_path / "src", manifest, reply["need"])
    assert "error" not in ask("commit", upload=manifest.digest)[0]
    assert content(home / "work/checkpoint-5") == {"a": b"new"}
    old = home / "work/_superseded/checkpoint-5"
    assert content(old) == {"a": b"old", "extra": b"x"}


def test_a_manifest_that_cannot_be_a_tree(ask: Ask) -> None:
    empty = hash_stream(io.BytesIO(b""), "a")
    inside = FileEntry("a/b", 0, empty.sha256, ())
    reply, _ = ask("offer", Manifest((empty, inside)).encode(), dest="work", mode="merge")
    assert reply["error"] == "refused"


def test_executables_stay_executable(ask: Ask, home: Path, tmp_path: Path) -> None:
    entry = hash_stream(io.BytesIO(b"#!"), "run.sh", executable=True)
    (tmp_path / "src").mkdir()
    (tmp_path / "src/run.sh").write_bytes(b"#!")
    manifest = Manifest((entry,))
    reply, _ = ask("offer", manifest.encode(), dest="work", mode="merge")
    send(ask, tmp_path / "src", manifest, reply["need"])
    ask("commit", upload=manifest.digest)
    assert (home / "work/run.sh").stat().st_mode & 0o777 == 0o755
