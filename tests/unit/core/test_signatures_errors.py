"""Every string of the error table is told apart, and so is every way to end."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.core.endings import FATAL
from orchestrator.core.signatures.errors import Ending, classify, diagnose, seen_in
from orchestrator.core.signatures.faults import SIGNATURES, Kind, Reaction

RETRY, OTHER, NEVER = Reaction.RETRY_IN_PLACE, Reaction.ANOTHER_HOST, Reaction.NEVER_BLINDLY
ROOT = """torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
Root Cause (first observed failure):
[0]:
  time      : 2026-01-02_03:04:05
  rank      : 3 (local_rank: 3)
  exitcode  : {} (pid: 99)
"""
LINES = [
    (Kind.GPU_OOM, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"),
    (Kind.GPU_OOM, "[rank1]: torch.cuda.OutOfMemoryError: CUDA out of memory."),
    (Kind.GPU_OOM, "RuntimeError: CUDA out of memory"),
    (Kind.GPU_OOM, "ValueError: No available memory for the cache blocks."),
    (Kind.HOST_OOM, "run.sh: line 3:  1234 Killed                  python train.py"),
    (Kind.HOST_OOM, "Killed"),
    (Kind.HOST_OOM, "kernel: oom_kill_process+0x10"),
    (Kind.HOST_OOM, "Out of memory: Killed process 77 (python)"),
    (Kind.NCCL, "Watchdog caught collective operation timeout: WorkNCCL(SeqNum=12, ...)"),
    (Kind.NCCL, "Exception (either an error or timeout) detected by watchdog at work: 12"),
    (Kind.NCCL, "[Rank 0] NCCL watchdog thread terminated with exception: x"),
    (Kind.NCCL, "ncclUnhandledCudaError: Call to CUDA function failed."),
    (Kind.NCCL, "ncclSystemError: System call failed"),
    (Kind.NCCL, "ncclRemoteError: a peer has gone"),
    (Kind.NCCL, "ncclInternalError: internal check failed"),
    (Kind.NCCL, "torch.distributed.DistBackendError: NCCL error in: x.cpp:1"),
    (Kind.NCCL, "[c10d] The client socket has failed: Connection refused (TCPStore)"),
    (Kind.NCCL, "RuntimeError: The server socket has failed: errno: 98 - Address already in use"),
    (Kind.NCCL, "EADDRINUSE"),
    (Kind.HARDWARE, "RuntimeError: CUDA error: an illegal memory access was encountered"),
    (Kind.HARDWARE, "CUDA error: uncorrectable ECC error encountered"),
    (Kind.HARDWARE, "NVRM: Xid (PCI:0000:01:00): 79, pid=1, GPU has fallen off the bus."),
    (Kind.HARDWARE, "RuntimeError: CUDA error: unspecified launch failure"),
    (Kind.DATA, "RuntimeError: CUDA error: device-side assert triggered"),
    (Kind.DATA, "FileNotFoundError: Parquet files not found"),
    (Kind.IMAGE, "CUDA error: no kernel image is available for execution on the device"),
    (Kind.IMAGE, "RuntimeError: CUDA driver version is insufficient for CUDA runtime version"),
    (
        Kind.WORLD_SIZE,
        "deepspeed.runtime.zero.utils.ZeRORuntimeException: The checkpoint being loaded used a DP"
        " world size of 4 but the current world size is 2.",
    ),
    (Kind.CONFIG, "deepspeed.runtime.config.DeepSpeedConfigError: x"),
    (Kind.CONFIG, "AssertionError: Check batch related parameters. train_batch_size is not equal"),
    (Kind.CONFIG, "bash: line 1: deepspee: command not found"),
    (Kind.CHECKPOINT_WRITER, "Checkpoint commit timed out after 300 seconds"),
    (Kind.CHECKPOINT_WRITER, "Checkpoint process died unexpectedly"),
    (Kind.DIVERGENCE, "Exception: Current loss scale already at minimum - cannot decrease scale"),
    (Kind.DIVERGENCE, "ValueError: Loss is NaN, training diverged!"),
    (Kind.DISK, "OSError: [Errno 28] No space left on device"),
    (Kind.DISK, "RuntimeError: PytorchStreamWriter failed writing file data/3: file write failed"),
    (Kind.DISK, "OSError: [Errno 122] Disk quota exceeded"),
    (Kind.AUTH, "huggingface_hub.errors.GatedRepoError: 403 Client Error."),
    (Kind.AUTH, "requests.exceptions.HTTPError: 401 Client Error: Unauthorized"),
    (Kind.AUTH, "huggingface_hub.errors.RepositoryNotFoundError: 404"),
    (Kind.AUTH, "huggingface_hub.errors.HFValidationError: Repo id must be in the form"),
    (Kind.AUTH, "wandb.errors.errors.UsageError: api_key not configured (no-tty)"),
    (Kind.AUTH, "UsageError: no login"),
    (Kind.AUTH, "wandb.errors.UsageError: no login"),
    (Kind.CONFIG, "remote.trainer.settings.SettingsError: max_steps"),
    (Kind.DATA, "remote.trainer.data.DataError: no column messages"),
]
REACTIONS = {
    Kind.GPU_OOM: NEVER,
    Kind.HOST_OOM: NEVER,
    Kind.DISK: NEVER,
    Kind.DIVERGENCE: NEVER,
    Kind.DATA: NEVER,
    Kind.IMAGE: NEVER,
    Kind.WORLD_SIZE: NEVER,
    Kind.CONFIG: NEVER,
    Kind.AUTH: NEVER,
    Kind.HARDWARE: OTHER,
    Kind.CHECKPOINT_WRITER: RETRY,
    Kind.NCCL: RETRY,
}


# Of a trainer that goes on they say nothing: a port or a store that is not there yet is tried
# again, a tool is not needed.
OUTLIVED = (
    *("Address already in use", "EADDRINUSE", "Connection refused"),
    *("command not found", "SettingsError"),
)


@pytest.mark.parametrize(
    ("kind", "line"), LINES, ids=[f"{n}-{k}" for n, (k, _) in enumerate(LINES)]
)
def test_every_string_of_the_table(kind: Kind, line: str) -> None:
    found = diagnose(Ending(1, f"Traceback (most recent call last):\n{line}\n"))
    assert (found.kind, found.reaction) == (kind, REACTIONS[kind])
    assert found.line == line[:300]
    assert found.advice
    may_be_outlived = any(word in line for word in OUTLIVED)
    assert seen_in(line) is (None if may_be_outlived else kind)


@pytest.mark.parametrize("signature", SIGNATURES, ids=lambda each: str(each.kind))
def test_every_string_is_tried(signature: Any) -> None:
    tried = [line for kind, line in LINES if kind is signature.kind]
    for text in signature.strings:
        assert any(text in line for line in tried), text


@pytest.mark.parametrize(
    ("kind", "line"), LINES, ids=[f"{n}-{k}" for n, (k, _) in enumerate(LINES)]
)
def test_what_is_never_retried_blindly_is_fatal_to_the_brain(kind: Kind, line: str) -> None:
    """But for a SIGKILL: by its words alone it is anybody's, and may be tried again."""
    why, message = classify(1, line)
    assert (why in FATAL) is (REACTIONS[kind] is NEVER and kind is not Kind.HOST_OOM)
    assert message == line[:300]


