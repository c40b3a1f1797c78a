"""Where a run goes on, and whether what it finds there is its own."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remote.trainer import zero
from remote.trainer.args import Args
from remote.trainer.checkpoint import STATE
from remote.trainer.problems import TrainError
from remote.trainer.settings import Lora, Settings


@dataclass(frozen=True)
class Origin:
    """A checkpoint: after how many steps, by how many ranks, with what data and batch."""

    folder: Path
    step: int
    ranks: int
    batch: int
    about: dict[str, Any]
    history: list[dict[str, Any]]
    tokens: int
    skipped: int


def read(folder: Path) -> Origin:
    """Read a checkpoint's state. Raises TrainError when it is not a whole checkpoint of ours."""
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
    except OSError as error:
        raise TrainError([f"resume: {folder} is not a checkpoint (no {STATE})"]) from error
    except ValueError as error:
        raise TrainError([f"resume: {folder / STATE} is torn: {error}"]) from error
    about = state.get("gpujob") if isinstance(state, dict) else None
    if not isinstance(about, dict):
        raise TrainError([f"resume: {folder} was not written by this trainer; start from step 0"])
    try:
        return _origin(folder, state, about)
    except (KeyError, TypeError, ValueError) as error:
        raise TrainError([f"resume: {folder / STATE} is not whole: {error}"]) from error


def identity(settings: Settings, *, data: str, seed: int, config: Any = None) -> dict[str, Any]:
    """What has to be the same for a run to go on exactly. `config`: the model's, where known."""
    return {
        "method": settings.method,
        "model": settings.model,
        "architecture": _architecture(config) if config is not None else None,
        "trains": _trains(settings.lora),
        "dropout": settings.lora.dropout if settings.lora is not None else None,
        "optimizer": _optimizer(settings.args),
        "deepspeed": _sharding(settings),
        "precision": _precision(settings),
        "loss_reduction": settings.loss_reduction,
        "packing": settings.packing,
        "data": data,
        "seed": seed,
        **({"stage": settings.gad.stage} if settings.method == "gad" else {}),
    }


def check(origin: Origin, ours: dict[str, Any]) -> None:
    """Raises TrainError naming every key in which the checkpoint differs from this run."""
    problems = [
        f"resume: {origin.folder} was trained with {key} {origin.about.get(key)!r}, and this run"
        f" has {value!r}{_REASONS.get(key, '')}"
        for key, value in ours.items()
        if origin.about.get(key) != value
    ]
    if problems:
        raise TrainError(problems)


def _origin(folder: Path, state: dict[str, Any], about: dict[str, Any]) -> Origin:
    return Origin(
        folder=folder,
        step=int(state["global_step"]),
        ranks=int(about["ranks"]),
        batch=int(about["batch"]),
        about=about,
        history=list(state.get("log_history", [])),
        tokens=int(about["tokens"]),
        skipped=int(about["skipped"]),
    )


def _architecture(config: Any) -> str:
    width, layers = config.hidden_size, config.num_hidden_layers
    return f"{config.model_type}, {layers} layers of {width}, {config.vocab_size} tokens"


def _trains(lora: Lora | None) -> str:
    if lora is None:
        return "all weights"
    kind = "qlora" if lora.four_bit else "lora"
    whole = f" and {' '.join(lora.modules_to_save)}" if lora.modules_to_save else ""
    return f"{kind} r={lora.r} alpha={lora.alpha:g} {' '.join(lora.target_modules)}{whole}"


def _optimizer(args: Args) -> str:
    """Its options lie in the checkpoint beside its state, and would come back in silence."""
    betas = f"({args.adam_beta1:g}, {args.adam_beta2:g})"
    decay, eps = args.weight_decay, args.adam_epsilon
    return f"{args.optim} weight_decay={decay:g} betas={betas} eps={eps:g}"


def _sharding(settings: Settings) -> str | None:
    return None if settings.deepspeed is None else f"ZeRO-{zero.stage(settings.deepspeed)}"


def _precision(settings: Settings) -> str:
    args = settings.args
    return "bfloat16" if args.bf16 else "float16" if args.fp16 else "float32"


_REASONS = {
    "data": " (files, template, tokenizer or max_seq_length changed: the order would not be kept)",
    "model": " (a checkpoint of another model)",
    "architecture": " (a checkpoint of another model)",
    "stage": " (begin the adversarial stage with gad.warmup_from, not with a resume)",
    "deepspeed": " (the optimizer is stored otherwise)",
}
