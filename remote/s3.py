"""A bucket on an S3 server, for both sides of the wire: objects, uploads in parts, and ranges that
are verified. Nothing that the agent runs on imports it, for it needs boto3.

Servers differ: some have no batch delete, no checksum headers, ETags that are made late, listings
that take minutes. So only single objects with known keys are asked for, and what is read is held
against our own manifest.
"""

from __future__ import annotations

import base64
import hashlib
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Callable, Deque, Dict, Iterable, Iterator, List, Optional, Tuple

from remote.contract import CHUNK_BYTES, ContractError, FileEntry, Manifest
from remote.s3client import (
    Absent,
    Busy,
    Closed,
    Corrupt,
    Denied,
    Keys,
    Server,
    StoreError,
    Unsupported,
    connect,
    explained,
    read_keys,
)

BAD_TRIES = 3
MAX_MANIFEST_BYTES = 256 * 1024 * 1024
MAX_FOLDERS = 20_000
COMPLETE_S = 7200.0  # joining the parts of tens of GB takes some servers this long
DIGEST = "gpujob-sha256"


@dataclass(frozen=True)
class Part:
    """One part of a multipart upload as the server has it."""

    number: int
    size: int
    etag: str
    sha256: str = ""


class Bucket:
    """Objects of one bucket. Any thread may call; `close` makes all of them give up."""

    def __init__(self, server: Server, keys: Keys, name: str, *, streams: int) -> None:
        self.name = name
        self.streams = streams
        self._server = server
        self._keys = keys
        self._client = connect(server, keys, streams, server.patience_s)
        self._closed = threading.Event()
        self._checksums = True

    def close(self) -> None:
        self._closed.set()

    def check_open(self) -> None:
        if self._closed.is_set():
            raise Closed("closed")

    def head(self, key: str) -> Optional[Tuple[int, str]]:
        """Size and SHA-256 (empty when we did not put it there); None when there is none."""
        try:
            found = self._ask("head_object", Key=key)
        except Absent:
            return None
        return int(found["ContentLength"]), str(found.get("Metadata", {}).get(DIGEST, ""))

    def put(self, key: str, data: bytes, sha256: str) -> None:
        """One object, its digest beside it and, where the server can, checked by it."""
        self._checked("put_object", data, sha256, Key=key, Body=data, Metadata={DIGEST: sha256})

    def delete(self, key: str) -> None:
        self._ask("delete_object", Key=key)

    def get(self, key: str, most: int) -> bytes:
        """A small object, of at most `most` bytes."""
        return self._retried(lambda: self._read(key, most))[0]

    def folders(self, prefix: str) -> List[str]:
        """The keys one level below `prefix` that others lie below. One page each thousand of
        them, however many objects they hold."""
        found: List[str] = []
        asked: Dict[str, Any] = {"Prefix": prefix.rstrip("/") + "/", "Delimiter": "/"}
        while len(found) < MAX_FOLDERS:
            page = self._ask("list_objects_v2", **asked)
            found += [str(each["Prefix"]).rstrip("/") for each in page.get("CommonPrefixes", [])]
            if not page.get("IsTruncated"):
                break
            asked["ContinuationToken"] = page["NextContinuationToken"]
        return found

    def peek(self) -> bool:
        """Whether these keys may look at the whole bucket."""
        try:
            self._ask("list_objects_v2", MaxKeys=1)
        except Denied:
            return False
        return True

    def begin(self, key: str, sha256: str) -> str:
        """Start a multipart upload and return its id."""
        more: Dict[str, Any] = {"ChecksumAlgorithm": "SHA256"} if self._checksums else {}
        asked = {"Key": key, "Metadata": {DIGEST: sha256}}
        return str(self._ask("create_multipart_upload", **asked, **more)["UploadId"])

    def parts(self, key: str, upload: str) -> List[Part]:
        """What has arrived of an upload. Raises Absent when the server knows none."""
        found: List[Part] = []
        marker: Dict[str, Any] = {}
        while True:
            page = self._ask("list_parts", Key=key, UploadId=upload, **marker)
            found += [_part(each) for each in page.get("Parts", [])]
            if not page.get("IsTruncated"):
                return found
            marker = {"PartNumberMarker": page["NextPartNumberMarker"]}

    def put_part(self, key: str, upload: str, number: int, data: bytes, sha256: str) -> Part:
        asked = {"Key": key, "UploadId": upload, "PartNumber": number, "Body": data}
        answer = self._checked("upload_part", data, sha256, **asked)
        return Part(number, len(data), str(answer["ETag"]), str(answer.get("ChecksumSHA256", "")))

    def complete(self, key: str, upload: str, parts: Iterable[Part]) -> None:
        told = [_told(part) for part in sorted(parts, key=lambda part: part.number)]
        asked = {"Key": key, "UploadId": upload, "MultipartUpload": {"Parts": told}}
        slow = connect(self._server, self._keys, 1, max(COMPLETE_S, self._server.patience_s))
        self._ask("complete_multipart_upload", slow, **asked)

    def abort(self, key: str, upload: str) -> None:
        self._ask("abort_multipart_upload", Key=key, UploadId=upload)

    def manifest(self, base: str) -> Manifest:
        """The manifest of the checkpoint below `base`; without one it is none.

        Raises Absent, ContractError when it comes wrong BAD_TRIES times."""
        key, wrong = base + "/manifest.json", ContractError("a manifest that is damaged")
        for _ in range(BAD_TRIES):
            data, sha256 = self._retried(lambda: self._read(key, MAX_MANIFEST_BYTES))
            if sha256 and hashlib.sha256(data).hexdigest() != sha256:
                continue
            try:
                return Manifest.decode(data)
            except ContractError as error:
                wrong = error
        raise wrong

    def chunk(self, base: str, entry: FileEntry, index: int) -> bytes:
        """One chunk of a file below `base`, verified. Raises Corrupt when it comes wrong
        BAD_TRIES times."""
        size = min(CHUNK_BYTES, entry.size - index * CHUNK_BYTES)
        key = "%s/tree/%s" % (base, entry.path)
        whole = size == entry.size
        span = (
            None if whole else "bytes=%d-%d" % (index * CHUNK_BYTES, index * CHUNK_BYTES + size - 1)
        )
        for _ in range(BAD_TRIES):
            data, _ = self._retried(lambda: self._read(key, size, span))
            if hashlib.sha256(data).hexdigest() == entry.chunks[index]:
                return data
        raise Corrupt("%s has other bytes there than its manifest says" % entry.path)

    def _checked(self, name: str, data: bytes, sha256: str, **asked: Any) -> Any:
        """With a digest that the server checks: SHA-256, or MD5 where that is all it knows."""
        if self._checksums:
            digest = base64.b64encode(bytes.fromhex(sha256)).decode()
            try:
                return self._ask(name, ChecksumSHA256=digest, **asked)
            except Unsupported:
                self._checksums = False
        md5 = hashlib.md5(data).digest()
        return self._ask(name, ContentMD5=base64.b64encode(md5).decode(), **asked)

    def _ask(self, name: str, client: Any = None, **asked: Any) -> Any:
        self.check_open()
        try:
            return getattr(client or self._client, name)(Bucket=self.name, **asked)
        except Exception as error:
            checked = "ChecksumSHA256" in asked
            raise explained(error, self._server, self.name, checked=checked) from error

    def _read(self, key: str, most: int, span: Optional[str] = None) -> Tuple[bytes, str]:
        """The body, of at most `most` bytes, and the whole object's SHA-256 if it is kept there;
        of exactly so many bytes when a span is asked for."""
        asked = {"Key": key} if span is None else {"Key": key, "Range": span}
        answer = self._ask("get_object", **asked)
        try:
            data: bytes = answer["Body"].read(most + 1)
            if len(data) < min(most, int(answer["ContentLength"])):
                raise Busy("the answer was cut short")
        except StoreError:
            raise
        except Exception as error:
            raise explained(error, self._server, self.name) from error
        finally:
            answer["Body"].close()
        if len(data) > most or (span and len(data) != most):
            raise Corrupt("%s is not as long as it should be" % key)
        return data, str(answer.get("Metadata", {}).get(DIGEST, ""))

    def _retried(self, read: Callable[[], Tuple[bytes, str]]) -> Tuple[bytes, str]:
        """The client asks again by itself, but not when an answer breaks off in the middle."""
        for attempt in range(self._server.attempts):
            try:
                return read()
            except Busy:
                if attempt + 1 == self._server.attempts:
                    raise
                self._closed.wait(min(20.0, self._server.pause_s * 2**attempt))
        raise AssertionError("unreachable")


