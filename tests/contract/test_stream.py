"""The stream against a small server of the protocol: what is resumed, what is refused."""

from __future__ import annotations

import dataclasses
import os
import random
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kit.agent import Bend, Server, SocketLink, tree_manifest, write_tree

from orchestrator.adapters.check import contradictions, problems
from orchestrator.adapters.partial import Journal
from orchestrator.adapters.stream import FrameStream, Tuning
from orchestrator.errors import GpujobError, IntegrityError, NotFound, Refused, Unreachable
from remote.contract import CHUNK_BYTES, FileEntry, Manifest

BIG = random.Random(4).randbytes(2 * CHUNK_BYTES + 12345)
# A request a chunk, so that requests can be counted; and nobody waits.
SWIFT = Tuning(piece_bytes=CHUNK_BYTES, retry_s=0.005, most_streams=1, report_s=0.0)
FILES = {"model__weights": BIG, "config": b"{}", "empty": b"", "rng__state": b"abc" * 1000}


@pytest.fixture
def server(tmp_path: Path) -> Server:
    manifest = write_tree(tmp_path / "box", **FILES)
    return Server(tmp_path / "box", manifest, tmp_path / "inbox")


@pytest.fixture
def into(tmp_path: Path) -> Path:
    return tmp_path / "incoming" / "checkpoint-10.1.partial"


@pytest.fixture
def open_stream(server: Server) -> Iterator[Callable[[], FrameStream]]:
    streams: list[FrameStream] = []

    def make(patience_s: float = 30.0) -> FrameStream:
        streams.append(FrameStream(lambda: SocketLink(server, patience_s), tuning=SWIFT))
        return streams[-1]

    yield make
    for stream in streams:
        stream.close()


def pull(stream: FrameStream, into: Path, manifest: Manifest) -> list[int]:
    told: list[int] = []
    stream.pull("checkpoint-10", 1, into, manifest, told.append)
    return told


def cut_after(count: int) -> Bend:
    left = [count]

    def bend(header: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], bytes] | None:
        left[0] -= 1
        return (header, payload) if left[0] >= 0 else None

    return bend


def flip(times: int) -> Bend:
    left = [times]

    def bend(header: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], bytes]:
        if len(payload) == CHUNK_BYTES and left[0] > 0:
            left[0] -= 1
            return header, bytes([payload[0] ^ 1]) + payload[1:]
        return header, payload

    return bend


def test_a_pulled_tree_is_the_manifest_s_and_read_only(
    server: Server, into: Path, open_stream: Callable[..., FrameStream]
) -> None:
    stream = open_stream()
    manifest = stream.manifest("checkpoint-10", 1)
    told = pull(stream, into, manifest)
    assert problems(into, manifest) == []
    assert told == sorted(told) and told[0] == 0 and told[-1] == manifest.size_bytes
    modes = {stat.S_IMODE(path.stat().st_mode) for path in into.rglob("*") if path.is_file()}
    assert modes == {0o444}
    assert Journal(into).is_complete(manifest.digest)


def test_what_a_login_shell_prints_is_skipped(
    server: Server, open_stream: Callable[..., FrameStream]
) -> None:
    server.banner = b"Welcome!\nGPUJOB/\n" * 100
    assert open_stream().manifest("checkpoint-10", 1) == server.manifest


def test_a_pull_that_was_cut_fetches_only_what_is_missing(
    server: Server, into: Path, open_stream: Callable[..., FrameStream]
) -> None:
    stream = open_stream()
    server.bend = cut_after(2)
    with pytest.raises(Unreachable):
        pull(stream, into, server.manifest)
    verified = set(Journal(into).chunks(server.manifest.digest))
    assert len(verified) == 2
    server.asked.clear()
    server.bend = cut_after(100)
    told = pull(stream, into, server.manifest)
    assert told[0] > 0
    assert set(server.reads).isdisjoint(verified)
    assert problems(into, server.manifest) == []


def test_a_pull_that_is_complete_fetches_nothing(
    server: Server, into: Path, open_stream: Callable[..., FrameStream]
) -> None:
    stream = open_stream()
    pull(stream, into, server.manifest)
    server.asked.clear()
    assert pull(stream, into, server.manifest) == [server.manifest.size_bytes]
    assert server.reads == []


