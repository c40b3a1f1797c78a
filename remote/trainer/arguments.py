"""Our settings in TRL's words, with the defaults a watched run needs."""

from __future__ import annotations

import copy
from dataclasses import fields
from pathlib import Path
from typing import Any

from trl import SFTConfig

from remote.trainer.problems import TrainError, did_you_mean
from remote.trainer.settings import Settings

# Arguments that have their own key, because the plan and the agent read it there.
OWN_KEYS = {
    "deepspeed": "deepspeed",
    "max_length": "max_seq_length",
    "packing": "packing",
    "chat_template_path": "template",
}


def arguments(settings: Settings, output_dir: Path, *, on_gpu: bool) -> SFTConfig:
    """The trainer's arguments. Raises TrainError with every argument that is not one."""
    _check_names(settings)
    values = {**_defaults(on_gpu), **_evaluation(settings), **settings.args}
    values.update(
        output_dir=str(output_dir),
        deepspeed=deepspeed_config(settings, on_gpu=on_gpu),
        max_length=settings.max_seq_length,
        packing=settings.packing,
    )
    try:
        return SFTConfig(**values)
    except (TypeError, ValueError) as error:
        raise TrainError([f"args: {error}"]) from error


def deepspeed_config(settings: Settings, *, on_gpu: bool) -> dict[str, Any] | None:
    """A copy of DeepSpeed's configuration that also works on a CPU."""
    if settings.deepspeed is None:
        return None
    config = copy.deepcopy(dict(settings.deepspeed))
    _refuse_background_saves(config)
    config.setdefault("zero_allow_untested_optimizer", True)
    if not on_gpu and "optimizer" in config:
        # DeepSpeed's own Adam would be compiled at first use; torch's needs no compiler.
        config["optimizer"].setdefault("params", {})["torch_adam"] = True
    return config


def _check_names(settings: Settings) -> None:
    known = {item.name for item in fields(SFTConfig) if item.init}
    problems = [
        f"args.{key}: unknown argument{did_you_mean(key, known)}"
        for key in settings.args
        if key not in known
    ]
    problems += [
        f"args.{key}: say it as {own}" for key, own in OWN_KEYS.items() if key in settings.args
    ]
    if problems:
        raise TrainError(problems)


def _defaults(on_gpu: bool) -> dict[str, Any]:
    return {
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # else a NaN loss is reported as 0
        "report_to": "none",
        "disable_tqdm": True,
        "bf16": False,  # TRL's default is True, which an old GPU and many CPUs cannot
        "assistant_only_loss": True,
        "use_cpu": not on_gpu,
        "dataloader_pin_memory": on_gpu,
    }


def _evaluation(settings: Settings) -> dict[str, Any]:
    if settings.evaluation is None or settings.evaluation.every is None:
        return {}
    return {"eval_strategy": "steps", "eval_steps": settings.evaluation.every}


def _refuse_background_saves(config: dict[str, Any]) -> None:
    """The completeness marker says that every file is written; these write after the save."""
    for key in ("nebula", "datastates_ckpt"):
        if key in config:
            raise TrainError([f"deepspeed: {key} writes checkpoints later; not supported yet"])
    if (config.get("checkpoint") or {}).get("writer"):
        raise TrainError(["deepspeed: checkpoint.writer writes later; not supported yet"])