@pytest.mark.parametrize(
    "line",
    [
        "wget: Connection refused",
        "They killed the process",
        "Killed it with a great demo",
        "loss is 401, client error rate 0",
        "Xidian university",
        "",
    ],
)
def test_what_only_looks_alike_is_no_class(line: str) -> None:
    assert seen_in(line) is None
    assert diagnose(Ending(1, line)).kind is Kind.CRASH


def test_a_dead_rank_counts_before_those_that_waited_for_it() -> None:
    tail = (
        "[rank0]: Watchdog caught collective operation timeout: WorkNCCL(\n"
        "[rank3]: torch.OutOfMemoryError: CUDA out of memory.\n" + ROOT.format(1)
    )
    found = diagnose(Ending(1, tail))
    assert (found.kind, found.rank) == (Kind.GPU_OOM, 3)


def test_nccl_once_here_then_elsewhere() -> None:
    tail = "ncclSystemError: x"
    assert diagnose(Ending(1, tail)).reaction is RETRY
    assert diagnose(Ending(1, tail, earlier=(Kind.NCCL,))).reaction is OTHER
    assert diagnose(Ending(1, tail, earlier=(Kind.CRASH,))).reaction is RETRY


def test_a_refused_connection_near_the_store_is_nccl() -> None:
    tail = "init\n[W socket.cpp] c10d::TCPStore retrying\nConnection refused\n"
    assert diagnose(Ending(1, tail)).kind is Kind.NCCL


