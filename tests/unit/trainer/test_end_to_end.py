"""Models whose layers do more than our attention does are padded, and so are right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    DogeConfig,
    Gemma2Config,
    GptOssConfig,
    LlamaConfig,
    MistralConfig,
    NemotronConfig,
    PhimoeConfig,
    Qwen2MoeConfig,
)

from remote.trainer import attention
from remote.trainer.attention import NAME, Segments, segments_attention
from remote.trainer.data.batch import Layout, collate
from remote.trainer.data.rows import Encoded
from remote.trainer.end_to_end import settled
from remote.trainer.model import load_policy
from remote.trainer.policy import Policy
from remote.trainer.problems import TrainError
from remote.trainer.settings import parse

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("ignore::FutureWarning")]
SMALL: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
MODELS: dict[str, tuple[Any, Layout]] = {
    "llama": (LlamaConfig(**SMALL), Layout.FLAT),
    "mistral-window": (MistralConfig(**SMALL, sliding_window=4), Layout.FLAT),
    "gpt-oss": (GptOssConfig(**SMALL, **EXPERTS, head_dim=8, sliding_window=4), Layout.PADDED),
    "gemma2": (Gemma2Config(**SMALL, head_dim=8, sliding_window=4), Layout.PADDED),
    "phimoe": (PhimoeConfig(**SMALL, **EXPERTS, sliding_window=4), Layout.PADDED),
    "qwen2-moe": (
        Qwen2MoeConfig(**SMALL, num_experts=4, num_experts_per_tok=2, sliding_window=4),
        Layout.FLAT,
    ),
    "doge": (DogeConfig(**SMALL), Layout.PADDED),
    "nemotron": (NemotronConfig(**SMALL), Layout.PADDED),
}


@pytest.mark.parametrize(("config", "layout"), MODELS.values(), ids=MODELS)
def test_every_model_is_trained_as_it_is(config: Any, layout: Layout, tmp_path: Path) -> None:
    _write(config, tmp_path)
    record = {"method": "sft", "model": str(tmp_path), "data": "d.jsonl", "full": True}
    policy = load_policy(parse(record), AutoConfig.from_pretrained(tmp_path)).eval()
    assert policy.layout is layout
    eager = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")
    sequences = [_sequence(length) for length in (9, 5, 12)]
    with torch.no_grad():
        ours = policy(collate(sequences, layout=layout))
        theirs = torch.cat([_alone(eager, each) for each in sequences])
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


def _write(config: Any, folder: Path) -> None:
    """Weights so large that what is left out shows; sinks, too."""
    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, weight in lm.named_parameters():
            if weight.dim() > 1 or "sink" in name:
                weight.normal_(0, 0.3)
    lm.save_pretrained(folder)


def _sequence(length: int) -> Encoded:
    ids = torch.randint(3, 60, (length,), generator=torch.Generator().manual_seed(length))
    return Encoded(ids.int().numpy(), (torch.arange(length) > 0).numpy())


def _alone(lm: Any, sequence: Encoded) -> Any:
    ids = torch.from_numpy(sequence.ids).long()
    chances = lm(ids[None], use_cache=False).logits[0].log_softmax(-1)
    return chances[:-1].gather(1, ids[1:, None])[:, 0]


def test_a_model_that_mixes_sequences_is_padded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lm = AutoModelForCausalLM.from_config(LlamaConfig(**SMALL), attn_implementation=NAME)
    for weight in lm.parameters():
        weight.data.mul_(10)  # so that attention shows
    monkeypatch.setattr(attention, "_can_flash", lambda *_: True)
    monkeypatch.setattr(attention, "_flash", _without_bounds)
    policy = settled(Policy(lm, layout=Layout.FLAT))
    assert policy.layout is Layout.PADDED
    assert "attention: sequences are padded" in capsys.readouterr().out


def _without_bounds(query: Any, key: Any, value: Any, *_: Any) -> Any:
    groups = query.shape[1] // key.shape[1]
    key, value = (each.repeat_interleave(groups, dim=1) for each in (key, value))
    out = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    return out.transpose(1, 2)


@pytest.mark.parametrize(
    "name", ["s_aux", "sinks", "softcap", "position_bias", "indices", "block_indices"]
)
def test_what_our_attention_would_leave_out_is_refused(name: str) -> None:
    head = torch.zeros(1, 2, 5, 8)
    segments = Segments(torch.tensor([0, 3, 5], dtype=torch.int32), (3, 2))
    given = {name: torch.ones(2)}
    with pytest.raises(TrainError, match=f"Identity has {name}, so sequences"):
        segments_attention(torch.nn.Identity(), head, head, head, None, segments=segments, **given)


@pytest.mark.parametrize(
    ("query_dim", "value_dim", "suits"),
    [(64, 64, True), (256, 256, True), (512, 512, False), (192, 128, False), (36, 36, False)],
    ids=["usual", "largest", "too-large", "latent", "odd"],
)
def test_heads_that_the_flash_kernels_know(query_dim: int, value_dim: int, suits: bool) -> None:
    assert attention.suits_flash(query_dim, value_dim) is suits
