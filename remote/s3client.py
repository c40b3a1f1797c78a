"""The client of an S3 server and what its errors mean, by name. It needs boto3."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    InvalidRegionError,
    NoCredentialsError,
    ParamValidationError,
    ProfileNotFound,
)
from botocore.exceptions import ConnectionError as NoConnection
from urllib3.exceptions import HTTPError

_WRONG = (ParamValidationError, NoCredentialsError, ProfileNotFound, InvalidRegionError)
_FULL = ("QuotaExceeded", "StorageFull", "XMinioStorageFull", "InsufficientStorage")
_NO_CHECKSUMS = ("NotImplemented", "InvalidArgument", "InvalidRequest", "BadRequest")


class StoreError(Exception):
    """What a server would not do. Says nothing that came from it but its code."""


class Denied(StoreError):
    """It says no and will again: keys, rights, a bucket that is none."""


class Absent(StoreError):
    """There is no such object."""


class Busy(StoreError):
    """It may work later: the server, the way there or its disk."""


class Corrupt(StoreError):
    """It gives other bytes than the manifest says."""


class Closed(StoreError):
    """This side gave up."""


class Unsupported(StoreError):
    """The server does not know the checksum that was sent along."""


@dataclass(frozen=True)
class Keys:
    """A scoped key pair; `token` when they are temporary ones."""

    key_id: str = field(repr=False)
    secret: str = field(repr=False)
    token: str = field(default="", repr=False)


@dataclass(frozen=True)
class Server:
    """Where a bucket is; no address means Amazon's. A request may stand still for `patience_s`;
    after a failure the next one waits `pause_s`, then twice as long, `attempts` in all."""

    endpoint_url: str = ""
    region: str = ""
    patience_s: float = 60.0
    pause_s: float = 0.5
    attempts: int = 10  # RunPod's servers answer 502 often enough to ask for as many


def read_keys(lines: str) -> Keys:
    """From NAME=value lines. Raises Denied when the pair is not whole."""
    pairs = (line.partition("=") for line in lines.splitlines())
    found = {name: value for name, _, value in pairs}
    if not found.get("KEY_ID") or not found.get("SECRET"):
        raise Denied("there are no keys for S3")
    return Keys(found["KEY_ID"], found["SECRET"], found.get("TOKEN", ""))


def connect(server: Server, keys: Keys, streams: int, read_timeout_s: float) -> Any:
    """A client of this server. Raises Denied where the keys would travel in the open."""
    _check_address(server.endpoint_url)
    config = Config(
        connect_timeout=min(20.0, server.patience_s),
        read_timeout=read_timeout_s,
        tcp_keepalive=True,
        retries={"total_max_attempts": server.attempts, "mode": "standard"},
        max_pool_connections=streams + 1,
        # What a server does not know it may refuse: our own digests are checked in any case.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        ignore_configured_endpoint_urls=True,
        s3={"addressing_style": "path" if server.endpoint_url else "auto"},
        user_agent_extra="gpujob",
    )
    session = boto3.session.Session(
        aws_access_key_id=keys.key_id,
        aws_secret_access_key=keys.secret,
        aws_session_token=keys.token or None,
        region_name=server.region or "us-east-1",
    )
    return session.client("s3", endpoint_url=server.endpoint_url or None, config=config)


def explained(error: Exception, server: Server, bucket: str, *, checked: bool = False) -> Exception:
    """The error by its name; one that is no answer and no trouble on the way stays what it is.
    `checked`: a checksum was sent along that the server may not know."""
    if isinstance(error, ClientError):
        return _answered(error, bucket, checked=checked)
    where = server.endpoint_url or "S3"
    if isinstance(error, (NoConnection, HTTPError, OSError)):
        return Busy("%s cannot be reached: %s" % (where, type(error).__name__))
    if isinstance(error, _WRONG):
        return Denied("%s cannot be asked: %s" % (where, type(error).__name__))
    if isinstance(error, BotoCoreError):
        return Busy("%s broke off: %s" % (where, type(error).__name__))
    return error


def _check_address(url: str) -> None:
    """Keys and checkpoints go in the open to nobody but this machine itself."""
    near = re.match(r"http://(127\.0\.0\.1|localhost|\[::1\])(:|/|$)", url)
    if url and not url.startswith("https://") and not near:
        raise Denied("%s is no https:// address" % url)


def _answered(error: ClientError, bucket: str, *, checked: bool) -> StoreError:
    """By status and code; the words of the answer may hold a key."""
    code = str(error.response.get("Error", {}).get("Code", ""))[:60]
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    told = "%d %s" % (status, code) if code != str(status) else code
    if status == 507 or code in _FULL:
        return Busy("the bucket %s is full (%s)" % (bucket, told))
    if code == "NoSuchBucket":
        return Denied("there is no bucket %s" % bucket)
    if status == 404:
        return Absent("there is no such object in %s (%s)" % (bucket, told))
    if status in (401, 403):
        return Denied("the keys are refused for the bucket %s (%s)" % (bucket, told))
    if (status >= 500 and status != 501) or status in (0, 408, 429) or code == "SlowDown":
        return Busy("the server of %s does not do it now (%s)" % (bucket, told))
    if checked and (status == 501 or code in _NO_CHECKSUMS):
        return Unsupported(told)
    if code in ("BadDigest", "XAmzContentChecksumMismatch", "IncompleteBody", "RequestTimeout"):
        return Busy("what was sent to %s arrived damaged (%s)" % (bucket, told))
    return Denied("the server of %s refuses it (%s)" % (bucket, told))
