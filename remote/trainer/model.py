"""The tokenizer and the model, with adapters when asked for, ready to be trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from remote.trainer import attention, end_to_end
from remote.trainer.data.batch import Layout
from remote.trainer.policy import Policy
from remote.trainer.problems import TrainError
from remote.trainer.ranks import device
from remote.trainer.settings import Lora, Settings
from remote.trainer.template import DEFAULT_TEMPLATE

_ATTENTIONS = {"full_attention", "sliding_attention"}


def load_tokenizer(name: str, template: Path | None) -> Any:
    """The model's tokenizer; its chat template is `template`, else its own, else the default.

    Raises TrainError when the model has none.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except Exception as error:  # which is all that the tokenizers library raises
        raise TrainError([f"model: {name}: no tokenizer: {_first_line(error)}"]) from error
    if tokenizer.eos_token is None:
        raise TrainError([f"model: {name}: its tokenizer has no end-of-sequence token"])
    if template is not None and template.suffix not in (".yaml", ".yml"):
        tokenizer.chat_template = template.read_text(encoding="utf-8")
    elif tokenizer.chat_template is None:
        tokenizer.chat_template = DEFAULT_TEMPLATE
    return tokenizer


def load_config(name: str, tokenizer: Any) -> Any:
    """The configuration of what is trained. Raises TrainError when there is none, or when the
    tokenizer knows more tokens than the model."""
    try:
        config = _of_text(AutoConfig.from_pretrained(name), name)
    except (OSError, ValueError) as error:
        raise TrainError([f"model: {name}: no such model: {_first_line(error)}"]) from error
    if len(tokenizer) > config.vocab_size:
        raise TrainError(
            [
                f"model: {name}: its tokenizer has {len(tokenizer)} tokens and the model"
                f" {config.vocab_size}; they do not belong together"
            ]
        )
    return config


def load_policy(settings: Settings, config: Any, *, trained: Path | None = None) -> Policy:
    """The model with what is trained, on this rank's device and in its precision.

    `trained`: a checkpoint's folder, whose weights replace the first ones. Raises TrainError.
    """
    layout = layout_of(config, settings)
    half = torch.bfloat16 if settings.args.bf16 else None
    weights = str(trained) if trained and settings.lora is None else settings.model
    lm = _load_lm(weights, settings, layout)
    lm.config.use_cache = False
    if settings.args.use_liger_kernel:
        _use_liger(lm)
    if settings.args.gradient_checkpointing:
        lm.gradient_checkpointing_enable({"use_reentrant": False})
    if settings.lora is not None:
        lm = _adapted(lm, settings.lora, trained)
    policy = Policy(lm, layout=layout, autocast=None if settings.engine_casts else half)
    placed = settings.deepspeed is not None or (settings.lora and settings.lora.four_bit)
    return end_to_end.settled(policy if placed else policy.to(device()))


def layout_of(config: Any, settings: Settings) -> Layout:
    """FLAT where every layer mixes tokens by attention alone, lets us choose which, and could do
    with SDPA: what has sinks or caps its scores cannot."""
    if settings.args.attn_implementation not in (None, attention.NAME):
        return Layout.PADDED
    try:
        cls = AutoModelForCausalLM._model_mapping[type(config)]
    except KeyError as error:
        raise TrainError([f"model: {settings.model}: not a causal language model"]) from error
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    plain = kinds <= _ATTENTIONS and not getattr(config, "attn_logit_softcapping", None)
    ours = cls._supports_attention_backend and cls._supports_sdpa
    state = getattr(cls, "_is_stateful", False)
    return Layout.FLAT if ours and plain and not state else Layout.PADDED


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


def _of_text(config: Any, name: str) -> Any:
    """Of a model of images, too, the text's own, where transformers can load that part alone."""
    text = config.get_text_config()
    if text is config:
        return config
    cls = AutoModelForCausalLM._model_mapping.get(type(config), None)
    if cls is None or cls.config_class is not type(text):
        kind = config.model_type
        raise TrainError([f"model: {name}: is of text and more ({kind}); say one of text alone"])
    return text


def _load_lm(weights: str, settings: Settings, layout: Layout) -> Any:
    # None is transformers' choice: SDPA, or eager for a model that cannot do with SDPA.
    chosen = settings.args.attn_implementation
    name = attention.NAME if layout is Layout.FLAT else chosen
    try:
        return AutoModelForCausalLM.from_pretrained(
            weights,
            dtype=_dtype(settings),
            attn_implementation=name,
            **_quantised(settings.lora),
        )
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        key = "model" if weights == settings.model else "checkpoint"
        raise TrainError([f"{key}: {weights}: cannot be loaded: {_first_line(error)}"]) from error


def _dtype(settings: Settings) -> torch.dtype:
    """Trained weights are kept in float32; frozen ones, and DeepSpeed's, in what they run in."""
    frozen = settings.lora is not None or settings.engine_casts
    if settings.args.bf16 and frozen:
        return torch.bfloat16
    return torch.float16 if settings.args.fp16 and frozen else torch.float32


def _quantised(lora: Lora | None) -> Mapping[str, Any]:
    if lora is None or not lora.four_bit:
        return {}
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return {"quantization_config": config, "device_map": {"": device()}}


def _adapted(lm: Any, lora: Lora, trained: Path | None) -> Any:
    if lora.four_bit:
        lm = prepare_model_for_kbit_training(lm, use_gradient_checkpointing=False)
    try:
        if trained is not None:
            return _settled(PeftModel.from_pretrained(lm, str(trained), is_trainable=True))
        return _settled(get_peft_model(lm, lora_config(lora)))
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        what = "lora" if trained is None else f"checkpoint: {trained}: cannot be loaded"
        raise TrainError([f"{what}: {_first_line(error)}"]) from error


def _settled(lm: Any) -> Any:
    """PEFT saves these names as a set, in another order each time; equal runs shall be equal."""
    for config in lm.peft_config.values():
        if isinstance(config.target_modules, set):
            config.target_modules = sorted(config.target_modules)
    return lm


def _use_liger(lm: Any) -> None:
    try:
        from liger_kernel.transformers import _apply_liger_kernel_to_instance  # optional
    except ImportError as error:
        raise TrainError(["args.use_liger_kernel: liger-kernel is not installed here"]) from error
    # Its fused loss would make logits of all tokens; ours are made where they are learned.
    _apply_liger_kernel_to_instance(lm, cross_entropy=False, fused_linear_cross_entropy=False)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