def fetch(
    bucket: Bucket, base: str, wanted: Iterable[Tuple[FileEntry, int]]
) -> Iterator[Tuple[FileEntry, int, bytes]]:
    """The chunks that are wanted, each verified, as many at once as the bucket has streams.

    Raises StoreError; then nothing more is under way when it returns."""
    todo = iter(wanted)
    flight: Deque[Tuple[FileEntry, int, "Future[bytes]"]] = deque()
    with ThreadPoolExecutor(bucket.streams, "s3") as pool:
        try:
            for entry, index in todo:
                flight.append((entry, index, pool.submit(bucket.chunk, base, entry, index)))
                if len(flight) >= bucket.streams + 2:
                    yield _landed(flight)
            while flight:
                yield _landed(flight)
        finally:
            for _, _, future in flight:
                future.cancel()


def chunks_of(entry: FileEntry) -> List[Tuple[FileEntry, int]]:
    return [(entry, index) for index in range(len(entry.chunks))]


def _landed(flight: Any) -> Tuple[FileEntry, int, bytes]:
    entry, index, future = flight.popleft()
    return entry, index, future.result()


def _part(record: Dict[str, Any]) -> Part:
    checksum = str(record.get("ChecksumSHA256", ""))
    return Part(int(record["PartNumber"]), int(record["Size"]), str(record["ETag"]), checksum)


def _told(part: Part) -> Dict[str, Any]:
    record: Dict[str, Any] = {"PartNumber": part.number, "ETag": part.etag}
    return {**record, "ChecksumSHA256": part.sha256} if part.sha256 else record


__all__ = [
    "Absent",
    "Bucket",
    "Busy",
    "Closed",
    "ContractError",
    "Corrupt",
    "Denied",
    "Keys",
    "Part",
    "Server",
    "StoreError",
    "chunks_of",
    "fetch",
    "read_keys",
]
