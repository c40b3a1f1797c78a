"""The classes of errors as data: the strings that name each, its reaction, and what helps.

The strings are those of the programs themselves (reference: trainer notes §3.3, read in their
sources and in real logs).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

Why = Literal["ok", "crash", "oom", "config"]


class Reaction(StrEnum):
    RETRY_IN_PLACE = "retry in place"
    ANOTHER_HOST = "another host"
    NEVER_BLINDLY = "never blindly"
    DONE = "done"


class Kind(StrEnum):
    """What ended it. The values are the words users see."""

    OK = "ok"
    STOPPED = "stopped"
    GPU_OOM = "gpu out of memory"
    HOST_OOM = "host out of memory"
    DISK = "disk full"
    DIVERGENCE = "divergence"
    HARDWARE = "gpu fault"
    IMAGE = "wrong image"
    DATA = "bad data"
    WORLD_SIZE = "other world size"
    CONFIG = "bad configuration"
    AUTH = "no access"
    CHECKPOINT_WRITER = "checkpoint writer"
    NCCL = "nccl"
    PREEMPTION = "preempted"
    KILLED = "killed"
    POST_TRAIN_ERROR = "complete with an error after training"
    NO_OP = "did nothing"
    ENDED_EARLY = "ended before the last step"
    CRASH = "crash"


@dataclass(frozen=True)
class Signature:
    """One class of errors: any of `strings` in a line, or `pattern` in it. `last_words` count only
    once a trainer has ended: one that goes on may say them too."""

    kind: Kind
    reaction: Reaction
    why: Why
    advice: str
    strings: tuple[str, ...] = ()
    last_words: tuple[str, ...] = ()
    pattern: re.Pattern[str] | None = None


_BLINDLY_NEVER = Reaction.NEVER_BLINDLY
# The first row that is found anywhere counts: a rank that waits for a dead one times out in NCCL,
# so what kills a rank stands above NCCL, and a full disk above what fails to be written.
SIGNATURES = (
    Signature(
        Kind.GPU_OOM,
        _BLINDLY_NEVER,
        "oom",
        "take the next rung of the memory ladder (docs/health.md), then restart from a checkpoint",
        (
            "torch.OutOfMemoryError",
            "torch.cuda.OutOfMemoryError",
            "CUDA out of memory",
            "No available memory for the cache blocks",
        ),
    ),
    Signature(
        Kind.HOST_OOM,
        _BLINDLY_NEVER,
        "crash",  # without the kernel's word a SIGKILL is as likely somebody's: the brain may retry
        "fewer data workers, less offloading, or a machine with more RAM",
        ("oom_kill", "Out of memory: Killed process"),
        pattern=re.compile(r"^(?:\S+: line \d+:\s+\d+ )?Killed(?:\s{2}|$)"),
    ),
    Signature(
        Kind.DISK,
        _BLINDLY_NEVER,
        "config",
        "a larger disk; only checkpoints that are held elsewhere may go",
        (
            "No space left on device",
            "PytorchStreamWriter failed writing file",
            "Disk quota exceeded",
        ),
    ),
    Signature(
        Kind.DIVERGENCE,
        _BLINDLY_NEVER,
        "config",
        "go back to the last good checkpoint: a lower learning rate, clipping, a look at the data",
        ("Loss is NaN, training diverged!", "Current loss scale already at minimum"),
    ),
    Signature(
        Kind.DATA,
        _BLINDLY_NEVER,
        "config",
        "look for token ids beyond the vocabulary and labels out of range",
        ("device-side assert triggered", "Parquet files not found", "DataError"),
    ),
    Signature(
        Kind.IMAGE,
        _BLINDLY_NEVER,
        "config",
        "an image whose torch knows this GPU and whose CUDA the driver supports",
        ("no kernel image is available", "CUDA driver version is insufficient"),
    ),
    Signature(
        Kind.HARDWARE,
        Reaction.ANOTHER_HOST,
        "crash",
        "the machine is at fault: resume on another one",
        (
            "an illegal memory access was encountered",
            "uncorrectable ECC error",
            "CUDA error: unspecified launch failure",
            "GPU has fallen off the bus",
        ),
        pattern=re.compile(r"\bXid\b"),
    ),
    Signature(
        Kind.WORLD_SIZE,
        _BLINDLY_NEVER,
        "config",
        "resume with as many ranks as saved it, or convert it to a universal checkpoint",
        ("The checkpoint being loaded used a DP world size of",),
    ),
    Signature(
        Kind.CONFIG,
        _BLINDLY_NEVER,
        "config",
        "correct the settings named in the line",
        (
            "DeepSpeedConfigError",
            "Check batch related parameters",
        ),
        last_words=("SettingsError", "command not found"),
    ),
    Signature(
        Kind.AUTH,
        _BLINDLY_NEVER,
        "config",
        "name the token under secrets, or correct the id; nothing was trained",
        (
            "GatedRepoError",
            "401 Client Error",
            "RepositoryNotFoundError",
            "HFValidationError",
            "api_key not configured",
            "wandb.errors.UsageError",
        ),
        pattern=re.compile(r"^(?:[\w.]+\.)?UsageError\b"),
    ),
    Signature(
        Kind.CHECKPOINT_WRITER,
        Reaction.RETRY_IN_PLACE,
        "crash",
        "DeepSpeed's own writer died: resume from the newest complete checkpoint",
        ("Checkpoint commit timed out after", "Checkpoint process died unexpectedly"),
    ),
    Signature(
        Kind.NCCL,
        Reaction.RETRY_IN_PLACE,
        "crash",
        "once more on this host, then on another; first look for an earlier error of another rank",
        (
            "Watchdog caught collective operation timeout: WorkNCCL(",
            "Exception (either an error or timeout) detected by watchdog at work",
            "NCCL watchdog thread terminated with exception",
            "ncclUnhandledCudaError",
            "ncclSystemError",
            "ncclRemoteError",
            "ncclInternalError",
            "NCCL error",
        ),
        last_words=("Address already in use", "EADDRINUSE"),
    ),
)
