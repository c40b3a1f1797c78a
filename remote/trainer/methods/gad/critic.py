"""The discriminator: a language model's body and one number read off an answer's last token."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from remote.trainer.data.batch import Batch
from remote.trainer.policy import Policy
from remote.trainer.problems import TrainError
from remote.trainer.ranks import rank

FILE = "discriminator.safetensors"
SPREAD = 0.02
# The adapter's name differs between the form with one base and the form with two.
_ADAPTERS = (".default.", ".discriminator.")


class ScoreHead(nn.Module):
    """One float32 number a hidden state, whatever precision the model runs in.

    Without a bias: only differences of scores are ever looked at.
    """

    def __init__(self, width: int, *, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(1, width, generator=generator) * SPREAD)

    def forward(self, states: Tensor) -> Tensor:
        return F.linear(states.float(), self.weight.float()).squeeze(-1)


class Critic(nn.Module):
    """Scores whole sequences. Called by the engines for each forward."""

    def __init__(self, policy: Policy, head: ScoreHead) -> None:
        super().__init__()
        self.policy = policy
        self.head = head

    def forward(self, batch: Batch) -> Tensor:
        """One score a sequence: that of its last token."""
        return self.head(self.policy.hidden(batch)[batch.ends])

    def trained(self) -> dict[str, str]:
        """The names of what is trained now, and what each is called in the file."""
        return {
            name: _canonical(name) for name, each in self.named_parameters() if each.requires_grad
        }


def write(folder: Path, weights: Mapping[str, Tensor], names: Mapping[str, str]) -> None:
    """Write the weights of these `names` into `folder`."""
    named = {file: weights[name].detach().cpu().contiguous() for name, file in names.items()}
    save_file(named, folder / FILE)


def read(critic: Critic, path: Path, *, key: str) -> None:
    """Give `critic` the weights that `write` wrote. Raises TrainError naming `key`."""
    try:
        values = load_file(path)
    except (OSError, SafetensorError) as error:
        raise TrainError([f"{key}: {path} cannot be read: {error}"]) from error
    parameters = dict(critic.named_parameters())
    targets = {file: parameters[name] for name, file in critic.trained().items()}
    shapes = {name: tuple(getattr(each, "ds_shape", each.shape)) for name, each in targets.items()}
    if shapes != {name: tuple(value.shape) for name, value in values.items()}:
        raise TrainError([f"{key}: {path} is of another model or other adapters"])
    for name, target in targets.items():
        _copy(target, values[name])


def _canonical(name: str) -> str:
    for adapter in _ADAPTERS:
        name = name.replace(adapter, ".")
    return name


def _copy(target: nn.Parameter, value: Tensor) -> None:
    if not hasattr(target, "ds_id"):
        with torch.no_grad():
            target.copy_(value)
        return
    import deepspeed  # sharded under ZeRO-3: whole here only, and shared out again

    with deepspeed.zero.GatheredParameters([target], modifier_rank=0), torch.no_grad():
        if rank() == 0:
            target.copy_(value)
