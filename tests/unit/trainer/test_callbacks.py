"""The callbacks one by one, in a run of one rank."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("trl")

from remote.contract import MARKER
from remote.trainer.callbacks import Completeness, Metrics, Stop
from remote.trainer.marker import Pins

# The libraries' notes to each other are no failure of ours.
pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("ignore::FutureWarning")]


def _state(step: int = 1, **changes: Any) -> SimpleNamespace:
    values = {"global_step": step, "max_steps": 9, "is_world_process_zero": True, **changes}
    return SimpleNamespace(**values)


def _log(metrics: Metrics, logs: dict[str, float], **state: Any) -> None:
    metrics.on_log(None, _state(**state), None, logs=logs)


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_metrics_are_a_line_a_step(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "metrics.jsonl"
    metrics = Metrics(path)
    metrics.on_train_begin(None, _state(), None)
    for step in (1, 2):
        metrics.on_step_begin(None, _state(), None)
        metrics.on_step_end(None, _state(), None)
        logs = {"loss": 2.5, "grad_norm": 0.5, "learning_rate": 1e-3, "num_tokens": 100.0 * step}
        _log(metrics, {**logs, "epoch": 0.1}, step=step)
    _log(metrics, {"train_runtime": 3.0}, step=2)
    first, second = _lines(path)
    assert set(first) == {
        *("v", "step", "at", "max_steps", "loss", "grad_norm", "learning_rate", "tokens_per_s"),
    }
    assert (first["step"], second["step"], first["max_steps"], first["loss"]) == (1, 2, 9, 2.5)
    assert first["at"].endswith("Z")
    assert second["tokens_per_s"] > 0


def test_a_nan_is_seen(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "metrics.jsonl")
    _log(metrics, {"loss": float("nan"), "grad_norm": float("inf")})
    (line,) = _lines(tmp_path / "metrics.jsonl")
    assert math.isnan(line["loss"])
    assert math.isinf(line["grad_norm"])


def test_a_torn_line_is_ended_first(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"v": 1, "st')
    metrics = Metrics(path)
    metrics.on_train_begin(None, _state(), None)
    metrics.on_train_begin(None, _state(), None)
    _log(metrics, {"loss": 1.0})
    torn, whole = path.read_text().splitlines()
    assert torn == '{"v": 1, "st'
    assert json.loads(whole)["loss"] == 1.0


def test_only_rank_0_writes(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "metrics.jsonl")
    metrics.on_train_begin(None, _state(is_world_process_zero=False), None)
    _log(metrics, {"loss": 1.0}, is_world_process_zero=False)
    assert list(tmp_path.iterdir()) == []


def test_a_save_is_marked_and_a_missing_pin_told_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for step in (3, 6):
        (tmp_path / f"checkpoint-{step}").mkdir()
    moments = iter(range(0, 10_000, 50))
    pins = Pins(tmp_path / "pinned", clock=lambda: next(moments), sleep=lambda _: None)
    completeness = Completeness(pins)
    args = SimpleNamespace(output_dir=str(tmp_path))
    for step in (3, 6):
        completeness.on_save(args, _state(step), None)
    names = [json.loads(path.read_text())["name"] for path in sorted(tmp_path.rglob(MARKER))]
    assert names == ["checkpoint-3", "checkpoint-6"]
    assert capsys.readouterr().out.count("was not pinned within 60 s") == 1


@pytest.fixture
def own_sigterm() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("own_sigterm")
def test_sigterm_saves_and_stops_at_the_next_step() -> None:
    stop = Stop()
    control = SimpleNamespace(should_save=False, should_training_stop=False)
    stop.on_train_begin(None, _state(), control)
    args = SimpleNamespace(device="cpu")
    stop.on_step_end(args, _state(), control)
    assert not control.should_training_stop
    os.kill(os.getpid(), signal.SIGTERM)
    stop.on_step_end(args, _state(), control)
    assert control.should_save
    assert control.should_training_stop
