"""What a step is played with: the prompts of a micro batch, and what is answered to each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from remote.trainer.data.rows import Encoded, Store
from remote.trainer.methods.gad.agreement import agreement
from remote.trainer.methods.gad.rollout import Rollouts, answer_of, draw, prompt_of, trimmed

# What a number is drawn for; the same seed, step and row must not give the same ones.
FOR_TRAINING, FOR_EVALUATION, FOR_SHUFFLING = range(3)


@dataclass(frozen=True)
class Group:
    """One teacher's answer a prompt, and `size` of the student's, prompt by prompt; each is a
    whole conversation of which the answer is learned."""

    rows: tuple[int, ...]
    teachers: tuple[Encoded, ...]
    students: tuple[Encoded, ...]
    cut: int

    @property
    def size(self) -> int:
        return len(self.students) // len(self.teachers)

    @property
    def tokens(self) -> int:
        """Tokens that the student answered with."""
        return sum(len(answer_of(each)) for each in self.students)

    def judged(self) -> list[Encoded]:
        """For each prompt the teacher's answer and then the student's."""
        size = self.size
        return [
            each
            for at, teacher in enumerate(self.teachers)
            for each in (teacher, *self.students[at * size : (at + 1) * size])
        ]

    def sums(self) -> dict[str, Tensor]:
        """What there is to say about the answers, added up."""
        firsts = zip(self.teachers, self.students[:: self.size], strict=True)
        agreed = [agreement(answer_of(one), answer_of(other)) for one, other in firsts]
        values = {
            "prompts": len(self.teachers),
            "answers": len(self.students),
            "answer_tokens": self.tokens,
            "cut": self.cut,
            "distinct": self._distinct(),
            "agreement": sum(agreed),
            "tokens": sum(len(each.ids) for each in self.students),
        }
        return {name: torch.tensor(float(value)) for name, value in values.items()}

    def _distinct(self) -> int:
        """How many of the answers to a prompt differ, added up over prompts."""
        size = self.size
        return sum(
            len({each.ids.tobytes() for each in self.students[at * size : (at + 1) * size]})
            for at in range(len(self.teachers))
        )


@dataclass(frozen=True)
class Stage:
    """Where groups are played: rows, the student, and the numbers it samples by."""

    store: Store
    rollouts: Rollouts
    size: int
    length: int
    seed: int

    def play(self, micros: Sequence[Sequence[int]], number: int) -> list[Group]:
        """The groups of training step `number`, one a micro batch."""
        keys = [[(FOR_TRAINING, number, row) for row in rows] for rows in micros]
        return self._play(micros, keys, self.size)

    def try_out(self, store: Store, rows: Sequence[int]) -> Group:
        """One answer a row of a held-out store, the same numbers at each evaluation."""
        keys = [[(FOR_EVALUATION, 0, row) for row in rows]]
        held_out = Stage(store, self.rollouts, 1, self.length, self.seed)
        return held_out._play([rows], keys, 1)[0]

    def _play(
        self,
        micros: Sequence[Sequence[int]],
        keys: Sequence[Sequence[tuple[int, int, int]]],
        size: int,
    ) -> list[Group]:
        teachers = [tuple(trimmed(self.store.row(row)[0]) for row in rows) for rows in micros]
        prompts = [prompt_of(each) for some in teachers for each in some for _ in range(size)]
        flat = [key for some in keys for key in some]
        draws = np.concatenate([draw((self.seed, *key), size, self.length) for key in flat])
        answers = self.rollouts.answers(prompts, draws)
        groups = []
        for rows, some in zip(micros, teachers, strict=True):
            mine, answers = answers[: len(some) * size], answers[len(some) * size :]
            cut = sum(self.rollouts.cut(each) for each in mine)
            groups.append(Group(tuple(rows), some, tuple(mine), cut))
        return groups