def test_a_flipped_bit_in_the_partial_is_found_and_fetched_again(
    server: Server, into: Path, open_stream: Callable[..., FrameStream]
) -> None:
    stream = open_stream()
    pull(stream, into, server.manifest)
    weights = into / "model" / "weights"
    weights.chmod(0o644)
    with weights.open("r+b") as file:
        file.seek(CHUNK_BYTES + 7)
        file.write(bytes([BIG[CHUNK_BYTES + 7] ^ 1]))
    weights.chmod(0o444)
    server.asked.clear()
    pull(stream, into, server.manifest)
    assert server.reads == [("model/weights", 1)]
    assert problems(into, server.manifest) == []


def test_a_torn_journal_line_counts_for_nothing(
    server: Server, into: Path, open_stream: Callable[..., FrameStream]
) -> None:
    stream = open_stream()
    pull(stream, into, server.manifest)
    journal = Journal(into)
    lines = journal.path.read_bytes().splitlines(keepends=True)
    journal.path.write_bytes(b"".join(lines[:2]) + lines[2][:-3])
    assert not journal.is_complete(server.manifest.digest)
    server.asked.clear()
    pull(stream, into, server.manifest)
    assert len(server.reads) == len([1 for e in server.manifest.files for _ in e.chunks]) - 1
    assert problems(into, server.manifest) == []


def test_the_journal_of_another_tree_is_not_believed(
    server: Server, into: Path, open_stream: Callable[..., FrameStream], tmp_path: Path
) -> None:
    stream = open_stream()
    pull(stream, into, server.manifest)
    (tmp_path / "box" / "config").write_bytes(b"[]")
    (tmp_path / "box" / "rng" / "state").unlink()
    other = tree_manifest(tmp_path / "box")
    pull(stream, into, other)
    assert problems(into, other) == []


def test_a_chunk_that_comes_wrong_is_fetched_again(
    server: Server, into: Path, open_stream: Callable[..., FrameStream]
) -> None:
    server.bend = flip(2)
    pull(open_stream(), into, server.manifest)
    assert problems(into, server.manifest) == []


def test_a_chunk_that_keeps_coming_wrong_is_an_integrity_error(
    server: Server, into: Path, open_stream: Callable[..., FrameStream]
) -> None:
    server.bend = flip(1000)
    with pytest.raises(IntegrityError, match="model/weights"):
        pull(open_stream(), into, server.manifest)
    assert not Journal(into).is_complete(server.manifest.digest)


@pytest.mark.parametrize(
    ("kind", "error"),
    [("not_found", NotFound), ("changed", IntegrityError), ("refused", Refused)],
)
def test_what_the_box_refuses_has_a_name(
    server: Server, open_stream: Callable[..., FrameStream], kind: str, error: type[Exception]
) -> None:
    server.bend = lambda header, payload: ({"error": kind, "message": "weights of 10"}, b"")
    with pytest.raises(error, match="weights of 10"):
        open_stream().ack("checkpoint-10", 1)


def test_a_box_that_falls_silent_is_unreachable(
    server: Server, into: Path, open_stream: Callable[..., FrameStream]
) -> None:
    silent = threading.Event()

    def hold(header: dict[str, Any], payload: bytes) -> None:
        silent.wait(10)

    server.bend = hold
    with pytest.raises(Unreachable, match="not a byte"):
        pull(open_stream(patience_s=0.2), into, server.manifest)
    silent.set()


def test_close_from_another_thread_ends_a_pull(
    server: Server, into: Path, open_stream: Callable[..., FrameStream]
) -> None:
    stream, reached, silent = open_stream(), threading.Event(), threading.Event()

    def hold(header: dict[str, Any], payload: bytes) -> None:
        reached.set()
        silent.wait(10)

    server.bend = hold
    closer = threading.Thread(target=lambda: (reached.wait(10), stream.close()))
    closer.start()
    with pytest.raises(Unreachable):
        pull(stream, into, server.manifest)
    silent.set()
    closer.join()
    with pytest.raises(Unreachable, match="closed"):
        stream.ack("checkpoint-10", 1)


