"""Which files `--files` means, over what the trainers really write."""

from __future__ import annotations

import pytest

from orchestrator.core.files import choose_files
from orchestrator.errors import NotFound

TREES: dict[str, tuple[list[str], list[str]]] = {
    "trainer": (
        ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"],
        ["optimizer.pt", "scheduler.pt", "rng_state_0.pth", "rng_state.pth", "scaler.pt",
         "trainer_state.json", "training_args.bin", "gpujob_complete.json"],
    ),
    "sharded weights": (
        ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
         "model.safetensors.index.json"],
        ["optimizer.bin"],
    ),
    "adapter": (["adapter_config.json", "adapter_model.safetensors"], ["optimizer.pt"]),
    "trainer with deepspeed": (
        ["model.safetensors", "config.json"],
        ["latest", "zero_to_fp32.py", "rng_state_1.pth",
         "global_step10/mp_rank_00_model_states.pt",
         "global_step10/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt"],
    ),
    "deepspeed alone": (
        ["mp_rank_00_model_states.pt"],
        ["zero_pp_rank_0_mp_rank_00_optim_states.pt", "latest"],
    ),
    "verl": (
        ["actor/model_world_size_2_rank_0.pt", "actor/huggingface/config.json"],
        ["actor/optim_world_size_2_rank_0.pt", "actor/extra_state_world_size_2_rank_0.pt",
         "data.pt"],
    ),
    "accelerate": (
        ["model.safetensors"],
        ["optimizer.bin", "scheduler.bin", "sampler.bin", "random_states_0.pkl"],
    ),
    "nanochat": (["model_000010.pt", "meta_000010.json"], ["optim_000010_rank0.pt"]),
    "fsdp": (
        ["model.safetensors"],
        ["pytorch_model_fsdp_0/__0_0.distcp", "optimizer_0/__0_0.distcp"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("weights", "state"), TREES.values(), ids=TREES)
def test_weights_leave_out_what_only_a_resume_needs(weights: list[str], state: list[str]) -> None:
    assert sorted(choose_files([*state, *weights], "weights")) == sorted(weights)
    assert choose_files([*weights, *state], "all") == (*weights, *state)


@pytest.mark.parametrize(
    ("pattern", "chosen"),
    [
        ("*.json", ("a.json", "sub/b.json")),
        ("sub/*", ("sub/b.json", "sub/c.pt")),
        ("a.json", ("a.json",)),
        ("?.pt", ("sub/c.pt",)),
    ],
)
def test_a_pattern_means_the_path_or_its_last_part(pattern: str, chosen: tuple[str, ...]) -> None:
    assert choose_files(["a.json", "sub/b.json", "sub/c.pt"], pattern) == chosen


@pytest.mark.parametrize(("paths", "wanted"), [(["optimizer.pt"], "weights"), (["a"], "*.bin")])
def test_nothing_meant_says_what_there_is(paths: list[str], wanted: str) -> None:
    with pytest.raises(NotFound) as caught:
        choose_files(paths, wanted)
    assert paths[0] in (caught.value.hint or "")
