"""`train`: our own trainer instead of a command of yours.

Types and words for the schema; the defaults are the trainer's, and so is the rest of what it
refuses (`checks.check_train`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, JsonValue, Tag

from orchestrator.core.spec.model import (
    WORD_OR_MAPPING,
    Amount,
    AmountOrZero,
    Flag,
    Model,
    Text,
    Whole,
    WholeOrZero,
    one_or_many,
)
from remote.trainer import settings as trainer
from remote.trainer import settings_gad

Names = Annotated[tuple[Text, ...], one_or_many(str), Field(min_length=1)]


def _switch(value: Any) -> Any:
    """`lora: true` is LoRA with its defaults, `lora: false` is none."""
    if value is True:
        return {}
    return None if value is False else value


class Lora(Model):
    """Low-rank adapters."""

    rank: Whole = trainer.Lora.r
    """Rank of the update."""
    alpha: Amount = trainer.Lora.alpha
    """Scale: the update is multiplied by alpha / rank."""
    dropout: Annotated[float, Field(strict=True, ge=0, lt=1)] = trainer.Lora.dropout
    """Dropout on the adapter's input."""
    target_modules: Names = trainer.Lora.target_modules
    """Module names that get an adapter."""
    modules_to_save: Annotated[tuple[Text, ...], one_or_many(str)] = trainer.Lora.modules_to_save
    """Module names that are trained whole and saved beside the adapter."""


LoraOrSwitch = Annotated[
    Lora | None, BeforeValidator(_switch, json_schema_input_type=Lora | bool | None)
]


class Dpo(Model):
    """What method dpo is told."""

    beta: Amount = trainer.Dpo.beta
    """How close the policy stays to its reference."""
    label_smoothing: Annotated[float, Field(strict=True, ge=0, lt=0.5)] = (
        trainer.Dpo.label_smoothing
    )
    """The share of pairs that are taken to be the wrong way round."""
    norm: Flag = trainer.Dpo.norm
    """Means over tokens instead of sums; beta is then about 5."""


class Simpo(Model):
    """What method simpo is told."""

    beta: Amount = trainer.Simpo.beta
    """Scale of the reward."""
    gamma_beta_ratio: AmountOrZero = trainer.Simpo.gamma_beta_ratio
    """The margin, in units of beta."""


class Gad(Model):
    """What method gad is told."""

    stage: Literal["warmup", "adversarial"] = "warmup"
    """The warm-up comes first, in a run of its own."""
    warmup_from: Text | None = None
    """Adversarial: the warm-up's output folder or one of its checkpoints, in the work folder."""
    rollouts: Whole = settings_gad.Gad.rollouts
    """Answers that the student samples to a prompt."""
    temperature: Amount = settings_gad.Gad.temperature
    """Of sampling."""
    max_new_tokens: Whole = settings_gad.Gad.max_new_tokens
    """The longest answer."""
    rollout_batch: Whole = settings_gad.Gad.rollout_batch
    """Answers that a rank generates at once."""
    critic_warmup: WholeOrZero | None = None
    """First steps, in which only the discriminator learns; default 10, adversarial 0."""
    critic_learning_rate: AmountOrZero | None = None
    """The discriminator's peak; default the policy's."""
    kl: AmountOrZero = settings_gad.Gad.kl
    """Weight of the divergence from the reference; 0: no reference."""
    clip: Amount = settings_gad.Gad.clip
    """How far one update may move the policy."""
    dual_clip: Annotated[float, Field(strict=True, gt=1, allow_inf_nan=False)] = (
        settings_gad.Gad.dual_clip
    )
    """The same where the advantage is negative."""
    updates: Whole = settings_gad.Gad.updates
    """Policy updates from one step's answers."""
    shuffle_rewards: Flag = settings_gad.Gad.shuffle_rewards
    """The control experiment: rewards go to other answers."""


class Evaluate(Model):
    """Evaluation while training."""

    data: Names
    """Parquet or JSONL files, folders or globs in the work folder."""
    every: Whole | None = None
    """Steps between two evaluations; default one, at the end."""
    max_examples: Whole | None = None
    """Take only the first so many."""


class Train(Model):
    """A training run by gpujob's own trainer; docs/trainer.md says what each key does."""

    method: Literal["sft", "dpo", "simpo", "gad"]
    """Supervised fine-tuning, preference tuning, or generative adversarial distillation."""
    model: Text
    """A Hugging Face model id, or a folder in the work folder."""
    template: Text | None = None
    """A chat template in the work folder: Jinja, or YAML of torchllms; default the tokenizer's."""
    data: Names
    """Parquet or JSONL files, folders or globs in the work folder."""
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
    max_seq_length: Whole = trainer.Settings.max_seq_length
    """Examples are cut to this many tokens."""
    packing: Flag = False
    """sft: put several short examples into one sequence."""
    loss_reduction: Literal["tokens", "sequences"] = "tokens"
    """sft: mean over the tokens of the global batch, or over its sequences."""
    dpo: Dpo | None = None
    """What method dpo is told."""
    simpo: Simpo | None = None
    """What method simpo is told."""
    gad: Gad | None = None
    """What method gad is told."""
    evaluate: Evaluate | None = None
    """Evaluation while training."""
    args: dict[str, JsonValue] = Field(default={})
    """Fields of transformers' TrainingArguments, those that docs/trainer.md lists."""

    @property
    def adapters(self) -> Lora | None:
        """What is trained of a frozen model; None when all weights are."""
        return self.lora or self.qlora


def record_of(train: Train) -> dict[str, Any]:
    """The mapping that the trainer reads on the box, every default of this release spelt out."""
    return train.model_dump(mode="json", exclude_none=True)


def refused_with(train: Train, deepspeed: Mapping[str, Any]) -> tuple[str, ...]:
    """What the trainer will refuse once it has read `train.deepspeed`, a file that holds this."""
    return trainer.check({**record_of(train), "deepspeed": deepspeed})
