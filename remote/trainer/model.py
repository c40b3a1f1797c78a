"""The tokenizer with a template that marks what the assistant said, and the adapters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peft import LoraConfig
from transformers import AutoTokenizer
from trl.chat_template_utils import get_training_chat_template, has_generation_markers

from remote.trainer.problems import TrainError
from remote.trainer.settings import Lora
from remote.trainer.template import DEFAULT_TEMPLATE


def load_tokenizer(name: str, template: Path | None) -> Any:
    """The model's tokenizer; its chat template is `template`, else its own, else the default.

    Raises TrainError when the model has none, or its template cannot say what to learn.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise TrainError([f"model: {name}: no tokenizer: {error}"]) from error
    if tokenizer.eos_token is None:
        raise TrainError([f"model: {name}: its tokenizer has no end-of-sequence token"])
    if template is not None:
        tokenizer.chat_template = template.read_text(encoding="utf-8")
    elif tokenizer.chat_template is None:
        tokenizer.chat_template = DEFAULT_TEMPLATE
    _check_template(tokenizer, str(template or name))
    return tokenizer


def lora_config(lora: Lora) -> LoraConfig:
    """PEFT's words for our settings."""
    targets = lora.target_modules
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules="all-linear" if targets == ("all-linear",) else list(targets),
        modules_to_save=list(lora.modules_to_save) or None,
    )


def _check_template(tokenizer: Any, source: str) -> None:
    """TRL can mark the templates it knows; any other has to bring its own marks."""
    if has_generation_markers(tokenizer.chat_template):
        return
    try:
        get_training_chat_template(tokenizer)
    except ValueError as error:
        raise TrainError(
            [
                f"template: the chat template of {source} does not mark the assistant's words"
                " with {% generation %} … {% endgeneration %}, so there is no telling what to"
                " learn; add the marks and give the file as `template`"
            ]
        ) from error
