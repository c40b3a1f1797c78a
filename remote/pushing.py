"""One sealed checkpoint on its way to S3: what is there already is not sent again, and the manifest
goes last, so that a checkpoint without it is none."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, Optional, Tuple

from remote.agent.durable import read_json, write_json
from remote.agent.seal import Seal
from remote.contract import CHUNK_BYTES, PROTOCOL, FileEntry
from remote.s3 import Absent, Bucket, Busy, Part

SINGLE_BYTES = CHUNK_BYTES  # larger files go in parts
MAX_PARTS = 9000  # a server allows 10,000


class Changed(Exception):
    """The bytes on this box are not those that were sealed."""


class Push:
    """Puts a seal below the key `base`. `sent` is told of bytes before they go, and may hold them
    up. Any kill is survived: another Push goes on."""

    def __init__(
        self, bucket: Bucket, seal: Seal, base: str, sent: Callable[[str, int], None]
    ) -> None:
        self._bucket = bucket
        self._seal = seal
        self._base = base
        self._sent = sent
        self._record = _Record(seal.folder / "uploads.json")

    def run(self) -> None:
        """Returns when the manifest is there. Raises Changed, StoreError, OSError."""
        manifest = self._seal.manifest.encode()
        sha256 = hashlib.sha256(manifest).hexdigest()
        key = "%s/manifest.json" % self._base
        size, _ = self._bucket.head(key) or (-1, "")
        if size == len(manifest) and self._bucket.get(key, size) == manifest:
            return
        files = self._seal.manifest.files
        with ThreadPoolExecutor(self._bucket.streams, "push") as pool:
            small = [entry for entry in files if entry.size <= SINGLE_BYTES]
            list(_each(pool, self._put, small))
            for entry in files:
                if entry.size > SINGLE_BYTES:
                    self._put_parts(pool, entry)
        self._bucket.put(key, manifest, sha256)

    def abandon(self) -> None:
        """End the uploads that were begun: what has arrived of them would be billed for ever.
        Raises StoreError."""
        for path, upload in self._record.uploads():
            with contextlib.suppress(Absent):
                self._bucket.abort("%s/tree/%s" % (self._base, path), upload)

    def _put(self, entry: FileEntry) -> None:
        key = self._key(entry)
        if self._is_there(key, entry):
            return
        data = self._read(entry, 0, entry.size)
        self._sent(self._seal.name, len(data))
        self._bucket.put(key, data, entry.sha256)
        self._record.done(entry.path)

    def _put_parts(self, pool: ThreadPoolExecutor, entry: FileEntry) -> None:
        key, size = self._key(entry), part_bytes(entry.size)
        if self._is_there(key, entry):
            return
        upload, known = self._resume(key, entry)

        def send(number: int) -> Part:
            data = self._read(entry, (number - 1) * size, size)
            sha256 = hashlib.sha256(data).hexdigest()
            there = known.get(number)
            if there and _is_same(there, data, sha256):
                return there
            self._sent(self._seal.name, len(data))
            return self._bucket.put_part(key, upload, number, data, sha256)

        numbers = range(1, (entry.size + size - 1) // size + 1)
        parts = list(_each(pool, send, numbers))
        # The answer to this may be lost: the upload is then no more, and the object is there.
        self._record.completing(entry.path, upload)
        with contextlib.suppress(Absent):
            self._bucket.complete(key, upload, parts)
        if not self._is_there(key, entry):
            self._record.forget(entry.path)
            raise Busy("%s did not arrive whole" % entry.path)
        self._record.done(entry.path)

    def _resume(self, key: str, entry: FileEntry) -> Tuple[str, Dict[int, Part]]:
        upload = self._record.upload(entry.path)
        if upload:
            with contextlib.suppress(Absent):
                return upload, {part.number: part for part in self._bucket.parts(key, upload)}
        upload = self._bucket.begin(key, entry.sha256)
        self._record.begun(entry.path, upload)
        return upload, {}

    def _is_there(self, key: str, entry: FileEntry) -> bool:
        """By size and digest; of a server that keeps no digests, what we put there ourselves."""
        size, sha256 = self._bucket.head(key) or (-1, "")
        known = sha256 == entry.sha256 or (not sha256 and self._record.is_ours(entry.path))
        return size == entry.size and known

    def _read(self, entry: FileEntry, offset: int, size: int) -> bytes:
        """Whole chunks of a file as the manifest has them. Raises Changed."""
        wanted = min(size, entry.size - offset)
        file = os.open(self._seal.folder / "tree" / entry.path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            data = os.pread(file, wanted, offset)
            if len(data) != wanted or os.fstat(file).st_size != entry.size:
                raise Changed(entry.path)
        finally:
            os.close(file)
        for at in range(0, wanted, CHUNK_BYTES):
            digest = hashlib.sha256(data[at : at + CHUNK_BYTES]).hexdigest()
            if digest != entry.chunks[(offset + at) // CHUNK_BYTES]:
                raise Changed(entry.path)
        return data

    def _key(self, entry: FileEntry) -> str:
        return "%s/tree/%s" % (self._base, entry.path)


def part_bytes(size: int) -> int:
    """How long a part of a file of `size` bytes is: whole chunks, and not too many parts."""
    chunks = (size + CHUNK_BYTES - 1) // CHUNK_BYTES
    return CHUNK_BYTES * max(1, (chunks + MAX_PARTS - 1) // MAX_PARTS)


class _Record:
    """What went before, by file: the id of an upload in parts that is under way, so that it is
    resumed and none is left to bill; below `completing` once the parts are being joined, which
    may be done before anybody hears of it; None for a file that is there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        found = (read_json(path) or {}).get("files")
        self._files: Dict[str, Any] = found if isinstance(found, dict) else {}

    def is_ours(self, path: str) -> bool:
        """Whether an object that is there can be what was put there from here."""
        return path in self._files and not isinstance(self._files[path], str)

    def upload(self, path: str) -> Optional[str]:
        found = self._files.get(path)
        found = found.get("completing") if isinstance(found, dict) else found
        return found if isinstance(found, str) and found else None

    def uploads(self) -> Iterator[Tuple[str, str]]:
        """The files that have one under way, and its id."""
        for path in self._files:
            upload = self.upload(path)
            if upload:
                yield path, upload

    def begun(self, path: str, upload: str) -> None:
        self._write({path: upload})

    def completing(self, path: str, upload: str) -> None:
        self._write({path: {"completing": upload}})

    def done(self, path: str) -> None:
        self._write({path: None})

    def forget(self, path: str) -> None:
        self._write({path: ""})

    def _write(self, change: Dict[str, Any]) -> None:
        with self._lock:
            self._files = {**self._files, **change}
            write_json(self._path, {"v": PROTOCOL, "files": self._files}, durable=False)


def _is_same(part: Part, data: bytes, sha256: str) -> bool:
    if part.size != len(data):
        return False
    if part.sha256:
        return part.sha256 == base64.b64encode(bytes.fromhex(sha256)).decode()
    return part.etag.strip('"') == hashlib.md5(data).hexdigest()


def _each(
    pool: ThreadPoolExecutor, do: Callable[[Any], Any], items: Iterable[Any]
) -> Iterator[Any]:
    """What each gives; at the first that fails the rest is not begun."""
    futures = [pool.submit(do, each) for each in items]
    try:
        for future in futures:
            yield future.result()
    finally:
        for future in futures:
            future.cancel()
