"""The losses against exact values: made with the published functions in float64."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("torch")

import torch

from remote.trainer import losses

pytestmark = pytest.mark.trainer
# Two pairs: policy and reference log-probabilities of the chosen and the rejected answer.
PC, PR, RC, RR = (-10, -12.5), (-14, -11), (-11, -12), (-13, -12)
LC, LR = (5, 10), (7, 4)


def _t(values: object) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _close(given: torch.Tensor, expected: object) -> None:
    torch.testing.assert_close(given, _t(expected), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("beta", "smoothing", "expected"),
    [
        (0.1, 0.0, (0.5981388693815918, 0.7709570477895321)),
        (0.5, 0.1, (0.4132616875182229, 1.0618710061149)),
    ],
    ids=["plain", "smoothed"],
)
def test_dpo(beta: float, smoothing: float, expected: tuple[float, float]) -> None:
    given = losses.dpo(_t(PC), _t(PR), _t(RC), _t(RR), beta=beta, label_smoothing=smoothing)
    _close(given.losses, expected)


def test_dpo_rewards_and_mean() -> None:
    given = losses.dpo(_t(PC), _t(PR), _t(RC), _t(RR), beta=0.1)
    _close(given.chosen, (0.1, -0.05))
    _close(given.rejected, (-0.1, 0.1))
    _close(given.losses.mean(), 0.6845479585855619)


def test_dpo_norm_takes_means_over_tokens() -> None:
    sums = [
        _t(values) / _t(lengths) for values, lengths in ((PC, LC), (PR, LR), (RC, LC), (RR, LR))
    ]
    given = losses.dpo(*sums, beta=5.0)
    _close(given.losses, (0.1655926660515748, 1.7014132779827527))


def test_dpo_begins_at_ln_2() -> None:
    given = losses.dpo(_t(PC), _t(PR), _t(PC), _t(PR), beta=0.1, label_smoothing=0.2)
    _close(given.losses, (math.log(2), math.log(2)))


@pytest.mark.parametrize(
    ("beta", "ratio", "expected"),
    [
        (2.0, 0.5, (1.3132616875182228, 0.1269280110429725)),
        (2.5, 0.55, (1.600412651601648, 0.08893946547493872)),
        (1.0, 1.0, (1.3132616875182228, 0.4740769841801067)),
    ],
    ids=["open-instruct", "paper", "torchllms"],
)
def test_simpo(beta: float, ratio: float, expected: tuple[float, float]) -> None:
    chosen, rejected = _t(PC) / _t(LC), _t(PR) / _t(LR)
    given = losses.simpo(chosen, rejected, beta=beta, gamma_beta_ratio=ratio)
    _close(given.losses, expected)


def test_bradley_terry() -> None:
    given = losses.bradley_terry(_t((1.2, 0.3, -0.5)), _t((0.7, 0.9, -0.5)))
    _close(given, (0.4740769841801067, 1.0374879504858856, 0.6931471805599453))
    _close(given.mean(), 0.7349040384086458)


def test_group_advantage() -> None:
    rewards = _t([0.5, 0.6, 0.3, 0.7, 0.4, 0.8, 0.5, 0.6])
    expected = (rewards - 0.55) / (0.16035674514745463 + 1e-6)
    _close(losses.group_advantage(torch.stack([rewards, rewards * 0 + 2]))[0], expected.tolist())
    assert losses.group_advantage(rewards * 0 + 2).tolist() == [0.0] * 8
    assert [round(each, 4) for each in losses.group_advantage(rewards).tolist()] == [
        *(-0.3118, 0.3118, -1.5590, 0.9354, -0.9354, 1.5590, -0.3118, 0.3118)
    ]


def test_k3() -> None:
    given = losses.k3(_t((-1.0, -2.0)), _t((-1.2, -1.5)))
    _close(given, (0.018730753077981888, 0.1487212707001282))


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected"),
    [
        (1.0, 2.0, -2.0),
        (1.5, 2.0, -2.4),  # clipped at 1.2
        (0.5, 2.0, -1.0),  # a worse ratio is not hidden
        (1.1, -1.0, 1.1),
        (0.5, -1.0, 0.8),
        (5.0, -1.0, 3.0),  # the second clip
    ],
)
def test_clipped_policy(ratio: float, advantage: float, expected: float) -> None:
    old = _t([-1.0])
    given = losses.clipped_policy(old + math.log(ratio), old, _t([advantage]))
    _close(given, [expected])


def test_at_the_first_pass_the_gradient_is_reinforce() -> None:
    new = _t([-1.0, -2.0, -0.5]).requires_grad_()
    advantage = _t([0.5, -1.0, 2.0])
    losses.clipped_policy(new, new.detach(), advantage).sum().backward()
    _close(new.grad, (-advantage).tolist())


def test_per_sequence() -> None:
    values = _t((-1.0, -2.0, -3.0, -2.0, -3.0)).requires_grad_()
    counts = torch.tensor([3, 2, 0])
    _close(losses.per_sequence(values, counts), (-6.0, -5.0, 0.0))
    means = losses.per_sequence(values, counts, mean=True)
    _close(means, (-2.0, -2.5, 0.0))
    means.sum().backward()
    _close(values.grad, (1 / 3, 1 / 3, 1 / 3, 1 / 2, 1 / 2))
