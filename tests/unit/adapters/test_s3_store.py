"""The port Store against a real server: verified, resumed, and every failure named."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.agent import tree_manifest
from kit.s3 import BUCKET, KEYS, Weather, make_bucket, moto, open_bucket, proxy

from orchestrator.adapters.mirror import FolderMirror
from orchestrator.adapters.s3 import S3Store, check_place
from orchestrator.adapters.stamp import Stamp, set_stamp
from orchestrator.errors import IntegrityError, NotFound, Refused, Transient
from orchestrator.ports import StorePlace
from remote.contract import CHUNK_BYTES, Manifest
from remote.s3 import Keys

BIG = CHUNK_BYTES + 999


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with moto() as url:
        yield url


@pytest.fixture
def base(tmp_path: Path) -> str:
    return f"{tmp_path.name}/run/seals/checkpoint-10.1"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "sub").mkdir(parents=True)
    (folder / "weights").write_bytes(os.urandom(BIG))
    (folder / "sub" / "state.json").write_bytes(b"{}")
    (folder / "empty").write_bytes(b"")
    return folder


def store(url: str, keys: Keys = KEYS, bucket: str = BUCKET) -> S3Store:
    place = StorePlace(bucket, url, "us-east-1", Path("/no/keys"))
    return S3Store(place, lambda: keys, patience_s=5.0, pause_s=0.01)


def put(url: str, base: str, folder: Path) -> Manifest:
    """As a live volume holds a seal: files without any digest of ours, and the manifest."""
    bucket, manifest = open_bucket(url), tree_manifest(folder, name="checkpoint-10", generation=1)
    for entry in manifest.files:
        data = (folder / entry.path).read_bytes()
        bucket._client.put_object(Bucket=BUCKET, Key=f"{base}/tree/{entry.path}", Body=data)
    bucket._client.put_object(Bucket=BUCKET, Key=f"{base}/manifest.json", Body=manifest.encode())
    return manifest


def mirror(tmp_path: Path) -> FolderMirror:
    set_stamp(tmp_path / "mirror", Stamp("run", "ledger"))
    return FolderMirror(tmp_path / "mirror", "run", "ledger")


def pull(store: S3Store, base: str, tmp_path: Path) -> Path:
    manifest = store.manifest(base)
    with mirror(tmp_path).partial(manifest) as into:
        store.pull(base, into, manifest, lambda size: None)
        return mirror(tmp_path).publish("checkpoint-10", 1, manifest)


def same(folder: Path, other: Path) -> bool:
    names = {path.relative_to(other) for path in other.rglob("*") if path.is_file()}
    return all((folder / name).read_bytes() == (other / name).read_bytes() for name in names)


def test_a_volume_is_fetched_and_published(
    url: str, base: str, source: Path, tmp_path: Path
) -> None:
    put(url, base, source)
    assert same(pull(store(url), base, tmp_path), source)


def test_what_is_here_is_not_fetched_again(
    url: str, base: str, source: Path, tmp_path: Path
) -> None:
    """It breaks after the small files; the second try asks for the large one alone."""
    manifest = put(url, base, source)
    with mirror(tmp_path).partial(manifest) as into:
        pass

    def no_weights(method: str, path: str) -> str | None:
        return "403" if path.endswith("weights") else None

    with proxy(url, Weather(plan=no_weights)) as near, pytest.raises(Refused):  # type: ignore[arg-type]
        store(near).pull(base, into, manifest, lambda size: None)
    weather, told = Weather(), list[int]()
    with proxy(url, weather) as near:
        store(near).pull(base, into, manifest, told.append)
    assert all("weights" in path for _, path in weather.asked)
    assert told[-1] == manifest.size_bytes
    assert told == sorted(told)


@pytest.mark.parametrize("seed", range(3))
def test_it_comes_home_through_any_weather(
    url: str, base: str, source: Path, tmp_path: Path, seed: int
) -> None:
    put(url, base, source)
    weather = Weather(seed, ("500", "503", "slow", "reset", "truncated", "flipped", "etag"), 0.3)
    with proxy(url, weather) as near:
        assert same(pull(store(near), base, tmp_path), source)


def test_bytes_that_are_always_wrong_are_never_published(
    url: str, base: str, source: Path, tmp_path: Path
) -> None:
    put(url, base, source)
    (source / "weights").write_bytes(os.urandom(BIG))
    data = (source / "weights").read_bytes()
    open_bucket(url)._client.put_object(Bucket=BUCKET, Key=f"{base}/tree/weights", Body=data)
    with pytest.raises(IntegrityError, match="unharmed"):
        pull(store(url), base, tmp_path)
    assert mirror(tmp_path).held() == []


@pytest.mark.parametrize("size", [10, 40], ids=["shorter", "longer"])
def test_an_object_of_another_length_is_refused(
    url: str, base: str, tmp_path: Path, size: int
) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    (folder / "state").write_bytes(b"x" * 20)
    put(url, base, folder)
    open_bucket(url)._client.put_object(Bucket=BUCKET, Key=f"{base}/tree/state", Body=b"x" * size)
    with pytest.raises(IntegrityError):
        pull(store(url), base, tmp_path)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (None, NotFound),
        (b"", IntegrityError),
        (b'{"v": 99}', IntegrityError),
        (b'{"v": 2, "digest": "x", "files": [{"path": "../evil", "size": 1}]}', IntegrityError),
    ],
    ids=["none", "empty", "version", "hostile"],
)
def test_a_manifest_that_is_none(
    url: str, base: str, data: bytes | None, error: type[Exception]
) -> None:
    if data is not None:
        key = f"{base}/manifest.json"
        open_bucket(url)._client.put_object(Bucket=BUCKET, Key=key, Body=data)
    with pytest.raises(error):
        store(url).manifest(base)


def test_what_is_found_below_a_prefix_is_what_is_whole(
    url: str, base: str, source: Path, tmp_path: Path
) -> None:
    (source / "weights").unlink()
    manifest, prefix = put(url, base, source), base.rpartition("/")[0]
    half = f"{prefix}/checkpoint-20.1/tree/weights"
    open_bucket(url)._client.put_object(Bucket=BUCKET, Key=half, Body=b"x")
    assert store(url).found(prefix) == [(base, manifest)]
    assert store(url).found(f"{prefix}/nothing") == []


def test_every_way_to_fail_says_what_to_do_next(url: str, base: str) -> None:
    with pytest.raises(Refused, match="no bucket"):
        store(url, bucket="no-such-bucket").manifest(base)
    with pytest.raises(Refused, match="no https"):
        store("http://s3.example.org").manifest(base)
    closed = Weather(plan=lambda method, path: "403")
    with proxy(url, closed) as near, pytest.raises(Refused, match="keys are refused"):
        store(near).manifest(base)
    opened = store(url)
    opened._opened()
    opened.close()
    with pytest.raises(Transient):
        opened.manifest(base)


def test_the_place_is_tried_with_an_object_that_goes_again(url: str) -> None:
    make_bucket(url, "tried")
    checks = list(check_place("s3://tried/prefix", url, "", KEYS))
    assert [check.state for check in checks] == ["ok", "warn"]
    found = open_bucket(url, "tried")._client.list_objects_v2(Bucket="tried")
    assert found["KeyCount"] == 0


def test_keys_that_may_not_delete_are_good_keys(url: str) -> None:
    def no_delete(method: str, path: str) -> str | None:
        return "403" if method == "DELETE" or "list-type" in path else None

    with proxy(url, Weather(plan=no_delete)) as near:  # type: ignore[arg-type]
        checks = list(check_place(f"s3://{BUCKET}/tried", near, "", KEYS))
    assert [check.state for check in checks] == ["ok"]
    assert "stays there" in checks[0].found


def test_a_wrong_place_fails_and_names_no_secret(url: str) -> None:
    (check,) = check_place("s3://no-such-bucket/x", url, "", KEYS)
    assert check.state == "fail" and check.advice
    assert KEYS.secret not in check.found + check.advice
