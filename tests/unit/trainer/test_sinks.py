"""TensorBoard and W&B, where a run goes on; and how much of the hardware is said to be used."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from remote.trainer import flops
from remote.trainer.learner import StepResult
from remote.trainer.problems import TrainError
from remote.trainer.sinks import TensorBoard, WeightsAndBiases
from remote.trainer.telemetry import Telemetry

pytestmark = pytest.mark.trainer


class Service(ModuleType):
    """Stands for a package that is not installed here; notes what it is told."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.begun: dict[str, Any] = {}
        self.told: list[Any] = []

    def init(self, **options: Any) -> Service:
        self.begun = options
        return self

    def SummaryWriter(self, folder: str, **options: Any) -> Service:
        self.begun = {"folder": folder, **options}
        return self

    def log(self, record: dict[str, float], *, step: int) -> None:
        self.told.append((step, record))

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.told.append((step, {name: value}))

    def flush(self) -> None:
        self.told.append("flushed")

    def finish(self) -> None:
        self.told.append("finished")

    close = finish


def test_wandb_goes_on_with_the_run_of_an_earlier_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = Service("wandb")
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    sink = WeightsAndBiases({"method": "sft"}, id="demo-1a2b-full")
    sink.write(7, {"loss": 1.5})
    sink.close()
    assert wandb.begun == {
        "id": "demo-1a2b-full",
        "name": "demo-1a2b-full",
        "resume": "allow",
        "config": {"method": "sft"},
    }
    assert wandb.told == [(7, {"loss": 1.5}), "finished"]


def test_tensorboard_forgets_the_steps_that_come_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    board = Service("torch.utils.tensorboard")
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", board)
    sink = TensorBoard(tmp_path, begins_after=6)
    sink.write(7, {"loss": 1.5})
    sink.close()
    assert board.begun == {"folder": str(tmp_path), "purge_step": 7}
    assert board.told == [(7, {"loss": 1.5}), "flushed", "finished"]


@pytest.mark.parametrize("sink", [WeightsAndBiases, TensorBoard], ids=["wandb", "tensorboard"])
def test_what_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch, sink: Any) -> None:
    for name in ("wandb", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(TrainError, match=r"args.report_to: .* is not installed here"):
        sink({})


def _model() -> tuple[LlamaForCausalLM, LlamaConfig]:
    config = LlamaConfig(
        vocab_size=100,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
    )
    with torch.device("meta"):
        return LlamaForCausalLM(config), config


def test_flops_of_a_token() -> None:
    """Per layer: four projections, three of the MLP, two norms; then a norm and the head."""
    model, config = _model()
    weights = 2 * (4 * 32 * 32 + 3 * 32 * 64 + 2 * 32) + 32 + 32 * 100
    attention = 12 * 2 * 32 * 50 / 2
    assert flops.per_token(model, config, length=50) == 6 * weights + attention
    model.requires_grad_(False)
    assert flops.per_token(model, config, length=50) == 4 * weights + attention


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA A100 80GB PCIe", "A100"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA A40", "A40"),
        ("NVIDIA RTX A6000", "A6000"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA L40", None),
        ("NVIDIA RTX A4000", None),
        ("NVIDIA A10", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA GeForce RTX 4090 D", None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
    ],
)
def test_the_peak_is_of_that_very_gpu(name: str, known: str | None) -> None:
    assert flops.peak_of(name) == (flops.PEAKS[known] if known else None)


def test_mfu_is_flops_used_of_those_there() -> None:
    telemetry = Telemetry(1, 1, flops_per_token=1000.0, peak_flops=1e6)
    result = StepResult(
        loss=1.0, grad_norm=1.0, skipped=False, learning_rate=0.1, tokens=100, data_s=0.5
    )
    telemetry.stepped(1, result, 2.0)
    (record,) = telemetry.history
    assert record["mfu"] == 1000 * 100 / 2.0 / 1e6
    assert record["tokens_per_s"] == 50
    assert (record["data_s"], record["step_s"]) == (0.5, 2.0)
    assert record["memory_gb"] > 0
