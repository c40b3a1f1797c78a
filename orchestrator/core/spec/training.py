"""`train`: our own trainer instead of a command of yours."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, JsonValue, Tag

from orchestrator.core.spec.model import (
    WORD_OR_MAPPING,
    Amount,
    Flag,
    Model,
    Text,
    Whole,
    one_or_many,
)


def _switch(value: Any) -> Any:
    """`lora: true` is LoRA with its defaults, `lora: false` is none."""
    if value is True:
        return {}
    return None if value is False else value


class Lora(Model):
    """Low-rank adapters."""

    rank: Whole = 16
    """Rank of the update."""
    alpha: Amount = 32.0
    """Scale: the update is multiplied by alpha / rank."""
    dropout: Annotated[float, Field(strict=True, ge=0, lt=1)] = 0.0
    """Dropout on the adapter's input."""
    target_modules: Annotated[tuple[Text, ...], one_or_many(str), Field(min_length=1)] = (
        "all-linear",
    )
    """Module names that get an adapter."""
    modules_to_save: Annotated[tuple[Text, ...], one_or_many(str)] = ()
    """Module names that are trained whole and saved beside the adapter."""


LoraOrSwitch = Annotated[
    Lora | None, BeforeValidator(_switch, json_schema_input_type=Lora | bool | None)
]


class Evaluate(Model):
    """Evaluation while training."""

    data: Text
    """A parquet or JSONL file in the work folder."""
    every: Whole
    """Steps between two evaluations."""
    max_examples: Whole | None = None
    """Take only the first so many."""


class Train(Model):
    """A training run by gpujob's own DeepSpeed trainer."""

    method: Literal["sft", "dpo", "simpo", "gad"]
    """Supervised fine-tuning, preference tuning, or generative adversarial distillation."""
    model: Text
    """A Hugging Face model id, or a folder in the work folder."""
    template: Text | None = None
    """Chat template; default the tokenizer's own."""
    data: Annotated[tuple[Text, ...], one_or_many(str), Field(min_length=1)]
    """Parquet or JSONL files in the work folder, or hf:// data sets."""
    lora: LoraOrSwitch = None
    """Train adapters: true, or a mapping."""
    qlora: LoraOrSwitch = None
    """Train adapters over a 4-bit model: true, or a mapping."""
    full: Flag = False
    """Train all weights."""
    deepspeed: (
        Annotated[
            Annotated[Text, Tag("word")] | Annotated[dict[str, JsonValue], Tag("mapping")],
            WORD_OR_MAPPING,
        ]
        | None
    ) = None
    """A DeepSpeed JSON file in the work folder, or the mapping itself; default no ZeRO."""
    max_seq_length: Whole | None = None
    """Examples are cut to this many tokens; default the trainer's."""
    packing: Flag = False
    """Put several short examples into one sequence."""
    loss_reduction: Literal["tokens", "sequences"] = "tokens"
    """Mean over the tokens of the global batch, or over its sequences."""
    evaluate: Evaluate | None = None
    """Evaluation while training."""
    args: dict[str, JsonValue] = Field(default={})
    """Any field of transformers' TrainingArguments."""
