"""Where a checkpoint's bytes are, its state in a word, and which one `best` and `latest` mean."""

from __future__ import annotations

from dataclasses import replace

import pytest
from kit.history import (
    BOX,
    DIGEST,
    TRAINING,
    Told,
    drain,
    drained,
    gone,
    lost,
    mirrored,
    run_of,
    sealed,
)

from orchestrator.core.choose import best_of, choose_checkpoint, metric_of
from orchestrator.core.metrics import Metric
from orchestrator.core.run import Run, Seal
from orchestrator.core.where import can_come, places, state_of
from orchestrator.errors import NotFound

PAUSED: Told = ("mirror.paused", {"reason": "full", "message": "full"})


def acked(step: int) -> Told:
    return "checkpoint.acked", {"instance": BOX, "name": f"checkpoint-{step}", "generation": 1}


def failed(step: int) -> Told:
    data = {"instance": BOX, "name": f"checkpoint-{step}", "generation": 1, "reason": "bad"}
    return "checkpoint.failed", data


def let_go(step: int) -> Told:
    name = f"checkpoint-{step}"
    data = {"instance": BOX, "name": name, "generation": 1, "digest": DIGEST[step], "path": ""}
    return "checkpoint.pruned", data


def here(step: int, **metrics: float) -> tuple[Told, Told, Told]:
    kind, data = mirrored(step)
    return sealed(step), (kind, {**data, "metrics": metrics}), acked(step)


def seal_of(run: Run, step: int) -> Seal:
    return next(seal for seal in run.seals if seal.step == step)


CASES = {
    "on its way": ((sealed(10),), ["box"], "on its way"),
    "paused": ((sealed(10), PAUSED), ["box"], "paused"),
    "here and on the box": (here(10), ["here", "box"], "verified"),
    "here, and the box let it go": ((*here(10), *here(20), *here(30)), ["here"], "verified"),
    "here, its box gone": ((*here(10), lost(), gone()), ["here"], "verified"),
    "lost": ((sealed(10), lost(), gone()), [], "lost with its box"),
    "refused": ((sealed(10), failed(10)), ["box"], "refused"),
    "let go": ((*here(10), *here(20), let_go(10)), [], "let go"),
    "drained without it": ((sealed(10), drain(), drained("checkpoint-10")), ["box"],
                           "lost with its box"),
}  # fmt: skip


@pytest.mark.parametrize(("told", "kinds", "state"), CASES.values(), ids=CASES)
def test_places(told: tuple[Told, ...], kinds: list[str], state: str) -> None:
    run = run_of(*TRAINING, *told)
    seal = seal_of(run, 10)
    assert [place.kind for place in places(run, seal)] == kinds
    assert state_of(run, seal) == state
    assert can_come(run, seal) == ("box" in kinds and not run.drained)


def test_s3_is_a_place_too() -> None:
    run = replace(run_of(*TRAINING, sealed(10), lost(), gone()), pushed={DIGEST[10]: "s3://b/x"})
    seal = seal_of(run, 10)
    assert [(place.kind, place.at) for place in places(run, seal)] == [("s3", "s3://b/x")]
    assert state_of(run, seal) == "in S3"


def test_what_is_asked_for_again_is_no_longer_here() -> None:
    again: Told = ("requested.fetch", {"name": "checkpoint-10", "digest": DIGEST[10]})
    run = run_of(*TRAINING, *here(10), again)
    assert state_of(run, seal_of(run, 10)) == "on its way"


def test_best_goes_by_the_policy_else_by_the_evaluation_else_by_the_loss() -> None:
    run = run_of(*TRAINING, *here(10, loss=1.0, accuracy=0.1), *here(20, loss=2.0, accuracy=0.2))
    assert metric_of(run) == Metric("loss", "min")
    assert choose_checkpoint(run, "best").step == 10
    asked = replace(run, metric=Metric("accuracy", "max"))
    assert choose_checkpoint(asked, "best").step == 20
    evaluated = run_of(*TRAINING, *here(10, loss=1.0, eval_loss=5.0), *here(20, eval_loss=4.0))
    assert choose_checkpoint(evaluated, "best").step == 20


def test_best_is_of_what_can_be_had() -> None:
    run = run_of(*TRAINING, *here(10, loss=1.0), *here(20, loss=2.0), let_go(10))
    best = best_of(run)
    assert best and best.step == 20


def test_no_best_says_what_is_known() -> None:
    run = replace(run_of(*TRAINING, *here(10, loss=1.0)), metric=Metric("eval_bleu", "max"))
    with pytest.raises(NotFound, match="eval_bleu") as caught:
        choose_checkpoint(run, "best")
    assert "known are loss" in (caught.value.hint or "")
    with pytest.raises(NotFound, match="no metric is known"):
        choose_checkpoint(run_of(*TRAINING, sealed(10)), "best")


def test_latest_is_the_newest_that_can_be_had() -> None:
    assert choose_checkpoint(run_of(*TRAINING, *here(10), sealed(20)), "latest").step == 20
    run = run_of(*TRAINING, *here(10), sealed(20), lost(), gone())
    assert choose_checkpoint(run, "latest").step == 10
    nothing = run_of(*TRAINING, sealed(20), lost(), gone())
    assert choose_checkpoint(nothing, "latest").step == 20, "and says that it is lost"
