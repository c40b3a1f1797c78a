"""The forecast of the disks: parameters, bytes, how many at once, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.forecast import (
    GB,
    Forecast,
    Size,
    forecast,
    lora_parameters,
    parameters_of,
    sizes,
)
from orchestrator.core.keep import Keep
from orchestrator.core.metrics import Metric
from orchestrator.errors import BadJobFile
from orchestrator.flows.sizing import check_fit

LLAMA_8B: dict[str, Any] = {
    "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256,
    "tie_word_embeddings": False,
}  # fmt: skip
QWEN_HALF_B = {
    "hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14,
    "num_key_value_heads": 2, "intermediate_size": 4864, "vocab_size": 151936,
    "tie_word_embeddings": True,
}  # fmt: skip
MIXTRAL = {**LLAMA_8B, "vocab_size": 32000, "num_local_experts": 8}
GPT2 = {"n_embd": 768, "n_layer": 12, "n_head": 12, "vocab_size": 50257}


@pytest.mark.parametrize(
    ("config", "billions"),
    [(LLAMA_8B, 8.030), (QWEN_HALF_B, 0.494), (MIXTRAL, 46.70), (GPT2, 0.124)],
    ids=["llama 8B", "qwen 0.5B", "mixtral 8x7B", "gpt2"],
)
def test_parameters_are_those_that_the_models_are_named_after(
    config: dict[str, Any], billions: float
) -> None:
    found = parameters_of(config)
    assert found is not None
    assert found / 1e9 == pytest.approx(billions, rel=0.01)


@pytest.mark.parametrize(
    "config",
    [None, [], {}, {"hidden_size": 10}, {**LLAMA_8B, "vocab_size": "many"},
     {**LLAMA_8B, "hidden_size": -1}, {**LLAMA_8B, "num_hidden_layers": True},
     {**LLAMA_8B, "vocab_size": 10**12}],
    ids=str,
)  # fmt: skip
def test_a_config_that_does_not_say_is_no_forecast(config: Any) -> None:
    assert parameters_of(config) is None


def test_an_adapter_trains_little() -> None:
    every = lora_parameters(LLAMA_8B, 16, ("all-linear",))
    some = lora_parameters(LLAMA_8B, 16, ("q_proj", "v_proj"))
    assert every and every / 1e6 == pytest.approx(41.9, rel=0.01)
    assert some and some / 1e6 == pytest.approx(6.8, rel=0.01)
    assert lora_parameters(LLAMA_8B, 16, ("c_attn",)) is None
    assert lora_parameters({}, 16, ("all-linear",)) is None


def test_sizes_are_those_that_were_seen() -> None:
    """Full 8B: 16 GB of weights and 32 to 96 of optimizer; ZeRO: 14 bytes a parameter."""
    full, final = sizes(8 * 10**9, 8 * 10**9, lora=False, zero=False)
    assert full == Size(48 * GB, 112 * GB)
    assert final.low == 16 * GB
    zero, _ = sizes(8 * 10**9, 8 * 10**9, lora=False, zero=True)
    assert zero.low == 112 * GB
    adapter, small = sizes(8 * 10**9, 42 * 10**6, lora=True, zero=False)
    assert adapter.high < GB
    assert small.high < GB


ONE = Size(10, 20)


@pytest.mark.parametrize(
    ("args", "keep", "expected"),
    [
        ({}, None, (None, None, None)),
        ({"max_steps": 100, "save_steps": 10}, None, (10, 10, 10)),
        ({"max_steps": 105, "save_steps": 10}, None, (11, 11, 11)),
        ({"max_steps": 100, "save_steps": 10, "save_total_limit": 2}, None, (10, 3, 10)),
        ({"max_steps": 10, "save_steps": 10, "save_total_limit": 2}, None, (1, 1, 1)),
        ({"save_total_limit": 2}, None, (None, 3, None)),
        ({"save_strategy": "no"}, None, (0, 0, 0)),
        ({"save_strategy": "epoch", "max_steps": 9, "save_steps": 3}, None, (None, None, None)),
        ({"max_steps": -1, "save_steps": 0.1}, None, (None, None, None)),
        ({"max_steps": 100, "save_steps": 10}, Keep(last=3), (10, 10, 3)),
        ({"max_steps": 100, "save_steps": 10}, Keep(every=50), (10, 10, 2)),
        ({"max_steps": 100, "save_steps": 10}, Keep(best=Metric("m", "max"), best_count=4),
         (10, 10, 4)),
        ({}, Keep(last=3), (None, None, 3)),
    ],
    ids=str,
)  # fmt: skip
def test_how_many(
    args: dict[str, Any], keep: Keep | None, expected: tuple[int | None, ...]
) -> None:
    found = forecast(ONE, Size(1, 2), "said", args, keep, base_bytes=5)
    assert (found.saves, found.on_box, found.here) == expected
    at_once = 1 if found.on_box is None else found.on_box
    assert found.box == Size(10 * at_once + 1 + 5, 20 * at_once + 2 + 5)
    stay = 1 if found.here is None else found.here
    assert found.mirror == Size(10 * stay + 1, 20 * stay + 2)


def needing(box_gb: int, mirror_gb: int) -> Forecast:
    nothing = Size(0, 0)
    box, mirror = Size(box_gb * GB, 2 * box_gb * GB), Size(mirror_gb * GB, 2 * mirror_gb * GB)
    return Forecast(nothing, nothing, box, mirror, 3, 3, 3, "8 billion parameters")


def test_only_what_certainly_does_not_fit_is_refused() -> None:
    check_fit(needing(20, 40), 20, Path("/m"), 40 * GB)
    check_fit(needing(20, 40), 20, Path("/m"), None)


def test_a_refusal_names_the_key_to_change() -> None:
    with pytest.raises(BadJobFile, match=r"at least 21\.0 GB of the box's disk") as caught:
        check_fit(needing(21, 1), 20, Path("/m"), None)
    assert "resources.disk_gb: 42" in (caught.value.hint or "")
    with pytest.raises(BadJobFile, match=r"41\.0 GB in /m .* 40\.0 GB can be used") as caught:
        check_fit(needing(1, 41), 20, Path("/m"), 40 * GB)
    assert "checkpoints.keep" in (caught.value.hint or "")
