"""The port Store over boto3: a checkpoint's chunks by ranged GETs, many at once, into the same
partial folder and journal that a transfer from a box fills.

boto3 loads with this module and with nothing else here.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from orchestrator.adapters.durable import disk_room
from orchestrator.adapters.partial import Partial
from orchestrator.adapters.whole import Wholes
from orchestrator.core.checks import Check
from orchestrator.errors import IntegrityError, NotFound, Refused, Transient
from orchestrator.ports import Progress, StorePlace
from remote.contract import CHUNK_BYTES, ContractError, FileEntry, Manifest, split_uri
from remote.s3 import (
    Absent,
    Bucket,
    Corrupt,
    Denied,
    Keys,
    Server,
    StoreError,
    chunks_of,
    fetch,
    read_keys,
)

STREAMS = 8
ADVICE = "correct the keys, the bucket or [s3] in config.toml; docs/s3.md has the policy"
SAFE = "Nothing is lost: the checkpoint is in S3."


class S3Store:
    """Connects at first use. One thread works, any may close."""

    def __init__(
        self,
        place: StorePlace,
        keys: Callable[[], Keys],
        *,
        patience_s: float = 60.0,
        pause_s: float = 0.5,
    ) -> None:
        self._place = place
        self._keys = keys
        self._server = Server(place.endpoint_url, place.region, patience_s, pause_s)
        self._bucket: Bucket | None = None

    def manifest(self, base: str) -> Manifest:
        with self._mapped(base):
            return self._opened().manifest(base)

    def found(self, prefix: str) -> list[tuple[str, Manifest]]:
        checkpoints = []
        with self._mapped(prefix):
            for base in self._opened().folders(prefix):
                with suppress(Absent, ContractError):
                    checkpoints.append((base, self._opened().manifest(base)))
        return checkpoints

    def pull(self, base: str, into: Path, manifest: Manifest, progress: Progress) -> None:
        partial = Partial(into, manifest)
        with self._mapped(base), disk_room(into, safe=SAFE):
            held = partial.resume()
            chunks = [each for entry in manifest.files for each in chunks_of(entry)]
            wanted = [each for each in chunks if (each[0].path, each[1]) not in held]
            done = manifest.size_bytes - sum(_size(*each) for each in wanted)
            progress(done)
            with Wholes(partial, held, safe=SAFE) as wholes:
                wholes.begin()
                for entry, index, data in fetch(self._opened(), base, wanted):
                    partial.write(entry, index, data)
                    wholes.grew(entry)
                    done += len(data)
                    progress(done)
                wholes.finish()
            partial.finish()

    def close(self) -> None:
        if self._bucket:
            self._bucket.close()

    def _opened(self) -> Bucket:
        if self._bucket is None:
            self._bucket = Bucket(self._server, self._keys(), self._place.bucket, streams=STREAMS)
        return self._bucket

    @contextmanager
    def _mapped(self, base: str) -> Iterator[None]:
        where = f"s3://{self._place.bucket}/{base}"
        try:
            yield
        except Absent as error:
            raise NotFound(f"{where} holds no whole checkpoint: {error}") from error
        except (Corrupt, ContractError) as error:
            raise IntegrityError(
                f"{where}: {error}. What is published here is unharmed.",
                hint="gpujob checkpoints verify",
            ) from error
        except Denied as error:
            raise Refused(f"{where}: {error}", hint="gpujob doctor checks the keys") from error
        except StoreError as error:
            raise Transient(f"{where}: {error}", hint="try again") from error


def check_place(uri: str, endpoint_url: str, region: str, keys: Keys) -> Iterator[Check]:
    """Write, read and delete an object below `uri`, and say whether the keys can do more."""
    try:
        name, prefix = split_uri(uri)
        bucket = Bucket(
            Server(endpoint_url, region, patience_s=10.0, attempts=3), keys, name, streams=1
        )
        key = f"{prefix}/gpujob-probe-{secrets.token_hex(4)}".lstrip("/")
        data = secrets.token_bytes(64)
        bucket.put(key, data, hashlib.sha256(data).hexdigest())
        if bucket.get(key, len(data)) != data:
            yield Check(uri, "fail", "an object came back with other bytes", "use another server")
            return
    except (StoreError, ContractError) as error:
        yield Check(uri, "fail", str(error), ADVICE)
        return
    yield Check(uri, "ok", f"an object could be written and read, {_deleted(bucket, key)}")
    if prefix and bucket.peek():
        found = f"these keys may list all of {name}"
        yield Check("S3 keys", "warn", found, "a box gets them: docs/s3.md has a narrower policy")


def _deleted(bucket: Bucket, key: str) -> str:
    """A box never needs to delete; keys that may not are the better ones."""
    try:
        bucket.delete(key)
    except StoreError:
        return f"and not deleted, which no box needs: {key} stays there"
    return "and deleted"


def _size(entry: FileEntry, index: int) -> int:
    return min(CHUNK_BYTES, entry.size - index * CHUNK_BYTES)


__all__ = ["Keys", "S3Store", "check_place", "read_keys"]
