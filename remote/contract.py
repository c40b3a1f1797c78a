"""What both sides of the wire agree on: names, manifests, facts, frames.

Standard library alone, and Python 3.9, because a box may have nothing else.

`docs/formats.md` describes the same things in prose; a change here is a change there.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Dict, Iterable, List, Optional, Tuple

PROTOCOL = 1
MANIFEST = 2
MAGIC = b"GPUJOB/1\n"
CHUNK_BYTES = 16 * 1024 * 1024
MAX_HEADER_BYTES = 64 * 1024 * 1024
MAX_PAYLOAD_BYTES = MAX_HEADER_BYTES
MAX_PARTS = 256  # ranges in one request
MAX_FILES = 200_000
MAX_LINE_BYTES = 1024 * 1024
MARKER = "gpujob_complete.json"

_NAME = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9._=+-]{0,199}\Z")
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\\]")  # a terminal acts on what is no letter
_HEX64 = re.compile(r"^[0-9a-f]{64}\Z")
_EMPTY = hashlib.sha256().hexdigest()


class ContractError(ValueError):
    """The other side said something that this protocol does not allow."""


def check_path(path: str) -> str:
    """Return `path` if it is a relative POSIX path that stays below its root, else raise.

    What comes from the other side is hostile: a name is checked before it becomes a path.
    """
    parts = path.split("/")
    if not path or len(path.encode("utf-8", "surrogateescape")) > 4096:
        raise ContractError("a file name is empty or longer than 4096 bytes")
    if _FORBIDDEN.search(path):
        raise ContractError("a file name holds a forbidden character: %r" % path)
    if any(part in ("", ".", "..") for part in parts):
        raise ContractError("a file name leaves its folder: %r" % path)
    if any(len(part.encode("utf-8", "surrogateescape")) > 255 for part in parts):
        raise ContractError("a part of a file name is longer than 255 bytes")
    return path


def check_name(name: str) -> str:
    """Return `name` if it can name a checkpoint (one path component, no surprises), else raise."""
    if not _NAME.match(name):
        raise ContractError("not a checkpoint name: %r" % name)
    return name


def split_uri(uri: str) -> Tuple[str, str]:
    """Bucket and key of s3://bucket/key; the key may be empty."""
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not bucket:
        raise ContractError("not an address in S3: %r" % uri)
    return bucket, key.strip("/")


def pushed_uri(also: str, run: str, name: str, digest: str) -> str:
    """Where a box pushes a checkpoint to: below `tree/` its files, and `manifest.json` last.

    Other bytes under the same name go elsewhere: nothing that is pushed is overwritten."""
    return "%s/%s/%s.%s" % (also.rstrip("/"), run, check_name(name), digest[:16])


@dataclass(frozen=True)
class FileEntry:
    """One regular file: POSIX path below the root, size in bytes, SHA-256 of the whole and of
    each 16 MiB chunk (an empty file has no chunk), and whether it is executable."""

    path: str
    size: int
    sha256: str
    chunks: Tuple[str, ...]
    executable: bool = False

    def to_json(self) -> Dict[str, Any]:
        record: Dict[str, Any] = {
            "path": self.path,
            "size": self.size,
            "sha256": self.sha256,
            "chunks": list(self.chunks),
        }
        if self.executable:
            record["executable"] = True
        return record

    @staticmethod
    def from_json(record: Dict[str, Any]) -> "FileEntry":
        entry = FileEntry(
            path=check_path(str(record["path"])),
            size=int(record["size"]),
            sha256=str(record["sha256"]),
            chunks=tuple(str(chunk) for chunk in record["chunks"]),
            executable=bool(record.get("executable", False)),
        )
        if entry.size < 0 or len(entry.chunks) != chunk_count(entry.size):
            raise ContractError("size and chunks disagree for %r" % entry.path)
        if not all(_HEX64.match(digest) for digest in (entry.sha256, *entry.chunks)):
            raise ContractError("not a SHA-256 in the entry of %r" % entry.path)
        if len(entry.chunks) < 2 and entry.sha256 != (*entry.chunks, _EMPTY)[0]:
            raise ContractError("the chunks of %r are not the whole of it" % entry.path)
        return entry


@dataclass(frozen=True)
class Manifest:
    """A tree of files by content. `meta` says what it is of (name, generation, step, …)."""

    files: Tuple[FileEntry, ...]
    meta: Dict[str, Any] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        return sum(entry.size for entry in self.files)

    @property
    def digest(self) -> str:
        """SHA-256 over the sorted (path, size, sha256, chunks) lines: equal trees have equal
        digests, and whoever has verified all chunks has verified the tree."""
        total = hashlib.sha256()
        for entry in sorted(self.files, key=lambda entry: entry.path):
            told = (entry.path, entry.size, entry.sha256, " ".join(entry.chunks))
            line = "%s\t%d\t%s\t%s\n" % told
            total.update(line.encode("utf-8", "surrogateescape"))
        return total.hexdigest()

    def to_json(self) -> Dict[str, Any]:
        return {
            "v": MANIFEST,
            "digest": self.digest,
            "meta": self.meta,
            "files": [entry.to_json() for entry in self.files],
        }

    def encode(self) -> bytes:
        return json.dumps(self.to_json(), sort_keys=True).encode() + b"\n"

    @staticmethod
    def from_json(record: Dict[str, Any]) -> "Manifest":
        check_version(record, "manifest", MANIFEST)
        files = record["files"]
        if not isinstance(files, list) or len(files) > MAX_FILES:
            raise ContractError("a manifest must list at most %d files" % MAX_FILES)
        manifest = Manifest(
            files=tuple(FileEntry.from_json(entry) for entry in files),
            meta=dict(record.get("meta", {})),
        )
        if len({entry.path for entry in manifest.files}) != len(manifest.files):
            raise ContractError("a manifest names a file twice")
        if manifest.digest != record["digest"]:
            raise ContractError("a manifest's digest is not that of its files")
        return manifest

    @staticmethod
    def decode(data: bytes) -> "Manifest":
        try:
            return Manifest.from_json(json.loads(data))
        except ContractError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ContractError("not a manifest: %s" % error) from error
        except RecursionError as error:
            raise ContractError("a manifest is nested too deep") from error


