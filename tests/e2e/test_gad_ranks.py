"""GAD on two ranks: what shards its two optimizers changes nothing, and a killed run goes on to the
same bytes, in both stages, with all weights and with adapters."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("deepspeed")

import trainer_kit as kit

pytestmark = [pytest.mark.e2e, pytest.mark.trainer]
STEPS = 4
GAD = {"rollouts": 3, "max_new_tokens": 6, "critic_warmup": 2}
ARGS = {
    "global_batch_size": 4,
    "per_device_train_batch_size": 1,
    "learning_rate": 0.005,
    "max_steps": STEPS,
    "save_steps": 1,
    "weight_decay": 0.1,
}
FULL: dict[str, Any] = {"full": True}
LORA: dict[str, Any] = {"lora": {"r": 4, "alpha": 8, "dropout": 0.1}}
FORMS: dict[str, tuple[dict[str, Any], int | None]] = {
    "full-plain": (FULL, None),
    "full-zero0": (FULL, 0),
    "full-zero2": (FULL, 2),
    "full-zero3": (FULL, 3),
    "lora-plain": (LORA, None),
    "lora-zero0": (LORA, 0),
    "lora-zero2": (LORA, 2),
    "lora-zero3": (LORA, 3),
}
# Each rank draws its own dropout: another number of ranks draws another one.
FORMS_WITHOUT_DROPOUT = {"lora-zero2-even": ({"lora": {"r": 4, "alpha": 8}}, 2)}
# Under `make test` one form with all weights and one with adapters; `make faults` has them all.
QUICK = ("full-zero2", "lora-plain")
EXACT = ("step", "loss", "grad_norm", "learning_rate", "tokens", "gad/d_loss", "gad/reward_mean")


def _forms(*names: str) -> list[Any]:
    return [pytest.param(name, marks=() if name in QUICK else pytest.mark.long) for name in names]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = kit.workshop(tmp_path_factory.mktemp("gad"))
    kit.write_distillation(folder)
    return folder


@pytest.mark.parametrize("form", _forms(*FORMS))
def test_resume_is_exact_in_both_stages(shop: Path, form: str) -> None:
    """The second stage begins with what the first one left, so one test has both."""
    _killed_and_resumed(shop, f"{form}-warm", form, GAD)
    later = {**GAD, "stage": "adversarial", "warmup_from": f"{form}-warm", "kl": 0.05}
    _killed_and_resumed(shop, f"{form}-adv", form, {**later, "critic_warmup": 1, "updates": 2})
    lines = kit.metrics(shop, f"{form}-adv")
    assert lines[0]["gad/kl"] == pytest.approx(0, abs=1e-6)  # the reference is the warm-up's policy
    assert lines[-1]["gad/kl"] > 1e-6


@pytest.mark.parametrize("form", _forms("full-plain", "full-zero2", "full-zero3"))
def test_two_ranks_are_one(shop: Path, form: str) -> None:
    """Rollouts too: they depend on seed, step and row, and on no rank."""
    one = _run(shop, f"one-{form}", "full-plain", GAD, ranks=1)
    two = _run(shop, f"two-{form}", form, GAD, ranks=2)
    for key in ("loss", "gad/d_loss", "gad/reward_mean", "gad/answer_tokens", "grad_norm"):
        assert [line[key] for line in two] == pytest.approx([line[key] for line in one], rel=1e-4)


def _killed_and_resumed(shop: Path, out: str, form: str, gad: dict[str, Any]) -> None:
    straight = _run(shop, out, form, gad)
    at = random.Random(out).randrange(1, STEPS)
    broken = f"{out}-on"
    shutil.copytree(shop / out / f"checkpoint-{at}", shop / broken / f"checkpoint-{at}")
    again = _run(shop, broken, form, gad, resume=f"{broken}/checkpoint-{at}")
    assert [[line[key] for key in EXACT] for line in again] == [
        [line[key] for key in EXACT] for line in straight[at:]
    ]
    one, other = (shop / name / f"checkpoint-{STEPS}" for name in (out, broken))
    paths = [str(entry["path"]) for entry in kit.listed(one)]
    assert "discriminator.safetensors" in paths
    for path in paths:
        if path not in ("trainer_state.json", kit.MARKER):
            assert (one / path).read_bytes() == (other / path).read_bytes(), path


def _run(
    shop: Path,
    out: str,
    form: str,
    gad: dict[str, Any],
    *,
    ranks: int = 2,
    resume: str | None = None,
) -> list[dict[str, Any]]:
    how, stage = {**FORMS, **FORMS_WITHOUT_DROPOUT}[form]
    train = kit.settings(
        shop,
        f"{out}-train",
        stage=stage,
        **{"method": "gad", "data": "distill.jsonl", "gad": gad, "args": dict(ARGS), **how},
    )
    words = ("--resume", resume) if resume else ()
    assert kit.run(shop, train, out, *words, how=ranks) == 0, (shop / f"{out}.log").read_text()
    return kit.metrics(shop, out)


@pytest.mark.long
@pytest.mark.parametrize("form", ["full-plain", "full-zero2", "lora-zero2-even"])
def test_on_another_number_of_ranks(shop: Path, form: str) -> None:
    """Both optimizers change their shards, and the answers stay the same."""
    gad = {**GAD, "critic_warmup": 0}
    straight = _run(shop, f"{form}-two", form, gad)
    again = _run(shop, f"{form}-one", form, gad, ranks=1, resume=f"{form}-two/checkpoint-2")
    for key in ("loss", "gad/d_loss", "gad/reward_mean", "gad/answer_tokens"):
        expected = [line[key] for line in straight[2:]]
        assert [line[key] for line in again] == pytest.approx(expected, abs=1e-4)
