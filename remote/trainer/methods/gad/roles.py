"""Who plays: a module, and which adapter of its model it plays with.

On one GPU policy, reference and discriminator are three adapters of one frozen base, so each puts
its own one on before it is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from remote.trainer.engine import Engine, Update

POLICY, DISCRIMINATOR, REFERENCE = "default", "discriminator", "reference"


@dataclass(frozen=True)
class Role:
    """`adapter` is None where the module is nobody else's."""

    module: nn.Module
    lm: Any
    adapter: str | None

    def on(self, *, training: bool) -> nn.Module:
        """The module, with its adapter on, to be called."""
        self.dress()
        self.module.train(training)
        return self.module

    def dress(self) -> None:
        put_on(self.lm, self.adapter)


@dataclass(frozen=True)
class Player:
    """A role that learns."""

    role: Role
    engine: Engine

    def step(self, rate: float) -> Update:
        self.role.dress()
        return self.engine.step(rate)

    def save(self, folder: Path, step: int) -> None:
        self.role.dress()
        self.engine.save(folder, step)

    def load(self, folder: Path, step: int) -> None:
        self.role.dress()
        self.engine.load(folder, step)


def put_on(lm: Any, adapter: str | None) -> None:
    """From now on the model is this adapter's, which alone can be trained."""
    if adapter is not None:
        lm.set_adapter(adapter)
