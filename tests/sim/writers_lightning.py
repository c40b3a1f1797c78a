"""Lightning as a writer: one file a checkpoint, and the older one deleted after each save."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from sim.writers_pace import Writer


class Model(LightningModule):
    """Something with weights, and a metric that only gets better."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(64, 64)

    def training_step(self, batch: Any, index: int) -> Any:
        self.log("worst", -float(self.global_step))
        return self.layer(batch).sum()

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters())


class Recording(ModelCheckpoint):
    """Tells of each save when it is over and before the older one is deleted."""

    def __init__(self, writer: Writer, **options: Any) -> None:
        super().__init__(**options)
        self._writer = writer

    def _save_checkpoint(self, trainer: Any, filepath: str) -> None:
        step = int(trainer.global_step)
        self._writer.begin(step)
        super()._save_checkpoint(trainer, filepath)
        self._writer.end(step, Path(filepath))


def fit(writer: Writer, saves: int, out: Path) -> None:
    keeper = Recording(
        writer,
        dirpath=out,
        filename="{epoch}-{step}",
        monitor="worst",
        save_top_k=1,
        every_n_train_steps=1,
    )
    callbacks: list[Callback] = [keeper]
    trainer = Trainer(
        max_steps=saves,
        accelerator="cpu",
        callbacks=callbacks,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Model(), torch.utils.data.DataLoader(torch.randn(saves, 64)))
