"""One pushed checkpoint on its way from S3 into the trainer's folder: verified, by one rename."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Callable, List, Tuple

from remote.agent.durable import fsync_file
from remote.agent.trees import holds_exactly, place_folder, resolve
from remote.contract import CHUNK_BYTES, FileEntry, Manifest
from remote.s3 import Bucket, Corrupt, chunks_of, fetch

REPORT_S = 1.0


def restore(
    bucket: Bucket, base: str, digest: str, dest: str, progress: Callable[[int], None]
) -> int:
    """Make `dest` be the checkpoint below the key `base`, and return its size in bytes. What a
    killed one left is used again. `progress` is told the bytes that are verified here so far.

    Raises StoreError, ContractError, OSError, Refusal."""
    place, manifest = resolve(dest), bucket.manifest(base)
    if manifest.digest != digest:
        raise Corrupt("another checkpoint lies in its place")
    if not holds_exactly(place, manifest):
        staged = place.parent / (".gpujob-%s.s3" % digest[:16])
        staged.mkdir(parents=True, exist_ok=True)
        _fill(bucket, base, manifest, staged, progress)
        place_folder(staged, place)
    return manifest.size_bytes


def _fill(
    bucket: Bucket, base: str, manifest: Manifest, staged: Path, progress: Callable[[int], None]
) -> None:
    wanted: List[Tuple[FileEntry, int]] = []
    for entry in manifest.files:
        (staged / entry.path).parent.mkdir(parents=True, exist_ok=True)
        (staged / entry.path).touch()
        wanted += [each for each in chunks_of(entry) if not _has(staged, *each)]
    done = manifest.size_bytes - sum(_size(*each) for each in wanted)
    told_at = float("-inf")
    for entry, index, data in fetch(bucket, base, wanted):
        with (staged / entry.path).open("r+b") as file:
            file.seek(index * CHUNK_BYTES)
            file.write(data)
        done += len(data)
        if time.monotonic() - told_at >= REPORT_S:
            told_at = time.monotonic()
            progress(done)
    for entry in manifest.files:
        os.truncate(staged / entry.path, entry.size)
        (staged / entry.path).chmod(0o755 if entry.executable else 0o644)
        fsync_file(staged / entry.path)


def _has(staged: Path, entry: FileEntry, index: int) -> bool:
    with (staged / entry.path).open("rb") as file:
        file.seek(index * CHUNK_BYTES)
        data = file.read(_size(entry, index))
    return hashlib.sha256(data).hexdigest() == entry.chunks[index]


def _size(entry: FileEntry, index: int) -> int:
    return min(CHUNK_BYTES, entry.size - index * CHUNK_BYTES)
