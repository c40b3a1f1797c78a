"""What is sealed reaches S3 whole and once, whatever the server and the way there do."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.s3 import BUCKET, KEYS, RCLONE, Weather, moto, open_bucket, proxy, rclone

from remote import pushing
from remote.agent.paths import Root
from remote.agent.pusher import is_settled
from remote.agent.seal import Seal
from remote.contract import CHUNK_BYTES, FileEntry, Manifest, hash_stream, pushed_uri, split_uri
from remote.outbox import push_all
from remote.pushing import Changed, Push
from remote.restoring import restore
from remote.s3 import Absent, Bucket, Busy, Corrupt, Denied, Keys, chunks_of, fetch

BASE = "prefix/run/checkpoint-10.0123456789abcdef"
BIG = CHUNK_BYTES + 12345


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    with moto() as url:
        yield url


@pytest.fixture(scope="session")
def rclone_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if not RCLONE:
        pytest.skip("rclone is not installed")
    with rclone(tmp_path_factory.mktemp("rclone")) as url:
        yield url


@pytest.fixture(params=["moto", "rclone"])
def url(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(f"{request.param}_url")
    return found


@pytest.fixture
def base(tmp_path: Path) -> str:
    """Its own place in the servers that the whole session shares."""
    return f"{tmp_path.name}/{BASE}"


def make_seal(folder: Path, *, name: str = "checkpoint-10", **files: bytes) -> Seal:
    """A finished seal of these files ("__" is a slash)."""
    entries: list[FileEntry] = []
    for path_name, data in files.items():
        path = folder / "tree" / path_name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        with path.open("rb") as stream:
            entries.append(hash_stream(stream, path.relative_to(folder / "tree").as_posix()))
    meta = {"name": name, "generation": 1, "sealed_at": name, "final": False}
    manifest = Manifest(tuple(entries), meta)
    (folder / "manifest.json").write_bytes(manifest.encode())
    record = {"v": 1, "max_steps": None, "tree": {}, "known": {}}
    (folder / "seal.json").write_text(json.dumps(record))
    seal = Seal.load(folder)
    assert seal
    return seal


def sample(folder: Path) -> Seal:
    return make_seal(folder, weights=os.urandom(BIG), sub__state=os.urandom(5000), empty=b"")


def push(bucket: Bucket, seal: Seal, base: str) -> None:
    Push(bucket, seal, base, lambda name, size: None).run()


def read_back(bucket: Bucket, seal: Seal, base: str) -> dict[str, bytes]:
    manifest = bucket.manifest(base)
    assert manifest == seal.manifest
    wanted = [each for entry in manifest.files for each in chunks_of(entry)]
    found = {entry.path: b"" for entry in manifest.files}
    for entry, _, data in fetch(bucket, base, wanted):
        found[entry.path] += data
    return found


def tree(seal: Seal) -> dict[str, bytes]:
    names = [entry.path for entry in seal.manifest.files]
    return {name: (seal.folder / "tree" / name).read_bytes() for name in names}


def test_what_was_pushed_is_what_is_fetched(tmp_path: Path, url: str, base: str) -> None:
    seal, bucket = sample(tmp_path / "seal"), open_bucket(url)
    with pytest.raises(Absent):
        bucket.manifest(base)
    push(bucket, seal, base)
    assert read_back(bucket, seal, base) == tree(seal)


def test_what_is_there_is_not_sent_again(tmp_path: Path, url: str, base: str) -> None:
    seal, weather = sample(tmp_path / "seal"), Weather()
    with proxy(url, weather) as near:
        bucket = open_bucket(near)
        push(bucket, seal, base)
        before = weather.sent_bytes
        assert before >= seal.manifest.size_bytes
        open_bucket(url).delete(f"{base}/manifest.json")
        push(bucket, seal, base)
    assert weather.sent_bytes - before < 10_000
    assert read_back(open_bucket(url), seal, base) == tree(seal)


def test_the_manifest_goes_last(tmp_path: Path, moto_url: str, base: str) -> None:
    seal, weather = sample(tmp_path / "seal"), Weather()
    with proxy(moto_url, weather) as near:
        push(open_bucket(near), seal, base)
    written = [path for method, path in weather.asked if method in ("PUT", "POST")]
    assert written[-1].endswith("manifest.json")
    assert sum(path.endswith("manifest.json") for path in written) == 1


def test_a_manifest_that_was_damaged_on_the_way_is_read_again(
    tmp_path: Path, moto_url: str, base: str
) -> None:
    """What a manifest says beside its files is in no digest of its own."""
    seal = make_seal(tmp_path / "seal", a=b"1")
    push(open_bucket(moto_url), seal, base)
    faults = iter(["flipped", "flipped"])
    weather = Weather(plan=lambda method, path: next(faults, None))  # type: ignore[arg-type, return-value]
    with proxy(moto_url, weather) as near:
        assert open_bucket(near).manifest(base).meta == seal.manifest.meta
    assert weather.count("GET") == 3


def test_a_killed_push_goes_on_with_its_parts(tmp_path: Path, url: str, base: str) -> None:
    """It dies before its second part; the next one sends that part alone."""
    seal = make_seal(tmp_path / "seal", weights=os.urandom(BIG))

    def second(method: str, path: str) -> str | None:
        return "403" if method == "PUT" and "partNumber=2" in path else None

    with proxy(url, Weather(plan=second)) as near, pytest.raises(Denied):  # type: ignore[arg-type]
        push(open_bucket(near), seal, base)
    weather = Weather()
    with proxy(url, weather) as near:
        push(open_bucket(near), seal, base)
    parts = [path for method, path in weather.asked if method == "PUT" and "partNumber" in path]
    assert len(parts) == 1 and "partNumber=2" in parts[0]
    assert read_back(open_bucket(url), seal, base) == tree(seal)


def test_an_upload_that_the_server_forgot_begins_anew(
    tmp_path: Path, moto_url: str, base: str
) -> None:
    seal = make_seal(tmp_path / "seal", weights=os.urandom(BIG))
    (seal.folder / "uploads.json").write_text('{"v": 1, "files": {"weights": "no-such"}}')
    push(open_bucket(moto_url), seal, base)
    assert read_back(open_bucket(moto_url), seal, base) == tree(seal)


def uploads(bucket: Bucket, base: str) -> list[str]:
    """The uploads in parts that the server holds, and bills, below `base`."""
    found = bucket._client.list_multipart_uploads(Bucket=bucket.name).get("Uploads", [])
    return [each["Key"] for each in found if each["Key"].startswith(base)]


def test_a_server_that_fails_to_join_the_parts_is_asked_again_and_sent_nothing_again(
    tmp_path: Path, moto_url: str, base: str
) -> None:
    seal = make_seal(tmp_path / "seal", weights=os.urandom(BIG))

    def joining(method: str, path: str) -> str | None:
        return "503" if method == "POST" and "uploadId" in path else None

    with proxy(moto_url, Weather(plan=joining)) as near, pytest.raises(Busy):  # type: ignore[arg-type]
        push(open_bucket(near, attempts=2), seal, base)
    weather = Weather()
    with proxy(moto_url, weather) as near:
        push(open_bucket(near), seal, base)
    sent = [path for method, path in weather.asked if method in ("PUT", "POST")]
    assert len(sent) == 2 and "uploadId" in sent[0] and sent[1].endswith("manifest.json")
    assert read_back(open_bucket(moto_url), seal, base) == tree(seal)
    assert uploads(open_bucket(moto_url), base) == []


def test_an_answer_to_the_joining_that_is_lost_costs_nothing(
    tmp_path: Path, url: str, base: str
) -> None:
    """The parts are joined; whoever asked for it was killed before it heard so."""
    seal, bucket = make_seal(tmp_path / "seal", weights=os.urandom(BIG)), open_bucket(url)
    push(bucket, seal, base)
    bucket.delete(f"{base}/manifest.json")
    record = {"v": 1, "files": {"weights": {"completing": "an id that is no more"}}}
    (seal.folder / "uploads.json").write_text(json.dumps(record))
    weather = Weather()
    with proxy(url, weather) as near:
        push(open_bucket(near), seal, base)
    assert [path for method, path in weather.asked if method in ("PUT", "POST")] == [
        f"/{BUCKET}/{base}/manifest.json"
    ]


@pytest.mark.parametrize("more", [-1, 0, 1, 5000])
def test_another_manifest_in_its_place_is_replaced(
    tmp_path: Path, moto_url: str, base: str, more: int
) -> None:
    """The same tree, sealed once more: what was written down beside it may be of any length."""
    seal, bucket = make_seal(tmp_path / "seal", a=b"1"), open_bucket(moto_url)
    older = b"x" * (len(seal.manifest.encode()) + more)
    bucket.put(f"{base}/manifest.json", older, hashlib.sha256(older).hexdigest())
    push(bucket, seal, base)
    assert read_back(bucket, seal, base) == tree(seal)


@pytest.mark.parametrize("name", ["small", "large"])
def test_what_changed_since_it_was_sealed_is_not_pushed(
    tmp_path: Path, moto_url: str, base: str, name: str
) -> None:
    seal = make_seal(tmp_path / "seal", small=b"x" * 100, large=b"y" * BIG)
    path = seal.folder / "tree" / name
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(Changed):
        push(open_bucket(moto_url), seal, base)
    with pytest.raises(Absent):
        open_bucket(moto_url).manifest(base)


@pytest.mark.parametrize("seed", range(3))
def test_it_arrives_through_any_weather(
    tmp_path: Path, moto_url: str, base: str, seed: int
) -> None:
    seal = make_seal(
        tmp_path / "seal", weights=os.urandom(BIG), a=os.urandom(70_000), b=b"", c=b"1"
    )
    bad = Weather(seed, ("500", "503", "slow", "reset", "truncated", "etag", "flipped"), 0.15)
    with proxy(moto_url, bad) as near:
        for _ in range(20):
            try:
                push(open_bucket(near), seal, base)
                break
            except Busy:
                continue
        assert read_back(open_bucket(near), seal, base) == tree(seal)


@pytest.mark.parametrize(
    ("keys", "bucket", "words"),
    [
        (Keys(KEYS.key_id, "wrong"), BUCKET, "the keys are refused"),
        (Keys("nobody", KEYS.secret), BUCKET, "the keys are refused"),
        (KEYS, "no-such-bucket", "no bucket no-such-bucket"),
    ],
    ids=["wrong-secret", "unknown-key", "no-bucket"],
)
def test_what_is_refused_says_why(
    tmp_path: Path, rclone_url: str, base: str, keys: Keys, bucket: str, words: str
) -> None:
    with pytest.raises(Denied, match=words) as caught:
        push(open_bucket(rclone_url, bucket, keys), sample(tmp_path / "seal"), base)
    assert keys.secret not in str(caught.value)


def test_a_server_that_is_away_is_busy(tmp_path: Path, base: str) -> None:
    bucket = open_bucket("http://127.0.0.1:9", attempts=1)
    with pytest.raises(Busy, match="cannot be reached"):
        bucket.head("x")


def test_restore_builds_the_folder_and_uses_what_is_there(
    tmp_path: Path, moto_url: str, base: str
) -> None:
    seal, bucket = sample(tmp_path / "seal"), open_bucket(moto_url)
    push(bucket, seal, base)
    dest, digest = tmp_path / "out" / "checkpoint-10", seal.manifest.digest
    staged = dest.parent / f".gpujob-{digest[:16]}.s3"
    staged.mkdir(parents=True)
    whole = tree(seal)["weights"]
    (staged / "weights").write_bytes(whole[:CHUNK_BYTES] + b"?")
    weather = Weather()
    told: list[int] = []
    with proxy(moto_url, weather) as near:
        size = restore(open_bucket(near), base, digest, str(dest), told.append)
    assert size == seal.manifest.size_bytes
    assert {path: (dest / path).read_bytes() for path in tree(seal)} == tree(seal)
    assert sum("weights" in path for _, path in weather.asked) == 1
    assert restore(bucket, base, digest, str(dest), told.append) == size
    assert sorted(path.name for path in dest.parent.iterdir()) == ["checkpoint-10"]


def program(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "remote.push", *words, "--root", str(root)]
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(root)}
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)


def make_root(folder: Path, url: str, keys: Keys = KEYS) -> Path:
    """What `prepare` leaves on a box, and one seal."""
    root = folder / "root"
    sample(root / "seals" / "checkpoint-10.1")
    also = f"s3://{BUCKET}/{folder.name}"
    aim = {"v": 1, "also": also, "run": "run", "endpoint_url": url, "pause_s": 0.01}
    (root / "push.json").write_text(json.dumps(aim))
    (root / "s3.env").write_text(f"KEY_ID={keys.key_id}\nSECRET={keys.secret}\n")
    return root


def test_the_program_pushes_and_brings_back(tmp_path: Path, moto_url: str) -> None:
    root = make_root(tmp_path, moto_url)
    seal = Seal.load(root / "seals" / "checkpoint-10.1")
    assert seal
    done = program(root, "push", "--parent", str(os.getpid()))
    assert done.returncode == 0, done.stderr
    pushed = json.loads((seal.folder / "pushed").read_text())
    uri = pushed_uri(f"s3://{BUCKET}/{tmp_path.name}", "run", seal.name, seal.manifest.digest)
    assert (pushed["uri"], pushed["digest"]) == (uri, seal.manifest.digest)
    assert not (seal.folder / "uploads.json").exists()
    words = ["restore", "--name", seal.name, "--digest", seal.manifest.digest]
    for _ in range(2):
        said = json.loads(program(root, *words, "--dest", "out/checkpoint-10").stdout)
        assert (said["state"], said["bytes"]) == ("done", seal.manifest.size_bytes)
    assert {path: (root / "out/checkpoint-10" / path).read_bytes() for path in tree(seal)} == tree(
        seal
    )
    lost = program(root, *words[:-1], "f" * 64, "--dest", "out/other")
    assert json.loads(lost.stdout)["kind"] == "Absent"


def test_the_program_leaves_word_of_what_stops_it(tmp_path: Path, rclone_url: str) -> None:
    root = make_root(tmp_path, rclone_url, Keys(KEYS.key_id, "not-the-secret"))
    assert program(root, "push", "--parent", str(os.getpid())).returncode == 1
    said = (root / "push.failed").read_text()
    assert "the keys are refused" in said and "not-the-secret" not in said
    (root / "s3.env").unlink()
    assert program(root, "push", "--parent", str(os.getpid())).returncode == 1
    assert "no keys for S3 on this box" in (root / "push.failed").read_text()
    assert program(root, "push", "--parent", "1").returncode == 75, "its agent is gone"


@pytest.mark.parametrize("trouble", ["denied", "unreadable here"])
def test_one_that_cannot_be_pushed_keeps_no_other_from_it(
    tmp_path: Path, moto_url: str, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    root = make_root(tmp_path, moto_url)
    newest = make_seal(root / "seals" / "checkpoint-20.1", a=b"1", name="checkpoint-20")
    if trouble == "unreadable here":
        (newest.folder / "tree/a").unlink()
        (newest.folder / "tree/a").symlink_to("/etc/hostname")

    def refused(method: str, path: str) -> str | None:
        return "403" if trouble == "denied" and "checkpoint-20" in path else None

    with proxy(moto_url, Weather(plan=refused)) as near:  # type: ignore[arg-type]
        aim = json.loads((root / "push.json").read_text())
        (root / "push.json").write_text(json.dumps({**aim, "endpoint_url": near}))
        with pytest.raises((Denied, OSError)):
            push_all(Root(root))
    assert (root / "seals/checkpoint-10.1/pushed").exists()
    assert not is_settled(newest.folder)


def test_the_parts_of_what_is_given_up_are_not_left_to_bill(tmp_path: Path, moto_url: str) -> None:
    root = make_root(tmp_path, moto_url)
    seal, bucket = Seal.load(root / "seals/checkpoint-10.1"), open_bucket(moto_url)
    assert seal
    uri = pushed_uri(f"s3://{BUCKET}/{tmp_path.name}", "run", seal.name, seal.manifest.digest)
    key = f"{split_uri(uri)[1]}/tree/weights"
    record = {"v": 1, "files": {"weights": bucket.begin(key, "0" * 64)}}
    (seal.folder / "uploads.json").write_text(json.dumps(record))
    path = seal.folder / "tree/sub/state"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert uploads(bucket, tmp_path.name) == [key]
    push_all(Root(root))
    assert "not what was sealed" in (seal.folder / "unpushed").read_text()
    assert uploads(bucket, tmp_path.name) == []
    assert not (seal.folder / "uploads.json").exists()


def test_a_seal_that_nobody_can_read_is_given_up_and_kept(tmp_path: Path, moto_url: str) -> None:
    root = make_root(tmp_path, moto_url)
    folder = root / "seals/checkpoint-10.1"
    (folder / "manifest.json").write_text('{"v": 99}')
    push_all(Root(root))
    assert "version 99" in (folder / "unpushed").read_text()
    assert (folder / "tree/weights").exists()


def test_another_checkpoint_in_its_place_is_not_restored(
    tmp_path: Path, moto_url: str, base: str
) -> None:
    push(open_bucket(moto_url), sample(tmp_path / "seal"), base)
    with pytest.raises(Corrupt):
        restore(open_bucket(moto_url), base, "0" * 64, str(tmp_path / "x"), lambda size: None)


def test_parts_stay_below_what_servers_allow() -> None:
    for size in (1, BIG, 200 * 10**9, 4 * 10**12):
        part = pushing.part_bytes(size)
        assert part % CHUNK_BYTES == 0
        assert -(-size // part) <= 10_000
