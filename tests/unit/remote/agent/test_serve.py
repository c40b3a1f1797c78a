"""The agent's answers: sealed bytes and uploads, and whatever a confused controller may ask."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from remote.agent import restore, trees
from remote.agent.locks import is_free, locked
from remote.agent.paths import Root
from remote.agent.ranges import Ranges, Spoiled
from remote.agent.scan import list_tree
from remote.agent.seal import Seal
from remote.agent.sealing import Job, make_seal
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
        return answer(server, {"op": op, **header}, payload)

    return asking


def answer(server: Server, header: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], bytes]:
    """A reply with its bytes read."""
    reply, data = server.answer(header, payload)
    return reply, data if isinstance(data, bytes) else data.read()


Ask = Callable[..., tuple[dict[str, Any], bytes]]


def tree(folder: Path, **files: bytes) -> Manifest:
    entries = []
    for name, data in files.items():
        path = name.replace("__", "/")
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
        entries.append(hash_stream(io.BytesIO(data), path))
    return Manifest(tuple(entries))


def upload_folder(ask: Ask, source: Path, dest: str) -> tuple[dict[str, Any], bytes]:
    """The answer to the commit."""
    manifest = tree(source, a=b"1")
    offered, _ = ask("offer", manifest.encode(), dest=dest, mode="folder")
    send(ask, source, manifest, offered["need"])
    return ask("commit", upload=manifest.digest)


def send(ask: Ask, source: Path, manifest: Manifest, need: list[tuple[str, int]]) -> None:
    for path, chunk in need:
        data = (source / path).read_bytes()[chunk * CHUNK_BYTES : (chunk + 1) * CHUNK_BYTES]
        parts = [[path, chunk * CHUNK_BYTES, len(data)]]
        reply = ask("write", data, upload=manifest.digest, parts=parts)
        assert reply == ({}, b"")


def content(folder: Path) -> dict[str, bytes]:
    return {path: (folder / path).read_bytes() for path in list_tree(folder)}


def test_a_sealed_checkpoint_is_read_in_ranges(ask: Ask, seal: Seal) -> None:
    assert Manifest.decode(ask("manifest", **NAME)[1]).digest == seal.manifest.digest
    weights = "deep/weights"
    assert ask("read", **NAME, parts=[[weights, 0, CHUNK_BYTES]]) == ({}, BIG[:CHUNK_BYTES])
    parts = [[weights, CHUNK_BYTES, 4], ["state", 1, 1], [weights, 0, 2]]
    assert ask("read", **NAME, parts=parts) == ({}, b"tail}" + BIG[:2])


BAD = {
    "no op": ({"op": None}, "refused"),
    "op is a list": ({"op": []}, "refused"),
    "unknown op": ({"op": "shell"}, "refused"),
    "no name": ({"op": "manifest"}, "refused"),
    "name is a path": ({"op": "manifest", "name": "../x", "generation": 1}, "refused"),
    "generation is text": ({"op": "manifest", "name": "a", "generation": "1"}, "refused"),
    "generation is true": ({"op": "manifest", "name": "a", "generation": True}, "refused"),
    "never sealed": ({"op": "ack", "name": "a", "generation": 1}, "not_found"),
    "path leaves": ({"op": "read", **NAME, "parts": [["../seal.json", 0, 1]]}, "refused"),
    "path unknown": ({"op": "read", **NAME, "parts": [["x", 0, 1]]}, "not_found"),
    "no parts": ({"op": "read", **NAME}, "refused"),
    "parts are none": ({"op": "read", **NAME, "parts": []}, "refused"),
    "parts are text": ({"op": "read", **NAME, "parts": "state"}, "refused"),
    "a part is text": ({"op": "read", **NAME, "parts": ["state"]}, "refused"),
    "a part is true": ({"op": "read", **NAME, "parts": [["state", 0, True]]}, "refused"),
    "too many parts": ({"op": "read", **NAME, "parts": [["state", 0, 1]] * 257}, "refused"),
    "too long": ({"op": "read", **NAME, "parts": [["state", 0, 2**25]]}, "refused"),
    "too long in all": (
        {"op": "read", **NAME, "parts": [["deep/weights", 0, 2**23 + 1]] * 2},
        "refused",
    ),
    "past the end": ({"op": "read", **NAME, "parts": [["state", 2, 1]]}, "refused"),
    "negative": ({"op": "read", **NAME, "parts": [["state", -1, 1]]}, "refused"),
    "no manifest": ({"op": "offer", "dest": "x", "mode": "merge"}, "refused"),
    "mode": ({"op": "offer", "dest": "x", "mode": "copy"}, "refused"),
    "nothing offered": ({"op": "commit", "upload": "0" * 64}, "not_found"),
    "write before offer": (
        {"op": "write", "upload": "0" * 64, "parts": [["a", 0, 4]]},
        "not_found",
    ),
    "upload is a path": ({"op": "write", "upload": "../x", "parts": [["a", 0, 4]]}, "not_found"),
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
    reply, payload = answer(Server(root), header, b"junk")
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
    reply, payload = ask("read", **NAME, parts=[["state", 0, 2]])
    assert (reply["error"], payload) == ("changed", b"")


def test_a_file_that_is_written_while_it_is_sent_ends_the_stream(root: Root, seal: Seal) -> None:
    """What was promised is not made up: who asks again is told."""
    asked = {**NAME, "parts": [["deep/weights", 0, 1000], ["state", 0, 2]]}
    ranges = Server(root).answer({"op": "read", **asked}, b"")[1]
    assert isinstance(ranges, Ranges)
    (seal.folder / "tree/state").chmod(0o600)
    (seal.folder / "tree/state").write_bytes(b"[1]")
    with pytest.raises(Spoiled):
        ranges.read()


def test_an_acknowledged_and_forgotten_seal_is_not_found(ask: Ask, seal: Seal) -> None:
    assert ask("ack", **NAME) == ({}, b"")
    assert seal.is_acked
    seal.forget()
    assert ask("manifest", **NAME)[0]["error"] == "not_found"
    assert ask("read", **NAME, parts=[["state", 0, 2]])[0]["error"] == "not_found"
    assert ask("ack", **NAME) == ({}, b""), "the answer to the first may have been lost"


@pytest.mark.parametrize("op", ["manifest", "ack"])
def test_a_seal_that_cannot_be_read_is_not_found(ask: Ask, seal: Seal, op: str) -> None:
    """Whoever acknowledges several gets on to the next one."""
    (seal.folder / "manifest.json").write_text('{"v": 99}')
    reply, _ = ask(op, **NAME)
    assert reply["error"] == "not_found" and "version 99" in reply["message"]
    assert not seal.is_acked


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


def test_whoever_asks_hears_how_far_it_is(
    ask: Ask, seal: Seal, root: Root, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process restores, for a connection that may be long gone: nobody is in its way."""
    request = {"name": "checkpoint-10", "digest": seal.manifest.digest, "dest": "out/checkpoint-10"}
    monkeypatch.setattr(restore, "WATCH_S", 0.2)
    staged = home / f"out/.gpujob-{seal.manifest.digest[:16]}"
    staged.mkdir(parents=True)
    (staged / "state").write_bytes(b"{}")
    with locked(root.restore_lock) as mine:
        assert mine
        root.restore.write_text('{"v": 1, "bytes": 77}')
        assert ask("restore", **request) == ({"restored_bytes": 77}, b"")
        assert (staged / "state").exists()
        reply, _ = upload_folder(ask, home / "up", "out/checkpoint-11")
        assert reply["error"] == "io" and "another" in reply["message"]
    monkeypatch.undo()
    monkeypatch.setenv("HOME", str(home))
    assert ask("restore", **request) == ({"digest": seal.manifest.digest}, b"")
    assert content(home / "out/checkpoint-10") == {"deep/weights": BIG, "state": b"{}"}
    assert not root.restore.exists() and is_free(root.restore_lock)