ENDINGS: list[tuple[str, Ending, Kind, Reaction]] = [
    ("asked", Ending(143, asked=True), Kind.STOPPED, Reaction.DONE),
    ("ok", Ending(0, last_step=40, max_steps=40, gained=40), Kind.OK, Reaction.DONE),
    ("final", Ending(0, final=True, gained=3), Kind.OK, Reaction.DONE),
    ("steps unknown", Ending(0, gained=3), Kind.OK, Reaction.DONE),
    ("no step", Ending(0), Kind.NO_OP, NEVER),
    ("boundary", Ending(0, last_step=2204, max_steps=4408), Kind.NO_OP, NEVER),
    ("interrupted", Ending(0, last_step=9, max_steps=40, gained=9), Kind.ENDED_EARLY, RETRY),
    (
        "push failed",
        Ending(1, "HFValidationError: x", last_step=1462, max_steps=1462, final=True),
        Kind.POST_TRAIN_ERROR,
        Reaction.DONE,
    ),
    (
        "weights, too early",
        Ending(1, "HFValidationError: x", last_step=5, max_steps=9, final=True),
        Kind.AUTH,
        NEVER,
    ),
    (
        "last step, no weights",
        Ending(1, "RuntimeError: x", last_step=9, max_steps=9),
        Kind.CRASH,
        RETRY,
    ),
    ("taken", Ending(143, host="gone"), Kind.PREEMPTION, OTHER),
    ("taken, -15", Ending(-15, "fresh line", host="gone"), Kind.PREEMPTION, OTHER),
    ("signal", Ending(143, host="there"), Kind.KILLED, RETRY),
    ("killed", Ending(137), Kind.KILLED, RETRY),
    ("kernel says memory", Ending(137, oom_killed=True), Kind.HOST_OOM, NEVER),
    ("-9 below", Ending(1, ROOT.format(-9), oom_killed=True), Kind.HOST_OOM, NEVER),
    ("-9, unknown", Ending(1, ROOT.format(-9)), Kind.KILLED, RETRY),
    ("memory, no kill", Ending(1, "ValueError: x", oom_killed=True), Kind.CRASH, RETRY),
    ("usage", Ending(2, "error: no such option"), Kind.CONFIG, NEVER),
    ("127", Ending(127), Kind.CONFIG, NEVER),
    ("crash", Ending(1, "ValueError: x"), Kind.CRASH, RETRY),
]


@pytest.mark.parametrize(
    ("ending", "kind", "reaction"), [row[1:] for row in ENDINGS], ids=[row[0] for row in ENDINGS]
)
def test_every_way_to_end(ending: Ending, kind: Kind, reaction: Reaction) -> None:
    found = diagnose(ending)
    assert (found.kind, found.reaction) == (kind, reaction)


@pytest.mark.parametrize(
    ("tail", "words"),
    [
        ("Traceback\nValueError: x\n" + ROOT.format(1), "ValueError: x"),
        ("[rank1]: KeyError: 'y'\nmore\n", "[rank1]: KeyError: 'y'"),
        ("no error at all", "no error at all"),
        ("", "exit code 1"),
    ],
    ids=["below the launcher", "rank", "last line", "nothing"],
)
def test_the_line_that_says_it_best(tail: str, words: str) -> None:
    assert diagnose(Ending(1, tail)).line == words
    assert classify(1, tail) == ("crash", words)