def test_a_manifest_whose_whole_is_not_its_chunks_is_told_by_who_reads_in_order(
    server: Server, into: Path, open_stream: Callable[..., FrameStream]
) -> None:
    """The digest vouches for the chunks, which are what a transfer verifies."""
    files = tuple(
        dataclasses.replace(each, sha256="0" * 64) if each.path == "model/weights" else each
        for each in server.manifest.files
    )
    pull(open_stream(), into, Manifest(files))
    assert problems(into, Manifest(files)) == []
    (said,) = contradictions(into, Manifest(files))
    assert said.startswith("model/weights: its manifest contradicts itself")
    assert contradictions(into, server.manifest) == []


def test_a_file_that_is_linked_from_an_earlier_checkpoint_is_hashed_once(
    server: Server,
    into: Path,
    open_stream: Callable[..., FrameStream],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (into / "model").mkdir(parents=True)
    os.link(tmp_path / "box" / "model" / "weights", into / "model" / "weights")
    Journal(into).begin(server.manifest.digest, [("model/weights", at) for at in range(3)])
    read, pread = list[int](), os.pread

    def counted(file: int, length: int, offset: int) -> bytes:
        read.append(len(data := pread(file, length, offset)))
        return data

    monkeypatch.setattr(os, "pread", counted)
    pull(open_stream(), into, server.manifest)
    assert {path for path, _ in server.reads}.isdisjoint({"model/weights"})
    assert sum(read) == len(BIG)


@pytest.mark.parametrize(
    "payload",
    [
        b"not json",
        b'{"v": 2, "digest": "", "files": []}',
        b'{"v": 2, "digest": "", "files": []}',
        *(
            Manifest((FileEntry(path, 0, "0" * 64, ()),)).encode()
            for path in ("../x", "/etc/x", "a/../../b", "a//b", "a\\b", "a\nb", "x" * 256, "")
        ),
        Manifest((FileEntry("a", 2**63, "0" * 64, ()),)).encode(),
        Manifest((FileEntry("a", -1, "0" * 64, ()),)).encode(),
        Manifest((FileEntry("a", 0, "0" * 64, ()),)).encode(),
        Manifest((FileEntry("a", 1, "0" * 64, ("1" * 64,)),)).encode(),
        b"[" * 100_000,
        b'{"v": 2, "digest": "", "files": [{"path": "a", "size": 1e999}]}',
    ],
)
def test_a_hostile_manifest_is_refused(
    server: Server, open_stream: Callable[..., FrameStream], payload: bytes
) -> None:
    server.bend = lambda header, _: (header, payload)
    with pytest.raises(IntegrityError, match="unharmed"):
        open_stream().manifest("checkpoint-10", 1)


def test_a_file_inside_a_file_is_refused(
    into: Path, open_stream: Callable[..., FrameStream]
) -> None:
    entries = [FileEntry(path, 0, EMPTY, ()) for path in ("a", "a/b")]
    with pytest.raises(IntegrityError):
        pull(open_stream(), into, Manifest(tuple(entries)))


EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize("place", ["config", "model", "model/weights"])
def test_a_link_inside_the_partial_is_never_followed(
    server: Server, into: Path, open_stream: Callable[..., FrameStream], place: str, tmp_path: Path
) -> None:
    stream = open_stream()
    server.bend = cut_after(1)
    with pytest.raises(Unreachable):
        pull(stream, into, server.manifest)
    server.bend = cut_after(100)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "weights").write_bytes(b"mine")
    link = into / place
    if link.is_dir():
        for each in link.iterdir():
            each.unlink()
        link.rmdir()
    link.unlink(missing_ok=True)
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(outside if place == "model" else outside / "weights")
    with pytest.raises(IntegrityError, match="Nothing was written outside"):
        pull(stream, into, server.manifest)
    assert {path.name: path.read_bytes() for path in outside.iterdir()} == {"weights": b"mine"}


