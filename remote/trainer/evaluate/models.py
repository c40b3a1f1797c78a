"""The models of an evaluation: the baseline, and the checkpoint that came of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from remote.trainer.evaluate.settings import Evaluation
from remote.trainer.problems import TrainError
from remote.trainer.ranks import device

BASELINE, CHECKPOINT = "baseline", "checkpoint"


def subjects(settings: Evaluation) -> Iterator[tuple[str, Any]]:
    """Each model to be evaluated with its name; it may be used until the next is asked for.

    Raises TrainError when one cannot be loaded. Of an adapter the base is loaded once.
    """
    folder = settings.checkpoint
    if folder is None or (settings.baseline is True and not _is_adapter(folder)):
        yield BASELINE, _loaded(settings.model, settings)
    if folder is None:
        return
    if not _is_adapter(folder):
        yield CHECKPOINT, _loaded(str(folder), settings)
        return
    lm = _adapted(_loaded(settings.model, settings), folder)
    if settings.baseline is True:
        with lm.disable_adapter():
            yield BASELINE, lm
    yield CHECKPOINT, lm


def tokenizer_of(settings: Evaluation) -> str:
    """Where the tokenizer is: with the checkpoint, when that brings one."""
    folder = settings.checkpoint
    if folder is not None and (folder / "tokenizer_config.json").is_file():
        return str(folder)
    return settings.model


@contextmanager
def generating(lm: Any) -> Iterator[None]:
    """With the cache of keys and values, which training has no use for."""
    before, lm.config.use_cache = lm.config.use_cache, True
    try:
        with torch.inference_mode():
            yield
    finally:
        lm.config.use_cache = before


def _is_adapter(folder: Path) -> bool:
    return (folder / "adapter_config.json").is_file()


def _loaded(name: str, settings: Evaluation) -> Any:
    dtype = torch.bfloat16 if settings.bf16 else torch.float32
    try:
        lm = AutoModelForCausalLM.from_pretrained(name, dtype=dtype)
    except (OSError, ValueError, ImportError) as error:
        raise TrainError([f"model: {name}: cannot be loaded: {_first_line(error)}"]) from error
    return lm.to(device()).eval()


def _adapted(lm: Any, folder: Path) -> Any:
    try:
        return PeftModel.from_pretrained(lm, str(folder)).to(device()).eval()
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise TrainError(
            [f"checkpoint: {folder}: does not fit the model: {_first_line(error)}"]
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
