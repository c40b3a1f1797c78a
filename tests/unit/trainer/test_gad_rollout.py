"""Sampling: from the distribution it says, and a pure function of seed, step and row."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import pytest

pytest.importorskip("torch")

import numpy as np
import torch
from trainer_place import WORDS, Place, chat, write
from transformers import AutoModelForCausalLM

from remote.trainer.build import Parts
from remote.trainer.data.batch import Layout
from remote.trainer.data.rows import Encoded
from remote.trainer.methods.gad.agreement import agreement, common
from remote.trainer.methods.gad.build import ends
from remote.trainer.methods.gad.roles import Role
from remote.trainer.methods.gad.rollout import (
    Rollouts,
    Sampling,
    answer_of,
    choose,
    draw,
    prompt_of,
    trimmed,
    until_end,
)
from remote.trainer.policy import Policy
from remote.trainer.settings import parse
from remote.trainer.settle import settle
from remote.trainer.template import DEFAULT_TEMPLATE

pytestmark = pytest.mark.trainer
TEMPERATURE = 0.8


def _ids(*values: int) -> np.ndarray:
    return np.asarray(values, dtype=np.int32)


def test_choose_follows_the_distribution() -> None:
    """Draws spread evenly meet each token as often as it is likely, to within one draw."""
    scores = torch.tensor([2.0, 0.0, -1.0, 1.0, -torch.inf])
    count = 10_000
    draws = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    picked = choose(scores.expand(count, -1), draws, TEMPERATURE)
    found = torch.bincount(picked, minlength=5) / count
    expected = torch.softmax(scores / TEMPERATURE, -1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1.5 / count)
    assert found[4] == 0


@pytest.mark.parametrize("place", [0.0, 0.5, math.nextafter(1.0, 0.0)], ids=["0", "half", "to-1"])
def test_the_ends_of_the_distribution_are_tokens(place: float) -> None:
    scores = torch.tensor([[-torch.inf, 3.0, 3.0, -torch.inf]])
    draws = torch.tensor([place], dtype=torch.float64)
    assert choose(scores, draws, 1.0).item() == (1 if place < 0.5 else 2)


def test_scores_that_are_not_numbers_give_a_token_and_no_crash() -> None:
    picked = choose(torch.full((1, 4), torch.nan), torch.tensor([0.3]), 1.0)
    assert 0 <= picked.item() < 4


def test_draws_depend_on_their_key_alone() -> None:
    assert np.array_equal(draw((1, 0, 5, 7), 3, 4), draw((1, 0, 5, 7), 3, 4))
    keys = [(1, 0, 5, 7), (2, 0, 5, 7), (1, 1, 5, 7), (1, 0, 6, 7), (1, 0, 5, 8)]
    assert len({draw(key, 1, 4).tobytes() for key in keys}) == len(keys)


def test_what_an_answer_is() -> None:
    assert until_end(_ids(4, 9, 5, 9), {9}).tolist() == [4, 9]
    assert until_end(_ids(4, 5), {9}).tolist() == [4, 5]
    row = Encoded(_ids(1, 2, 3, 4, 5), np.asarray([False, False, True, True, False]))
    assert prompt_of(row).tolist() == [1, 2]
    assert answer_of(trimmed(row)).tolist() == [3, 4]


@pytest.fixture(scope="module")
def policy(trainer_place: Place) -> Policy:
    lm = AutoModelForCausalLM.from_pretrained(trainer_place.folder / "tiny")
    # What a model's own settings would do to a distribution that is not theirs to change.
    lm.generation_config.repetition_penalty = 5.0
    lm.generation_config.max_length = 3
    return Policy(lm, layout=Layout.PADDED)


def _rollouts(policy: Policy, *, together: int = 64) -> Rollouts:
    ends = frozenset([policy.lm.config.eos_token_id])
    sampling = Sampling(TEMPERATURE, 12, ends, pad=0, together=together, synced=False)
    return Rollouts(Role(policy, policy.lm, None), policy, sampling)


PROMPTS = [_ids(1, 40, 41, 42), _ids(1, 50), _ids(1, 60, 61, 62, 63, 64)]


def test_answers_are_those_of_a_loop_without_a_cache(policy: Policy) -> None:
    draws = draw((3,), len(PROMPTS), 12)
    found = _rollouts(policy).answers(PROMPTS, draws)
    for prompt, numbers, answer in zip(PROMPTS, draws, found, strict=True):
        assert prompt_of(answer).tolist() == prompt.tolist()
        assert answer_of(answer).tolist() == _slowly(policy, prompt.tolist(), numbers)
    lengths = {len(answer_of(each)) for each in found}
    assert max(lengths) > 1
    assert policy.lm.generation_config.repetition_penalty == 5.0  # it is theirs again


def _slowly(policy: Policy, ids: list[int], numbers: np.ndarray) -> list[int]:
    begin = len(ids)
    for number in numbers:
        with torch.no_grad():
            logits = policy.lm(torch.tensor([ids])).logits[0, -1].double()
        edges = torch.softmax(logits / TEMPERATURE, -1).cumsum(-1)
        ids = [*ids, int((edges < number).sum())]
        if ids[-1] == policy.lm.config.eos_token_id:
            break
    return ids[begin:]


def test_how_answers_are_batched_changes_none(policy: Policy) -> None:
    draws = draw((4,), len(PROMPTS), 12)
    together = _rollouts(policy).answers(PROMPTS, draws)
    one_by_one = _rollouts(policy, together=1).answers(PROMPTS, draws)
    assert [each.ids.tolist() for each in together] == [each.ids.tolist() for each in one_by_one]


@pytest.mark.parametrize("length", [200, 45], ids=["whole", "cut"])
@pytest.mark.parametrize("own", [None, "pad_token"], ids=["eos", "own"])
def test_an_answer_ends_where_the_template_ends_one(
    trainer_place: Place, policy: Policy, own: str | None, length: int
) -> None:
    """Also where no answer of the data is whole: what they were cut at ends nothing."""
    template = trainer_place.folder / f"{own}.jinja"
    template.write_text(DEFAULT_TEMPLATE.replace("eos_token", own or "eos_token"))
    parts = _parts(trainer_place, template=str(template), max_seq_length=length)
    last = {int(trimmed(parts.store.row(row)[0]).ids[-1]) for row in range(len(parts.store))}
    end = getattr(parts.tokenizer, f"{own or 'eos_token'}_id")
    assert last == {end} if length == 200 else end not in last
    assert ends(parts, policy.lm) == {end, parts.tokenizer.eos_token_id}


def _parts(place: Place, **changes: Any) -> Parts:
    rows = [{"content": chat(n)[:1], "teacher_response": " ".join(WORDS)} for n in range(9)]
    data = write(place.folder / "long.jsonl", rows)
    run = settle(parse(place.mapping("unused", method="gad", data=str(data), **changes)), None)
    return Parts(**{each.name: getattr(run, each.name) for each in fields(Parts)})


@pytest.mark.parametrize(
    ("one", "other", "length", "share"),
    [
        ((1, 2, 3), (1, 2, 3), 3, 1.0),
        ((1, 2, 3), (4, 5), 0, 0.0),
        ((1, 2, 3, 4), (2, 4), 2, 4 / 6),
        ((1, 1, 1), (1,), 1, 0.5),
        ((1, 2, 1, 2), (2, 1, 2, 1), 3, 6 / 8),
    ],
    ids=["same", "nothing", "gaps", "repeats", "shifted"],
)
def test_agreement(one: tuple[int, ...], other: tuple[int, ...], length: int, share: float) -> None:
    assert common(_ids(*one), _ids(*other)) == common(_ids(*other), _ids(*one)) == length
    assert agreement(_ids(*one), _ids(*other)) == pytest.approx(share)


def test_common_equals_the_textbook() -> None:
    dice = np.random.default_rng(0)
    for _ in range(50):
        one, other = (dice.integers(0, 4, dice.integers(1, 9)).astype(np.int32) for _ in "ab")
        table = np.zeros((len(one) + 1, len(other) + 1), dtype=int)
        for i, a in enumerate(one):
            for j, b in enumerate(other):
                longer = max(table[i, j + 1], table[i + 1, j])
                table[i + 1, j + 1] = table[i, j] + 1 if a == b else longer
        assert common(one, other) == table[-1, -1]
