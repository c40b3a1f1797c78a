"""A tiny model made here: random weights and a tokenizer trained on the caller's own text.

For tests and the demo, which must run without a network. The same arguments give the same bytes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

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


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m remote.trainer.tiny", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--texts", type=Path, nargs="+", required=True, metavar="FILE")
    for name, default in (("vocabulary", 512), ("hidden", 128), ("layers", 2), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    options = parser.parse_args()
    build(
        options.out,
        options.texts,
        vocabulary=options.vocabulary,
        hidden=options.hidden,
        layers=options.layers,
        seed=options.seed,
    )
    print(f"wrote a {options.layers}-layer model and its tokenizer to {options.out}")


if __name__ == "__main__":
    main()