def test_a_restore_that_takes_long_is_asked_after(
    ask: Ask, seal: Seal, root: Root, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk of 200 MB a second needs a quarter of an hour for what a 7B leaves behind."""
    request = {"name": "checkpoint-10", "digest": seal.manifest.digest, "dest": "out/checkpoint-10"}
    monkeypatch.setattr(restore, "WATCH_S", 0.05)
    monkeypatch.setattr(restore, "REPORT_S", 0.0)
    go_on = threading.Event()
    blocked = trees.copy_verified

    def slow(source: Path, target: Path, entry: FileEntry, moved: Callable[[int], None]) -> None:
        blocked(source, target, entry, moved)
        assert go_on.wait(20)

    monkeypatch.setattr(restore, "copy_verified", slow)
    told: list[int] = []
    while not told or told[-1] < len(BIG):
        told.append(ask("restore", **request)[0]["restored_bytes"])
        assert len(told) < 400
    assert told == sorted(told)
    assert not is_free(root.restore_lock)
    go_on.set()
    while "digest" not in (reply := ask("restore", **request)[0]):
        assert reply["restored_bytes"] <= seal.manifest.size_bytes
    assert content(home / "out/checkpoint-10") == {"deep/weights": BIG, "state": b"{}"}


def test_what_a_killed_restore_left_is_used_again(ask: Ask, seal: Seal, home: Path) -> None:
    digest = seal.manifest.digest
    staged = home / f"out/.gpujob-{digest[:16]}"
    (staged / "deep").mkdir(parents=True)
    (staged / "deep/weights").write_bytes(BIG)
    (staged / "state").write_bytes(b"{")
    (staged / "stray").write_bytes(b"of something else")
    inode = (staged / "deep/weights").stat().st_ino
    request = {"name": "checkpoint-10", "digest": digest, "dest": "out/checkpoint-10"}
    assert ask("restore", **request) == ({"digest": digest}, b"")
    dest = home / "out/checkpoint-10"
    assert content(dest) == {"deep/weights": BIG, "state": b"{}"}
    assert (dest / "deep/weights").stat().st_ino == inode


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
    with (root.incoming / manifest.digest / "ranges").open("ab") as journal:
        journal.write(b"16777216 4")  # torn by the kill

    def again(op: str, payload: bytes = b"", **header: Any) -> tuple[dict[str, Any], bytes]:
        return answer(server, {"op": op, **header}, payload)

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


def test_what_was_not_offered_is_refused(ask: Ask, tmp_path: Path) -> None:
    manifest = tree(tmp_path / "src", a=b"one")
    ask("offer", manifest.encode(), dest="work", mode="merge")
    for parts, data in (
        ([["a", 0, 4]], b"four"),
        ([["a", 1, 3]], b"one"),
        ([["b", 0, 3]], b"one"),
        ([["a", 0, 3]], b"on"),
    ):
        assert ask("write", data, upload=manifest.digest, parts=parts)[0]["error"] == "refused"


def test_bytes_that_came_wrong_are_asked_for_again_by_the_commit(
    ask: Ask, home: Path, tmp_path: Path
) -> None:
    manifest = tree(tmp_path / "src", a=b"one", b=BIG)
    ask("offer", manifest.encode(), dest="work", mode="merge")
    send(ask, tmp_path / "src", manifest, [("b", 0), ("b", 1)])
    ask("write", b"two", upload=manifest.digest, parts=[["a", 0, 3]])
    reply, _ = ask("commit", upload=manifest.digest)
    assert (reply["error"], reply["need"]) == ("changed", [("a", 0)])
    assert not (home / "work").exists()
    send(ask, tmp_path / "src", manifest, reply["need"])
    assert ask("commit", upload=manifest.digest)[0] == {"digest": manifest.digest}
    assert content(home / "work") == content(tmp_path / "src")


def test_several_connections_write_one_upload(
    ask: Ask, root: Root, home: Path, tmp_path: Path
) -> None:
    manifest = tree(tmp_path / "src", a=b"one", b=BIG)
    reply, _ = ask("offer", manifest.encode(), dest="work", mode="merge")
    others = [Server(root), Server(root)]
    for number, (path, chunk) in enumerate(reply["need"]):
        data = (tmp_path / "src" / path).read_bytes()[chunk * CHUNK_BYTES :][:CHUNK_BYTES]
        half = len(data) // 2
        for other, first, end in ((others[0], 0, half), (others[1], half, len(data))):
            parts = [[path, chunk * CHUNK_BYTES + first, end - first]]
            header = {"op": "write", "upload": manifest.digest, "parts": parts}
            assert other.answer(header, data[first:end]) == ({}, b""), number
    assert ask("commit", upload=manifest.digest)[0] == {"digest": manifest.digest}
    assert content(home / "work") == content(tmp_path / "src")


def test_a_part_of_a_chunk_that_came_is_told(ask: Ask, root: Root, tmp_path: Path) -> None:
    manifest = tree(tmp_path / "src", b=BIG)
    ask("offer", manifest.encode(), dest="work", mode="merge")
    for first, end in ((0, 1000), (1000, 3000), (5000, 6000)):
        parts = [["b", first, end - first]]
        ask("write", BIG[first:end], upload=manifest.digest, parts=parts)
    header = {"op": "offer", "dest": "work", "mode": "merge"}
    reply, _ = Server(root).answer(header, manifest.encode())
    assert reply["need"] == [("b", 0), ("b", 1)]
    assert reply["have"] == [["b", 0, 3000], ["b", 5000, 1000]]


def test_what_a_seal_or_another_upload_holds_is_not_asked_for(
    ask: Ask, seal: Seal, home: Path, tmp_path: Path
) -> None:
    half = os.urandom(70_000)
    broken = tree(tmp_path / "broken", a=half, b=b"new")
    reply, _ = ask("offer", broken.encode(), dest="code", mode="merge")
    send(ask, tmp_path / "broken", broken, [("a", 0)])
    manifest = tree(tmp_path / "src", weights=BIG, elsewhere__a=half, c=b"small")
    reply, _ = ask("offer", manifest.encode(), dest="work/checkpoint-10", mode="folder")
    assert reply["need"] == [("c", 0)]
    send(ask, tmp_path / "src", manifest, reply["need"])
    assert ask("commit", upload=manifest.digest)[0] == {"digest": manifest.digest}
    assert content(home / "work/checkpoint-10") == content(tmp_path / "src")
    assert (seal.folder / "tree/deep/weights").read_bytes() == BIG


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
