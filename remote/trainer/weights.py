"""Writes a model as transformers and PEFT read it: any tool can load a checkpoint of ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from remote.trainer.ranks import barrier, rank

PREFIX = "lm."  # the policy's name for the model it wraps


@dataclass(frozen=True)
class Weights:
    """A causal LM, with or without adapters, and its tokenizer."""

    lm: Any
    tokenizer: Any

    def save(self, folder: Path, weights: Mapping[str, Tensor] | None) -> None:
        """Write the model (or its adapters) and tokenizer. `weights` by their names in the
        policy, on rank 0. All ranks together."""
        if rank() == 0:
            assert weights is not None
            named = {
                name.removeprefix(PREFIX): value
                for name, value in weights.items()
                if name.startswith(PREFIX)
            }
            # A model may carry adapters beside the policy's: GAD's do.
            own = {"selected_adapters": ["default"]} if hasattr(self.lm, "peft_config") else {}
            self.lm.save_pretrained(folder, state_dict=named, **own)
            self.tokenizer.save_pretrained(folder)
            (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty model card
        barrier()
