"""The training run, from top to bottom: data, model, trainer, train, save."""

from __future__ import annotations

import math
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import datasets
import torch
import torch.distributed as dist
from transformers.utils.logging import disable_progress_bar
from trl import SFTTrainer

from remote.trainer import data
from remote.trainer.arguments import arguments
from remote.trainer.callbacks import Completeness, Metrics, Stop
from remote.trainer.marker import Pins
from remote.trainer.model import load_tokenizer, lora_config
from remote.trainer.problems import TrainError
from remote.trainer.settings import Settings
from remote.trainer.setup import start_deepspeed_on_cpu

STOPPED = 128 + 15  # what a shell reports for a process that SIGTERM ended


def run(settings: Settings, *, resume: Path | None) -> int:
    """Train; return the exit code: 0 when the last step was reached, 143 when stopped before.

    Raises TrainError for what the user has to change.
    """
    on_gpu = torch.cuda.is_available()
    if settings.deepspeed is not None and not on_gpu:
        start_deepspeed_on_cpu()
    datasets.disable_caching()
    warnings.simplefilter("ignore", FutureWarning)  # the libraries' notes to each other
    disable_progress_bar()

    args = arguments(settings, _output_dir(settings), on_gpu=on_gpu)
    if resume is not None:
        _check_resume(resume, args.world_size)
    train_data = data.load(settings.train_files)
    eval_data = _evaluation_data(settings)
    tokenizer = load_tokenizer(settings.model, settings.template)
    completeness = Completeness(Pins(_path_from("GPUJOB_PINNED")))
    trainer = SFTTrainer(
        model=settings.model,
        args=args,
        train_dataset=train_data,
        eval_dataset=eval_data,
        processing_class=tokenizer,
        peft_config=lora_config(settings.lora) if settings.lora else None,
        callbacks=[Metrics(_path_from("GPUJOB_METRICS")), completeness, Stop()],
    )
    _settle_adapters(trainer)
    if len(trainer.train_dataset) == 0:
        raise TrainError(["max_seq_length: no example has an assistant's word within it"])
    if trainer.is_world_process_zero():
        print(batch_arithmetic(args, len(train_data), len(trainer.train_dataset)), flush=True)

    trainer.train(resume_from_checkpoint=str(resume) if resume else None)

    reached = trainer.state.global_step >= trainer.state.max_steps
    if reached:
        _save_final(trainer, completeness)
    if trainer.is_world_process_zero():
        print(f"{'finished' if reached else 'stopped'} at step {trainer.state.global_step}")
    sys.stdout.flush()
    if dist.is_initialized():
        dist.destroy_process_group()
    return 0 if reached else STOPPED


def batch_arithmetic(args: Any, examples: int, sequences: int) -> str:
    """The effective batch as a person would work it out on paper."""
    ranks, micro = args.world_size, args.per_device_train_batch_size
    accumulation = args.gradient_accumulation_steps
    batch = ranks * micro * accumulation
    updates = math.ceil(math.ceil(sequences / (ranks * micro)) / accumulation)
    steps = args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * updates)
    how = "packed into" if args.packing else "of which usable"
    return (
        f"batch: {ranks} ranks x {micro} sequences x {accumulation} accumulation"
        f" = {batch} sequences a step (at most {batch * args.max_length:,} tokens)\n"
        f"data: {examples:,} examples, {how} {sequences:,} sequences:"
        f" {updates:,} steps an epoch; {steps:,} steps = {steps / updates:.2f} epochs"
    )


def _settle_adapters(trainer: Any) -> None:
    """PEFT saves these names as a set, in another order each time; equal runs shall be equal."""
    for config in getattr(trainer.model, "peft_config", {}).values():
        if isinstance(config.target_modules, set):
            config.target_modules = sorted(config.target_modules)


def _save_final(trainer: Any, completeness: Completeness) -> None:
    """Weights, tokenizer and state at the root of the output folder, then their marker."""
    folder = Path(trainer.args.output_dir)
    trainer.save_model()
    trainer.save_state()
    completeness.complete(folder, "final", state=trainer.state, subfolders=False)


def _output_dir(settings: Settings) -> Path:
    name = os.environ.get("GPUJOB_CHECKPOINT_DIR") or settings.args.get("output_dir")
    if not name:
        raise TrainError(["args.output_dir: is missing, and GPUJOB_CHECKPOINT_DIR is not set"])
    return Path(name)


def _check_resume(folder: Path, world_size: int) -> None:
    if not (folder / "trainer_state.json").is_file():
        raise TrainError([f"resume: {folder} is not a checkpoint (no trainer_state.json)"])
    ranks = len(list(folder.glob("rng_state*.pth")))
    if ranks and ranks != world_size:
        raise TrainError(
            [
                f"resume: {folder} was saved by {ranks} ranks and this run has {world_size};"
                " another number of ranks is not supported yet"
            ]
        )


def _evaluation_data(settings: Settings) -> Any:
    if settings.evaluation is None:
        return None
    return data.load(settings.evaluation.files, limit=settings.evaluation.max_examples)


def _path_from(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return Path(value) if value else None
