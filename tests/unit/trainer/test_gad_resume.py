"""Both stages in one process: a run that goes on from any checkpoint ends with the same bytes, and
what it cannot begin or go on with is refused by name."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from gad_place import ARGS, FORMS, GAD, after, distill, play, warm
from safetensors.torch import load_file
from trainer_place import Place

from remote.trainer.problems import TrainError

pytestmark = pytest.mark.trainer
TIMES = ("at", "step_s", "data_s", "tokens_per_s", "memory_gb", "mfu", "gad/rollout_s")
LAST = f"checkpoint-{ARGS['max_steps']}"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("stage", ["warmup", "adversarial"])
def test_to_the_byte(trainer_place: Place, form: str, stage: str) -> None:
    gad = after(trainer_place, form, updates=2) if stage == "adversarial" else {}
    straight, broken = f"gad-{stage}-{form}", f"gad-{stage}-{form}-on"
    first = play(trainer_place, straight, gad, **FORMS[form])
    at = random.Random(straight).randrange(1, int(ARGS["max_steps"]))
    name = f"checkpoint-{at}"
    # The box is new, and all that came along is the checkpoint.
    shutil.copytree(trainer_place.folder / straight / name, trainer_place.folder / broken / name)
    again = play(trainer_place, broken, _elsewhere(gad), resume=f"{broken}/{name}", **FORMS[form])
    assert _exact(again) == _exact(first)
    one, other = (trainer_place.folder / out / LAST for out in (straight, broken))
    files = sorted(str(p.relative_to(one)) for p in one.rglob("*") if p.is_file())
    assert {"optimizer.pt", "discriminator.safetensors", "discriminator/optimizer.pt"} <= set(files)
    assert any(file.startswith("reference/") for file in files) == (stage == "adversarial")
    for file in files:
        if file not in ("trainer_state.json", "gpujob_complete.json"):
            assert (one / file).read_bytes() == (other / file).read_bytes(), file


def _elsewhere(gad: dict[str, Any]) -> dict[str, Any]:
    """The warm-up did not come along; the checkpoint has what is needed of it."""
    return {**gad, "warmup_from": "/nowhere"} if "warmup_from" in gad else gad


def _exact(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: r[key] for key in r if key not in TIMES} for r in history]


@pytest.mark.parametrize("form", FORMS)
def test_the_reference_stays_what_it_was(trainer_place: Place, form: str) -> None:
    play(trainer_place, f"gad-ref-{form}", after(trainer_place, form), **FORMS[form])
    weights = "model.safetensors" if form == "full" else "adapter_model.safetensors"
    warmed = trainer_place.folder / warm(trainer_place, form)
    ended = trainer_place.folder / f"gad-ref-{form}" / LAST
    reference = (ended / "reference" / weights).read_bytes()
    assert reference == (warmed / weights).read_bytes()
    assert reference != (ended / weights).read_bytes()


def test_while_the_discriminator_learns_alone_the_policy_does_not(trainer_place: Place) -> None:
    folder = trainer_place.folder / warm(trainer_place, "lora")
    policy = [
        load_file(folder / f"checkpoint-{n}" / "adapter_model.safetensors") for n in (1, 2, 3)
    ]
    critic = [load_file(folder / f"checkpoint-{n}" / "discriminator.safetensors") for n in (1, 2)]
    assert all(policy[0][name].equal(policy[1][name]) for name in policy[0])
    assert not all(policy[1][name].equal(policy[2][name]) for name in policy[1])
    assert not all(critic[0][name].equal(critic[1][name]) for name in critic[0])
    # The head, and both matrices of each adapter: no weight of the base.
    assert all("lora_" in name for name in critic[0] if name != "head.weight")


def test_a_stage_is_not_resumed_as_the_other(trainer_place: Place) -> None:
    name = f"{warm(trainer_place, 'full')}/checkpoint-3"
    with pytest.raises(TrainError, match=r"was trained with stage 'warmup'.*gad.warmup_from"):
        play(trainer_place, "gad-refused", after(trainer_place, "full"), resume=name)


def test_a_resume_without_its_reference(trainer_place: Place, tmp_path: Path) -> None:
    play(trainer_place, "gad-lost", after(trainer_place, "full"), args={"max_steps": 2})
    shutil.copytree(trainer_place.folder / "gad-lost" / "checkpoint-1", tmp_path / "checkpoint-1")
    shutil.rmtree(tmp_path / "checkpoint-1" / "reference")
    with pytest.raises(TrainError, match=r"reference is missing. GAD's reference is the warm-up's"):
        play(
            trainer_place,
            "gad-refused",
            after(trainer_place, "full"),
            resume=str(tmp_path / "checkpoint-1"),
            args={"max_steps": 2},
        )


def _edit(path: Path, **changes: Any) -> None:
    state = json.loads(path.read_text())
    state["gpujob"].update(changes)
    path.write_text(json.dumps(state))


Spoil = Callable[[Path], Any]


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (shutil.rmtree, "gad.warmup_from: {} is not a checkpoint"),
        (lambda f: (f / "trainer_state.json").write_text("{"), "gad.warmup_from: {}/trainer_state"),
        (
            lambda f: _edit(f / "trainer_state.json", method="sft"),
            "gad.warmup_from: {} has method 'sft', and 'gad' is needed",
        ),
        (
            lambda f: _edit(f / "trainer_state.json", stage="adversarial"),
            "gad.warmup_from: {} has stage 'adversarial', and 'warmup' is needed",
        ),
        (
            lambda f: _edit(f / "trainer_state.json", model="another"),
            "gad.warmup_from: {} has model 'another'",
        ),
        (
            lambda f: _edit(f / "trainer_state.json", trains="lora r=4"),
            "gad.warmup_from: {} has trains 'lora r=4', and 'all weights' is needed",
        ),
        (
            lambda f: (f / "discriminator.safetensors").unlink(),
            "gad.warmup_from: {} holds no discriminator.safetensors; it is not whole",
        ),
        (
            lambda f: (f / "discriminator.safetensors").write_bytes(b"torn"),
            "gad.warmup_from: {}/discriminator.safetensors cannot be read",
        ),
    ],
    ids=["none", "torn", "sft", "stage", "model", "adapters", "no-critic", "torn-critic"],
)
def test_what_is_no_warmup(
    trainer_place: Place, tmp_path: Path, spoil: Spoil, problem: str
) -> None:
    folder = tmp_path / "warm"
    shutil.copytree(trainer_place.folder / warm(trainer_place, "full") / LAST, folder)
    spoil(folder)
    with pytest.raises(TrainError) as caught:
        play(
            trainer_place,
            "gad-refused",
            {**after(trainer_place, "full"), "warmup_from": str(folder)},
        )
    assert caught.value.problems[0].startswith(problem.format(folder))


def test_a_discriminator_of_other_adapters(trainer_place: Place, tmp_path: Path) -> None:
    folder = tmp_path / "warm"
    shutil.copytree(trainer_place.folder / warm(trainer_place, "lora") / LAST, folder)
    other = trainer_place.folder / warm(trainer_place, "full") / "discriminator.safetensors"
    shutil.copyfile(other, folder / "discriminator.safetensors")
    gad = {**after(trainer_place, "lora"), "warmup_from": str(folder)}
    with pytest.raises(TrainError, match="is of another model or other adapters"):
        play(trainer_place, "gad-refused", gad, **FORMS["lora"])


def test_answers_that_the_model_has_no_room_for(trainer_place: Place) -> None:
    with pytest.raises(TrainError, match=r"gad.max_new_tokens: the longest prompt has \d+ tokens"):
        play(trainer_place, "gad-refused", {**GAD, "max_new_tokens": 512})
    assert not list((trainer_place.folder / "gad-refused").glob("checkpoint-*"))
    assert distill(trainer_place).exists()
