"""The student's own answers, sampled by numbers that are drawn beforehand.

What is drawn depends on seed, step and row alone: neither on a state that a resume would have to
restore, nor on which rank draws, nor on how answers are batched.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from remote.trainer.data.rows import Encoded
from remote.trainer.habits import without_habits
from remote.trainer.methods.gad.roles import Role
from remote.trainer.policy import Policy
from remote.trainer.ranks import device

Ids = npt.NDArray[np.int32]
Draws = npt.NDArray[np.float64]
# Probabilities as whole numbers: their running sum is exact, so a GPU gives the same each time.
SCALE = 2.0**40


@dataclass(frozen=True)
class Sampling:
    """`ends`: tokens that end an answer. `together`: answers generated at once. `synced`: the
    ranks shard the model, so all of them generate as long as one does."""

    temperature: float
    max_new_tokens: int
    ends: frozenset[int]
    pad: int
    together: int
    synced: bool


class Rollouts:
    """Samples from a policy as it is now."""

    def __init__(self, role: Role, policy: Policy, sampling: Sampling) -> None:
        self._role, self._policy, self._sampling = role, policy, sampling

    def answers(self, prompts: Sequence[Ids], draws: Draws) -> list[Encoded]:
        """An answer to each prompt, with the prompt; `draws` has a row of numbers for each.

        An answer has at least one token; one without an end was cut.
        """
        self._role.on(training=False)
        size = self._sampling.together
        found: list[Encoded] = []
        with torch.no_grad(), without_habits(self._lm), self._policy.precision():
            for first in range(0, len(prompts), size):
                some = prompts[first : first + size]
                found.extend(self._generate(some, draws[first : first + size]))
        return found

    def cut(self, answer: Encoded) -> bool:
        """Whether an answer stopped at the limit and not by itself."""
        return int(answer.ids[-1]) not in self._sampling.ends

    @property
    def _lm(self) -> Any:
        lm = self._policy.lm
        return lm.get_base_model() if hasattr(lm, "get_base_model") else lm

    def _generate(self, prompts: Sequence[Ids], draws: Draws) -> Iterator[Encoded]:
        sampling = self._sampling
        width = max(len(prompt) for prompt in prompts)
        ids, mask = _left_padded(prompts, width, sampling.pad)
        choose = Choose(torch.from_numpy(draws), sampling.temperature)
        out = self._lm.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=False,
            max_new_tokens=sampling.max_new_tokens,
            eos_token_id=sorted(sampling.ends),
            pad_token_id=sampling.pad,
            logits_processor=LogitsProcessorList([choose]),
            synced_gpus=sampling.synced,
            use_cache=True,
        )
        for prompt, answer in zip(prompts, out[:, width:].cpu().numpy(), strict=True):
            yield joined(prompt, until_end(answer, sampling.ends))


class Choose(LogitsProcessor):
    """Leaves one token a sequence: the one at the drawn place of the distribution."""

    def __init__(self, draws: Tensor, temperature: float) -> None:
        self._draws, self._temperature = draws, temperature
        self._at = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        picked = choose(scores, self._draws[:, self._at], self._temperature)
        self._at += 1
        return torch.full_like(scores, -torch.inf).scatter_(1, picked[:, None], 0.0)


def choose(scores: Tensor, draws: Tensor, temperature: float) -> Tensor:
    """The token at place `draws[i]`, from 0 to 1, of the distribution of `scores[i]`.

    A token of less than 2^-40 is never chosen.
    """
    chances = torch.softmax(scores.float() / temperature, dim=-1)
    edges = (chances.double() * SCALE).long().cumsum(-1)
    total = edges[:, -1]
    places = (draws.to(scores.device) * total).long().clamp(max=total - 1)
    picked = torch.searchsorted(edges, places[:, None], right=True).squeeze(1)
    return picked.clamp(max=scores.shape[1] - 1)  # where scores are NaN; the loss will be, too


def draw(key: Sequence[int], count: int, length: int) -> Draws:
    """`count` rows of `length` numbers from 0 to 1; the same for the same key."""
    return np.random.Generator(np.random.PCG64(list(key))).random((count, length))


def joined(prompt: Ids, answer: Ids) -> Encoded:
    """A prompt and its answer, of which the answer is learned."""
    learned = np.zeros(len(prompt) + len(answer), dtype=bool)
    learned[len(prompt) :] = True
    return Encoded(np.concatenate([prompt, answer]).astype(np.int32), learned)


def trimmed(row: Encoded) -> Encoded:
    """Without what a template puts behind the last answer: the student's answers end with their
    end token, and nothing but the answer shall tell them from the teacher's."""
    end = int(np.flatnonzero(row.learned)[-1]) + 1
    return Encoded(row.ids[:end], row.learned[:end])


def prompt_of(row: Encoded) -> Ids:
    return row.ids[: int(row.learned.argmax())]


def answer_of(row: Encoded) -> Ids:
    return row.ids[int(row.learned.argmax()) :]


def until_end(answer: npt.NDArray[Any], ends: Iterable[int]) -> Ids:
    """An answer up to and with its first end token; what follows is padding."""
    found = np.flatnonzero(np.isin(answer, list(ends)))
    return answer[: int(found[0]) + 1 if len(found) else len(answer)].astype(np.int32)


def _left_padded(prompts: Sequence[Ids], width: int, pad: int) -> tuple[Tensor, Tensor]:
    ids = np.full((len(prompts), width), pad, dtype=np.int64)
    mask = np.zeros_like(ids)
    for at, prompt in enumerate(prompts):
        ids[at, width - len(prompt) :] = prompt
        mask[at, width - len(prompt) :] = 1
    return torch.from_numpy(ids).to(device()), torch.from_numpy(mask).to(device())
