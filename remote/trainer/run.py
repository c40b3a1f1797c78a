"""A training run, from top to bottom: settle, build, train, save."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from transformers.utils.logging import disable_progress_bar

from remote.trainer import batching, checkpoint, flops
from remote.trainer.build import Parts, build
from remote.trainer.checkpoint import Checkpoints
from remote.trainer.data.dump import first_batch, summary
from remote.trainer.learner import Learner
from remote.trainer.loop import Diverged, Plan, StopSignal, train
from remote.trainer.marker import Pins
from remote.trainer.problems import TrainError
from remote.trainer.ranks import rank, together, world
from remote.trainer.settings import Settings
from remote.trainer.settle import Run, settle
from remote.trainer.setup import start_ranks
from remote.trainer.sinks import Console, JsonLines, Sink, TensorBoard, WeightsAndBiases
from remote.trainer.telemetry import Telemetry

STOPPED = 128 + 15  # what a shell reports for a process that SIGTERM ended


def run(settings: Settings, *, resume: Path | None) -> int:
    """Train; return the exit code: 0 when the last step was reached, 143 when stopped before.

    Raises TrainError for what the user has to change, and Diverged.
    """
    warnings.simplefilter("ignore", FutureWarning)  # the libraries' notes to each other
    start_ranks(settings)
    disable_progress_bar()
    _set_precision(settings)
    try:
        code = _run(settings, resume)
    except (TrainError, Diverged):
        _leave()  # as all ranks do
        raise
    except BaseException:
        if world() > 1:
            _fail_alone()
        _leave()
        raise
    _leave()
    return code


def _leave() -> None:
    sys.stdout.flush()
    if dist.is_initialized():
        dist.destroy_process_group()


def _fail_alone() -> NoReturn:
    """End at once: while others are in a collective, leaving the group waits for them, and they
    for this rank, so that nobody would ever read why."""
    print(f"rank {rank()} failed:\n{traceback.format_exc()}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def _run(settings: Settings, folder: Path | None) -> int:
    this = settle(settings, folder)
    if rank() == 0:
        _introduce(this)
    torch.manual_seed(settings.args.seed)  # adapters begin alike on every rank
    learner, lm = build(_parts(this))
    return _train(this, learner, _telemetry(this, lm))


def _introduce(this: Run) -> None:
    settings, store, order = this.settings, this.store, this.order
    epoch_steps = order.steps_per_epoch
    how = "packed into" if settings.packing else "of which usable"
    print(summary(store.report))
    print(batching.describe(this.batch, settings.max_seq_length))
    print(
        f"steps: {store.report.rows:,} examples, {how} {order.items:,} sequences:"
        f" {epoch_steps:,.2f} steps an epoch; {this.last:,} steps ="
        f" {this.last / epoch_steps:.2f} epochs"
    )
    if this.origin is None:
        print(first_batch(store, list(order.step(0).items[0]), this.tokenizer))
    else:
        was = "" if this.origin.ranks == world() else f" (saved by {this.origin.ranks} ranks)"
        print(f"Resumed from checkpoint: {this.origin.folder}, step {this.origin.step}{was}")
    sys.stdout.flush()


def _parts(this: Run) -> Parts:
    return Parts(
        settings=this.settings,
        config=this.config,
        tokenizer=this.tokenizer,
        store=this.store,
        held_out=this.held_out,
        order=this.order,
        batch=this.batch,
        schedule=this.schedule,
        origin=this.origin,
        last=this.last,
        output=this.output,
    )


def _train(this: Run, learner: Learner, telemetry: Telemetry) -> int:
    args, evaluation = this.settings.args, this.settings.evaluation
    checkpoints = Checkpoints(this.output, Pins(_path_from("GPUJOB_PINNED")), args.save_total_limit)
    checkpoints.begin(this.first)
    _restore_random(this)
    stop = StopSignal()
    stop.listen()
    plan = Plan(
        first=this.first,
        last=this.last,
        save_every=this.save_every,
        evaluate_every=evaluation.every or this.last if evaluation else None,
        held_out=this.held_out,
    )

    def state(step: int) -> dict[str, Any]:
        return _state(this, telemetry, step)

    done = train(
        plan, learner, telemetry=telemetry, checkpoints=checkpoints, stop=stop, state=state
    )
    reached = done >= this.last
    if reached:
        checkpoints.save_final(done, learner, state(done))
    telemetry.close()
    if rank() == 0:
        print(f"{'finished' if reached else 'stopped'} at step {done}")
    return 0 if reached else STOPPED


def _telemetry(this: Run, lm: Any) -> Telemetry:
    origin = this.origin
    peak = flops.peak()
    store = this.store
    length = store.report.tokens / max(1, len(store) * store.parts)
    return Telemetry(
        max_steps=this.last,
        every=this.settings.args.logging_steps,
        sinks=together(lambda: _sinks(this)),
        history=list(origin.history) if origin else [],
        tokens=origin.tokens if origin else 0,
        skipped=origin.skipped if origin else 0,
        flops_per_token=flops.per_token(lm, this.config, length=length) if peak else None,
        peak_flops=peak * world() if peak else None,
    )


def _sinks(this: Run) -> list[Sink]:
    if rank() != 0:
        return []
    args = this.settings.args
    sinks: list[Sink] = [Console(this.last)]
    path = _path_from("GPUJOB_METRICS")
    if path is not None:
        sinks.append(JsonLines(path, this.last))
    if "tensorboard" in args.report_to:
        sinks.append(TensorBoard(this.output / "runs", begins_after=this.first))
    if "wandb" in args.report_to:
        sinks.append(WeightsAndBiases(asdict(this.settings), name=args.run_name, id=_run_id()))
    return sinks


def _run_id() -> str | None:
    """The same in every attempt of a run's phase, so that their curves are one."""
    parts = [os.environ.get(name) for name in ("GPUJOB_RUN_ID", "GPUJOB_PHASE")]
    return "-".join(part for part in parts if part) or None


def _state(this: Run, telemetry: Telemetry, step: int) -> dict[str, Any]:
    """`trainer_state.json`: Hugging Face's keys that others read, and under `gpujob` ours."""
    batch = this.batch
    return {
        "global_step": step,
        "max_steps": this.last,
        "train_batch_size": batch.micro,
        "logging_steps": telemetry.every,
        "log_history": telemetry.history,
        "gpujob": {
            **this.identity,
            "ranks": batch.ranks,
            "batch": batch.micro * batch.accumulation * batch.ranks,
            "tokens": telemetry.tokens,
            "skipped": telemetry.skipped,
            "rate": this.schedule.rate(step),
        },
    }


def _restore_random(this: Run) -> None:
    """The random state of each rank; from another number of ranks there is none to restore."""
    origin = this.origin
    if origin is not None and origin.ranks == world():
        together(lambda: checkpoint.restore_random(origin.folder))
    else:
        checkpoint.seed_rank(this.settings.args.seed, this.first)


def _set_precision(settings: Settings) -> None:
    args = settings.args
    if args.bf16 and torch.cuda.is_available() and not torch.cuda.is_bf16_supported():
        raise TrainError(["args.bf16: this GPU has no bfloat16; say fp16 with deepspeed"])
    torch.backends.cuda.matmul.allow_tf32 = args.tf32 is not False
    torch.backends.cudnn.allow_tf32 = args.tf32 is not False
    if args.full_determinism:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)


def _path_from(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return Path(value) if value else None
