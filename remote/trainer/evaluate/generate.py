"""What a model says, for many prompts at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from remote.trainer.evaluate.models import generating
from remote.trainer.evaluate.settings import Sampling
from remote.trainer.habits import without_habits


def generate(
    lm: Any,
    prompts: Sequence[Sequence[int]],
    *,
    sampling: Sampling,
    stops: Sequence[int],
    pad: int,
    batch_size: int,
    seed: int,
) -> list[list[int]]:
    """The tokens that follow each prompt, up to and without the first of `stops`.

    Prompts of about the same length make a batch, padded on the left. The same prompts, seed and
    batch size give the same answers on the same machine.
    """
    order = sorted(range(len(prompts)), key=lambda at: (len(prompts[at]), at))
    said: dict[int, list[int]] = {}
    state = torch.get_rng_state()
    try:
        with generating(lm), without_habits(lm):
            for first in range(0, len(order), batch_size):
                members = order[first : first + batch_size]
                torch.manual_seed(seed + first)
                batch = [prompts[at] for at in members]
                new = _continued(lm, batch, sampling=sampling, stops=stops, pad=pad)
                said.update(zip(members, new, strict=True))
    finally:
        torch.set_rng_state(state)
    return [said[at] for at in range(len(prompts))]


def _continued(
    lm: Any,
    prompts: Sequence[Sequence[int]],
    *,
    sampling: Sampling,
    stops: Sequence[int],
    pad: int,
) -> list[list[int]]:
    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), pad)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    place = next(lm.parameters()).device
    told = lm.generate(
        input_ids=ids.to(place),
        attention_mask=mask.to(place),
        max_new_tokens=sampling.max_new_tokens,
        eos_token_id=list(stops),
        pad_token_id=pad,
        **_drawing(sampling),
    )
    return [_until(row, stops) for row in told[:, width:].tolist()]


def _drawing(sampling: Sampling) -> dict[str, Any]:
    """`top_k` is said since transformers would take 50."""
    if sampling.temperature == 0:
        return {"do_sample": False}
    return {
        "do_sample": True,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": 0,
    }


def _until(tokens: Sequence[int], stops: Sequence[int]) -> list[int]:
    end = next((at for at, token in enumerate(tokens) if token in stops), len(tokens))
    return list(tokens[:end])
