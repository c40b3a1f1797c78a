"""The plain engine: clipping, gradients that are not finite, and what it gives back."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch

from remote.trainer.args import Args
from remote.trainer.engine import Plain, make_optimizer, parameter_groups
from remote.trainer.problems import TrainError

pytestmark = pytest.mark.trainer


def _engine(*, width: int = 3, clip: float = 1.0) -> Plain:
    torch.manual_seed(0)
    module = torch.nn.Linear(width, 1)
    optimizer = make_optimizer(parameter_groups(module, 0.1), Args(), rate=0.5)
    return Plain(module, optimizer, max_grad_norm=clip)


def _step(engine: Plain, factor: float = 1.0, rate: float = 0.1) -> Any:
    engine.backward((engine.module(torch.ones(1, 3)) * factor).sum(), last=True)
    return engine.step(rate)


def test_reports_the_norm_before_clipping() -> None:
    update = _step(_engine(), factor=10.0)
    assert (update.grad_norm, update.skipped) == (pytest.approx(20.0), False)


@pytest.mark.parametrize("factor", [math.nan, math.inf], ids=str)
def test_a_gradient_that_is_not_finite_changes_nothing(factor: float) -> None:
    engine, twin = _engine(), _engine()
    for each in (engine, twin):
        _step(each)
    update = _step(engine, factor=factor)
    assert update.skipped
    assert not math.isfinite(update.grad_norm)
    for each in (engine, twin):
        _step(each)
    for one, other in zip(engine.module.parameters(), twin.module.parameters(), strict=True):
        assert torch.equal(one, other)


def test_no_clipping_when_it_is_off() -> None:
    free, clipped = _engine(clip=0.0), _engine(clip=1e-3)
    for each in (free, clipped):
        _step(each)
        _step(each, factor=0.1)  # Adam forgets a constant scale, so two scales
    assert not torch.equal(free.module.weight, clipped.module.weight)


def test_matrices_decay_and_the_rest_does_not() -> None:
    matrices, others = parameter_groups(torch.nn.Linear(3, 2), 0.1)
    assert [tuple(each.shape) for each in matrices["params"]] == [(2, 3)]
    assert [tuple(each.shape) for each in others["params"]] == [(2,)]
    assert (matrices["weight_decay"], others["weight_decay"]) == (0.1, 0.0)


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    engine, other = _engine(), _engine()
    for _ in range(3):
        _step(engine)
    engine.save(tmp_path, 3)
    other.module.load_state_dict(engine.module.state_dict())
    other.load(tmp_path, 3)
    for each in (engine, other):
        _step(each, factor=0.3)
    assert torch.equal(engine.module.weight, other.module.weight)


def test_another_models_optimizer_is_refused(tmp_path: Path) -> None:
    engine = _engine()
    _step(engine)
    engine.save(tmp_path, 1)
    module = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 1))
    optimizer = make_optimizer(parameter_groups(module, 0.0), Args(), rate=0.1)
    with pytest.raises(TrainError, match="of another model or other adapters"):
        Plain(module, optimizer, max_grad_norm=1.0).load(tmp_path, 1)


def test_eight_bits_need_their_package() -> None:
    if pytest.importorskip("importlib.util").find_spec("bitsandbytes"):
        pytest.skip("bitsandbytes is installed here")
    groups = parameter_groups(torch.nn.Linear(2, 1), 0.0)
    with pytest.raises(TrainError, match="adamw_bnb_8bit needs bitsandbytes"):
        make_optimizer(groups, Args(optim="adamw_bnb_8bit"), rate=0.1)