def test_a_file_shared_with_a_published_checkpoint_is_never_written(
    server: Server, into: Path, open_stream: Callable[..., FrameStream], tmp_path: Path
) -> None:
    published = tmp_path / "published"
    published.write_bytes(b"[]")
    into.mkdir(parents=True)
    os.link(published, into / "config")
    Journal(into).begin(server.manifest.digest, [("config", 0)])
    pull(open_stream(), into, server.manifest)
    assert published.read_bytes() == b"[]"
    assert problems(into, server.manifest) == []


def test_a_shared_file_with_a_flipped_bit_is_fetched_whole_and_left_alone(
    server: Server, into: Path, open_stream: Callable[..., FrameStream], tmp_path: Path
) -> None:
    published, damaged = tmp_path / "published", bytes([BIG[0] ^ 1]) + BIG[1:]
    published.write_bytes(damaged)
    (into / "model").mkdir(parents=True)
    os.link(published, into / "model" / "weights")
    chunks = [("model/weights", index) for index in range(3)]
    Journal(into).begin(server.manifest.digest, chunks)
    pull(open_stream(), into, server.manifest)
    assert set(chunks) <= set(server.reads)
    assert published.read_bytes() == damaged
    assert problems(into, server.manifest) == []


def test_a_folder_of_somebody_is_not_filled(
    server: Server, tmp_path: Path, open_stream: Callable[..., FrameStream]
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis").write_text("mine")
    with pytest.raises(GpujobError, match="nothing in it was changed"):
        pull(open_stream(), tmp_path / "mine", server.manifest)
    assert [each.name for each in (tmp_path / "mine").iterdir()] == ["thesis"]


def test_a_pushed_tree_arrives_and_is_not_sent_twice(
    server: Server, open_stream: Callable[..., FrameStream], tmp_path: Path
) -> None:
    stream, told = open_stream(), list[int]()
    source, manifest = tmp_path / "box", server.manifest
    stream.push(source, manifest, "work", "merge", told.append)
    assert problems(tmp_path / "inbox" / "work", manifest) == []
    assert told[-1] == manifest.size_bytes
    server.asked.clear()
    stream.push(source, manifest, "work", "merge", told.append)
    assert [each["op"] for each in server.asked] == ["offer", "commit"]


def test_a_push_that_was_cut_sends_only_what_is_missing(
    server: Server, open_stream: Callable[..., FrameStream], tmp_path: Path
) -> None:
    stream = open_stream()
    server.bend = cut_after(2)
    with pytest.raises(Unreachable):
        stream.push(tmp_path / "box", server.manifest, "work", "merge", lambda _: None)
    server.asked.clear()
    server.bend = cut_after(100)
    stream.push(tmp_path / "box", server.manifest, "work", "merge", lambda _: None)
    chunks = sum(len(each.chunks) for each in server.manifest.files)
    assert 0 < [each["op"] for each in server.asked].count("write") < chunks


def test_a_file_that_changed_since_the_plan_is_not_sent(
    server: Server, open_stream: Callable[..., FrameStream], tmp_path: Path
) -> None:
    (tmp_path / "box" / "config").write_bytes(b"[]")
    with pytest.raises(IntegrityError, match="config is not what it was"):
        open_stream().push(tmp_path / "box", server.manifest, "work", "merge", lambda _: None)


@pytest.mark.parametrize("need", [[["../x", 0]], [["config", 1]], [["config", -1]], ["x"], 5])
def test_a_box_that_asks_for_what_was_not_offered_is_cut_off(
    server: Server, open_stream: Callable[..., FrameStream], tmp_path: Path, need: Any
) -> None:
    server.bend = lambda header, payload: ({"upload": "x", "need": need}, b"")
    with pytest.raises(Unreachable):
        open_stream().push(tmp_path / "box", server.manifest, "work", "merge", lambda _: None)
    assert [each["op"] for each in server.asked] == ["hello", "offer"]


def test_a_box_that_put_something_else_in_place_is_an_integrity_error(
    server: Server, open_stream: Callable[..., FrameStream], tmp_path: Path
) -> None:
    server.bend = lambda header, payload: ({**header, "digest": "0" * 64}, payload)
    with pytest.raises(IntegrityError, match="another tree"):
        open_stream().push(tmp_path / "box", server.manifest, "work", "merge", lambda _: None)
