"""A tiny model made here: random weights and a tokenizer trained on the caller's own text.

For tests and the demo, which must run without a network. The same arguments give the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar

from remote.trainer.template import DEFAULT_TEMPLATE

BOS, EOS, PAD = "<|begin|>", "<|end|>", "<|pad|>"


def build(
    out: Path,
    texts: Sequence[Path],
    *,
    vocabulary: int = 512,
    hidden: int = 128,
    layers: int = 2,
    heads: int = 4,
    positions: int = 512,
    spread: float = 0.2,
    seed: int = 0,
) -> None:
    """Write a Llama-shaped model and its tokenizer to `out`.

    `spread` is the standard deviation of the weights. The usual 0.02 leaves a head this narrow
    with almost flat logits, and adapters cannot move a head that they do not train.
    """
    tokenizer = _tokenizer(texts, vocabulary)
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=hidden,
            intermediate_size=4 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            max_position_embeddings=positions,
            initializer_range=spread,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    disable_progress_bar()
    out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def _tokenizer(texts: Sequence[Path], vocabulary: int) -> PreTrainedTokenizerFast:
    bytes_pairs = Tokenizer(models.BPE())
    bytes_pairs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_pairs.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    lines = (path.read_text(encoding="utf-8", errors="replace") for path in texts)
    bytes_pairs.train_from_iterator(lines, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bytes_pairs, bos_token=BOS, eos_token=EOS, pad_token=PAD
    )
    tokenizer.chat_template = DEFAULT_TEMPLATE
    return tokenizer
