"""What a step does besides learning: its numbers, the control, the evaluation, precision."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from gad_place import FORMS, after, distill, play, warm
from trainer_place import Place

from remote.trainer.losses import bradley_terry
from remote.trainer.methods.gad.learner import judged

pytestmark = pytest.mark.trainer
TEACHER, STUDENT = (1.2, 0.3, -0.5), (0.7, 0.9, -0.5)
NUMBERS = {
    *("d_loss", "d_acc", "teacher_score", "reward_mean", "reward_std", "group_std"),
    *("critic_grad_norm", "critic_learning_rate", "critic_skipped"),
    *("agreement", "answer_tokens", "cut", "distinct", "rollout_s"),
}
OF_THE_POLICY = {"pg_loss", "old_kl", "clip_fraction", "surprise", "kl"}


def test_the_exact_values_of_three_pairs() -> None:
    scores = torch.tensor([TEACHER, STUDENT], dtype=torch.float64).T
    losses = bradley_terry(scores[:, :1], scores[:, 1:])
    found = {name: value.item() / 3 for name, value in judged(scores, losses).items()}
    assert found["d_loss"] == pytest.approx(0.7349040384086458, abs=1e-6)
    assert found["d_acc"] == pytest.approx(1 / 3)  # a tie is not told apart
    assert found["teacher_score"] == pytest.approx(1 / 3)
    assert found["reward_mean"] == pytest.approx(1.1 / 3)


def test_the_spread_within_groups() -> None:
    rewards = [0.5, 0.6, 0.3, 0.7, 0.4, 0.8, 0.5, 0.6]
    scores = torch.tensor([[0.9, *rewards], [0.1, *[2.0] * 8]], dtype=torch.float64)
    found = judged(scores, bradley_terry(scores[:, :1], scores[:, 1:]))
    assert found["group_std"].item() / 16 == pytest.approx(0.16035674514745463 / 2, abs=1e-6)
    assert found["d_acc"].item() == 8
    assert found["teacher_score"].item() / 16 == pytest.approx(0.5)


def test_the_numbers_of_a_step(trainer_place: Place) -> None:
    warmup = trainer_place.history(warm(trainer_place, "full"))
    assert _numbers(warmup[0]) == NUMBERS
    adversarial = play(trainer_place, "gad-numbers", after(trainer_place, "full"))
    assert _numbers(adversarial[0]) == NUMBERS | OF_THE_POLICY
    for record in (*warmup, *adversarial):
        assert 0 < record["gad/distinct"] <= 1
        assert 0 <= record["gad/cut"] <= 1
        assert 1 <= record["gad/answer_tokens"] <= 8
    # One update from answers of the policy itself: nothing can be past the clip.
    assert {r["gad/clip_fraction"] for r in adversarial} == {0.0}
    assert [r["learning_rate"] for r in warmup] == [0.0, 0.0, *[2e-3] * 4]


def _numbers(record: dict[str, float]) -> set[str]:
    return {name.removeprefix("gad/") for name in record if name.startswith("gad/")}


def test_further_updates_meet_the_clip(trainer_place: Place) -> None:
    gad = after(trainer_place, "full", updates=4, clip=0.05)
    found = play(trainer_place, "gad-clip", gad, args={"max_grad_norm": 10.0})
    assert max(record["gad/clip_fraction"] for record in found) > 0
    assert max(abs(record["gad/old_kl"]) for record in found) > 0


def test_without_kl_there_is_no_reference(trainer_place: Place) -> None:
    found = play(trainer_place, "gad-no-kl", after(trainer_place, "full", kl=0))
    assert "gad/kl" not in found[0]
    assert found[0]["loss"] == found[0]["gad/pg_loss"]
    assert not (trainer_place.folder / "gad-no-kl" / "checkpoint-6" / "reference").exists()


def test_the_control_sees_the_same_answers_and_learns_otherwise(trainer_place: Place) -> None:
    gad = after(trainer_place, "full", kl=0)
    true = play(trainer_place, "gad-true", gad, args={"max_steps": 3})
    control = play(
        trainer_place, "gad-control", {**gad, "shuffle_rewards": True}, args={"max_steps": 3}
    )
    same = ("gad/d_loss", "gad/reward_mean", "gad/answer_tokens")
    assert [true[0][key] for key in same] == [control[0][key] for key in same]
    assert true[0]["grad_norm"] != control[0]["grad_norm"]


@pytest.mark.parametrize(
    "args",
    [
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2},
        {"gradient_checkpointing": True},
    ],
    ids=["micro-batches", "checkpointing"],
)
def test_how_a_step_is_computed_changes_nothing(trainer_place: Place, args: Any) -> None:
    """Answers are sampled at other sizes too, and are the same."""
    gad = after(trainer_place, "lora", kl=0.05)
    steps = {"max_steps": 4, "save_strategy": "no"}
    one = play(trainer_place, "gad-one", gad, args=steps, **FORMS["lora"])
    changed = {**gad, "rollout_batch": 5}
    other = play(trainer_place, "gad-other", changed, args={**steps, **args}, **FORMS["lora"])
    for key in ("loss", "grad_norm", "gad/d_loss", "gad/reward_std", "gad/kl", "tokens"):
        expected = [record[key] for record in one]
        assert [record[key] for record in other] == pytest.approx(expected, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_evaluation(trainer_place: Place, form: str) -> None:
    """The same numbers are drawn each time, so nothing learned is nothing changed; and the loss is
    what SFT calls the loss of the same answers."""
    data = str(distill(trainer_place))
    evaluate = {"data": data, "every": 1, "max_examples": 6}
    args = {"max_steps": 2, "learning_rate": 0.0, "per_device_eval_batch_size": 4}
    out = f"gad-evaluated-{form}"
    history = play(trainer_place, out, {}, evaluate=evaluate, args=args, **FORMS[form])
    first, second = (record for record in history if "eval_loss" in record)
    assert {key: first[key] for key in first if key != "step"} == {
        key: second[key] for key in second if key != "step"
    }
    assert 0 <= first["eval_agreement"] <= 1
    assert 0 <= first["eval_d_acc"] <= 1
    assert 1 <= first["eval_answer_tokens"] <= 8
    assert first["eval_loss"] == pytest.approx(_sft_loss(trainer_place, form), rel=1e-5)


def _sft_loss(place: Place, form: str) -> float:
    rows = [json.loads(line) for line in distill(place).read_text().splitlines()]
    answered = place.folder / "answered.jsonl"
    chats = (
        [*row["content"], {"role": "assistant", "content": row["teacher_response"]}] for row in rows
    )
    answered.write_text("".join(json.dumps({"messages": each}) + "\n" for each in chats))
    place.run(
        f"sft-{form}",
        data=str(answered),
        evaluate={"data": str(answered), "every": 1, "max_examples": 6},
        args={"max_steps": 1, "learning_rate": 0.0},
        **FORMS[form],
    )
    return float(next(r["eval_loss"] for r in place.history(f"sft-{form}") if "eval_loss" in r))


def test_bfloat16_learns_and_keeps_float32_scores(trainer_place: Place) -> None:
    found = play(
        trainer_place,
        "gad-bf16",
        after(trainer_place, "lora"),
        args={"bf16": True},
        **FORMS["lora"],
    )
    assert len(found) == 6
    assert found[0]["gad/kl"] == pytest.approx(0, abs=1e-4)
    # Eight bits of mantissa would make most of a group's scores equal.
    assert all(record["gad/group_std"] > 0 for record in found)
