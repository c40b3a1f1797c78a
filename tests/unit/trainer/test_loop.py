"""The loop with a learner of its own: what is told, saved and evaluated, and when it ends."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from remote.contract import MARKER
from remote.trainer.checkpoint import Checkpoints
from remote.trainer.data.rows import Store
from remote.trainer.learner import StepResult
from remote.trainer.loop import MAX_SKIPPED, Diverged, Plan, StopSignal, train
from remote.trainer.marker import Pins
from remote.trainer.sinks import JsonLines
from remote.trainer.telemetry import Telemetry

pytestmark = pytest.mark.trainer


class Learning:
    """Halves its loss each step. `at` runs before a step; `spoilt` replaces its result."""

    def __init__(self, at: Mapping[int, Any] | None = None, **spoilt: Any) -> None:
        self._at, self._spoilt = dict(at or {}), spoilt
        self.evaluated: list[int] = []
        self.done = 0

    def step(self, number: int) -> StepResult:
        self._at.get(number, lambda: None)()
        self.done = number + 1
        values: dict[str, Any] = {
            "loss": 2.0**-number,
            "grad_norm": 0.5,
            "skipped": False,
            "learning_rate": 1e-3,
            "tokens": 100,
            "data_s": 0.0,
            "metrics": {"rewards/margins": float(number)},
            **self._spoilt,
        }
        return StepResult(**values)

    def evaluate(self, store: Store) -> dict[str, float]:
        self.evaluated.append(self.done)
        return {"eval_loss": 3.0}

    def save(self, folder: Path, step: int) -> None:
        (folder / "model.safetensors").write_text(str(step))

    def load(self, folder: Path, step: int) -> None:
        raise NotImplementedError

    def save_final(self, folder: Path) -> None:
        (folder / "model.safetensors").write_text("final")


@pytest.fixture(autouse=True)
def own_sigterm() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def _train(folder: Path, learner: Learning, **changes: Any) -> int:
    values: dict[str, Any] = {
        "first": 0,
        "last": 8,
        "save_every": 3,
        "evaluate_every": None,
        "held_out": None,
    }
    plan = Plan(**{**values, **{key: changes.pop(key) for key in values if key in changes}})
    stop = StopSignal()
    stop.listen()
    checkpoints = changes.pop("checkpoints", Checkpoints(folder, Pins(None)))
    checkpoints.begin(plan.first)
    path = folder / "deep" / "metrics.jsonl"
    telemetry = Telemetry(plan.last, changes.pop("every", 1), [JsonLines(path, plan.last)])

    def state(step: int) -> dict[str, Any]:
        return {"global_step": step, "gpujob": {"rate": 0.0}}

    return train(
        plan, learner, telemetry=telemetry, checkpoints=checkpoints, stop=stop, state=state
    )


def _lines(folder: Path) -> list[dict[str, Any]]:
    path = folder / "deep" / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def _saved(folder: Path) -> list[str]:
    return sorted(path.parent.name for path in folder.rglob(MARKER))


def test_a_line_a_step_and_a_checkpoint_where_due(tmp_path: Path) -> None:
    assert _train(tmp_path, Learning()) == 8
    lines = _lines(tmp_path)
    assert [line["step"] for line in lines] == list(range(1, 9))
    first = lines[0]
    assert {"v", "at", "max_steps", "loss", "grad_norm", "learning_rate", "tokens_per_s"} <= set(
        first
    )
    assert (first["v"], first["max_steps"], first["loss"], first["tokens"]) == (1, 8, 1.0, 100)
    assert first["at"].endswith("Z")
    assert lines[-1]["tokens"] == 800
    assert _saved(tmp_path) == ["checkpoint-3", "checkpoint-6", "checkpoint-8"]
    assert not list(tmp_path.glob(".writing-*"))


def test_a_logged_step_is_the_mean_of_those_before(tmp_path: Path) -> None:
    _train(tmp_path, Learning(), every=4, save_every=None)
    lines = _lines(tmp_path)
    assert [line["step"] for line in lines] == [4, 8]
    assert lines[0]["loss"] == (1 + 0.5 + 0.25 + 0.125) / 4
    assert lines[1]["rewards/margins"] == (4 + 5 + 6 + 7) / 4
    assert _saved(tmp_path) == []


def test_evaluates_where_due_and_at_the_end(tmp_path: Path) -> None:
    learner = Learning()
    held_out: Any = object()
    _train(tmp_path, learner, evaluate_every=3, held_out=held_out)
    assert learner.evaluated == [3, 6, 8]
    assert [line["step"] for line in _lines(tmp_path) if "eval_loss" in line] == [3, 6, 8]


def test_sigterm_saves_where_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    learner = Learning({4: lambda: os.kill(os.getpid(), signal.SIGTERM)})
    assert _train(tmp_path, learner) == 5
    assert _saved(tmp_path) == ["checkpoint-3", "checkpoint-5"]
    assert "stop asked: saving at step 5" in capsys.readouterr().out


def test_a_loss_that_is_no_number_ends_the_run_and_is_seen(tmp_path: Path) -> None:
    with pytest.raises(Diverged, match="Loss is NaN, training diverged! The loss of step 1 is nan"):
        _train(tmp_path, Learning(loss=math.nan, grad_norm=math.inf, skipped=True))
    (line,) = _lines(tmp_path)
    assert math.isnan(line["loss"])
    assert math.isinf(line["grad_norm"])
    assert _saved(tmp_path) == []


def test_skipped_steps_are_counted_and_end_it_when_nothing_else_comes(tmp_path: Path) -> None:
    with pytest.raises(Diverged, match="nothing has been learned since step 0"):
        _train(tmp_path, Learning(skipped=True), last=200, save_every=None)
    assert [line["skipped"] for line in _lines(tmp_path)] == list(range(1, MAX_SKIPPED + 1))


def test_a_torn_line_is_ended_first(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "metrics.jsonl").write_text('{"v": 1, "st')
    _train(tmp_path, Learning(), last=1)
    torn, whole = (tmp_path / "deep" / "metrics.jsonl").read_text().splitlines()
    assert torn == '{"v": 1, "st'
    assert json.loads(whole)["loss"] == 1.0


def test_keeps_the_newest_by_number(tmp_path: Path) -> None:
    _train(tmp_path, Learning(), last=12, save_every=1, checkpoints=Checkpoints(
        tmp_path, Pins(None), keep=2))  # fmt: skip
    assert _saved(tmp_path) == ["checkpoint-11", "checkpoint-12"]


def test_what_is_written_again_is_unmarked_first_and_new(tmp_path: Path) -> None:
    _train(tmp_path, Learning())
    old = (tmp_path / "checkpoint-6" / "model.safetensors").stat().st_ino
    pinned = tmp_path / "pinned"
    os.link(tmp_path / "checkpoint-6" / "model.safetensors", pinned)
    (tmp_path / ".writing-checkpoint-9").mkdir()
    _train(tmp_path, Learning({3: lambda: _check_unmarked(tmp_path)}), first=3)
    assert (tmp_path / "checkpoint-6" / "model.safetensors").stat().st_ino != old
    assert pinned.read_text() == "6"
    assert not list(tmp_path.glob(".writing-*"))


def _check_unmarked(folder: Path) -> None:
    assert _saved(folder) == ["checkpoint-3"]


def test_a_missing_pin_is_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    moments = iter(range(0, 10_000, 50))
    pins = Pins(tmp_path / "pinned", clock=lambda: next(moments), sleep=lambda _: None)
    _train(tmp_path, Learning(), checkpoints=Checkpoints(tmp_path, pins))
    assert capsys.readouterr().out.count("was not pinned within 60 s") == 1