@dataclass(frozen=True)
class Fact:
    """One thing that happened on a box, as a line of its `events.jsonl`.

    (instance, boot, seq) is unique: a fact told twice is one fact.
    """

    instance: str
    boot: str
    seq: int
    at: str
    kind: str
    data: Dict[str, Any]

    def encode(self) -> bytes:
        record = {
            "v": PROTOCOL,
            "instance": self.instance,
            "boot": self.boot,
            "seq": self.seq,
            "at": self.at,
            "kind": self.kind,
            "data": self.data,
        }
        return json.dumps(record, sort_keys=True).encode() + b"\n"

    @staticmethod
    def decode(line: bytes) -> "Fact":
        try:
            record = json.loads(line)
            check_version(record, "fact")
            return Fact(
                instance=str(record["instance"]),
                boot=str(record["boot"]),
                seq=check_integer(record["seq"]),
                at=str(record["at"]),
                kind=str(record["kind"]),
                data=dict(record["data"]),
            )
        except ContractError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise ContractError("not a fact: %s" % error) from error


def check_integer(value: Any) -> int:
    """Return `value` if it is a JSON integer that fits 53 bits and is not negative, else raise."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**53:
        raise ContractError("not a number that can be: %r" % (value,))
    return value


def check_version(record: Dict[str, Any], what: str, version: int = PROTOCOL) -> None:
    if record.get("v") != version:
        raise ContractError(
            "this %s has version %r and this program reads version %d"
            % (what, record.get("v"), version)
        )


def chunk_count(size: int) -> int:
    return (size + CHUNK_BYTES - 1) // CHUNK_BYTES


def hash_stream(stream: BinaryIO, path: str, executable: bool = False) -> FileEntry:
    """Read `stream` once and return its entry: whole and chunk digests."""
    whole = hashlib.sha256()
    chunks: List[str] = []
    size = 0
    while True:
        block = stream.read(CHUNK_BYTES)
        if not block:
            break
        whole.update(block)
        size += len(block)
        # So far the first chunk is the whole: most files are hashed once.
        chunks.append((hashlib.sha256(block) if chunks else whole).hexdigest())
        if len(block) < CHUNK_BYTES:
            break
    return FileEntry(path, size, whole.hexdigest(), tuple(chunks), executable)


def write_frame(stream: BinaryIO, header: Dict[str, Any], payload: bytes = b"") -> None:
    """One frame: 4-byte big-endian header length, JSON header, then header["bytes"] bytes."""
    write_header(stream, header, len(payload))
    if payload:
        stream.write(payload)
    stream.flush()


def write_header(stream: BinaryIO, header: Dict[str, Any], size: int) -> None:
    """The beginning of a frame; its payload of `size` bytes is the caller's to write."""
    data = json.dumps(dict(header, v=PROTOCOL, bytes=size)).encode()
    stream.write(len(data).to_bytes(4, "big") + data)


def read_frame(stream: BinaryIO) -> Optional[Tuple[Dict[str, Any], bytes]]:
    """The next frame as (header, payload); None at a clean end; ContractError when cut short."""
    header = read_header(stream)
    return None if header is None else (header, _exactly(stream, header["bytes"]))


def read_header(stream: BinaryIO, limit: int = MAX_HEADER_BYTES) -> Optional[Dict[str, Any]]:
    """As `read_frame`, without the payload: header["bytes"] of it follow in the stream. `limit`
    is the most bytes that the header may have."""
    head = stream.read(4)
    if not head:
        return None
    length = int.from_bytes(_exactly(stream, 4, head), "big")
    if length > limit:
        raise ContractError("a frame header of %d bytes" % length)
    try:
        header = json.loads(_exactly(stream, length))
    except ValueError as error:
        raise ContractError("a frame header is not JSON") from error
    except RecursionError as error:
        raise ContractError("a frame header is nested too deep") from error
    if not isinstance(header, dict):
        raise ContractError("a frame header is not an object")
    check_version(header, "frame")
    size = header.get("bytes")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= MAX_PAYLOAD_BYTES:
        raise ContractError("a frame payload of %r bytes" % (size,))
    return header


def skip_to_magic(stream: BinaryIO, limit: int = MAX_LINE_BYTES) -> None:
    """Read past whatever a login shell printed, up to and with the magic line."""
    seen = b""
    while not seen.endswith(MAGIC):
        byte = stream.read(1)
        if not byte:
            raise ContractError("the box closed the stream before the protocol began")
        seen = (seen + byte)[-len(MAGIC) :]
        limit -= 1
        if limit < 0:
            raise ContractError("no protocol magic within the first bytes of the stream")


def _exactly(stream: BinaryIO, size: int, have: bytes = b"") -> bytes:
    parts = [have] if have else []
    missing = size - len(have)
    while missing > 0:
        part = stream.read(missing)
        if not part:
            raise ContractError("the stream was cut short, %d bytes missing" % missing)
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def shell_words(words: Iterable[str]) -> str:
    """Quote `words` for a POSIX shell (the one way a remote command line is made)."""
    return " ".join("'" + word.replace("'", "'\"'\"'") + "'" for word in words)
