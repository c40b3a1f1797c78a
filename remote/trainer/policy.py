"""A causal language model that answers with the log-probability of each learned token.

Logits are computed only where a token is learned, and in chunks where they would not fit.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from remote.trainer.attention import Segments, no_mask
from remote.trainer.data.batch import Batch, Layout

CHUNK_ELEMENTS = 2**27  # logits at once: 512 MiB in float32
# Models that do more to their logits than the head does.
_SCALED_LOGITS = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier")


class Policy(nn.Module):
    """Wraps a causal LM, with or without adapters. Called by the engines for each forward."""

    def __init__(self, lm: Any, *, layout: Layout, autocast: torch.dtype | None = None) -> None:
        super().__init__()
        self.lm = lm
        self.layout = layout
        self._autocast = autocast
        self._vocabulary = int(lm.config.vocab_size)
        self._plain_head = not any(getattr(lm.config, key, None) for key in _SCALED_LOGITS)

    def forward(self, batch: Batch, temperature: float = 1.0) -> Tensor:
        """Log-probabilities of the batch's labels, in float32, in their order."""
        with torch.autocast(
            batch.ids.device.type, self._autocast, enabled=self._autocast is not None
        ):
            too_many = len(batch.labels) * self._vocabulary > CHUNK_ELEMENTS
            if too_many and self._plain_head:
                return self._in_chunks(batch, temperature)
            return _log_probs(self._logits(batch), batch.labels, temperature)

    @property
    def exact(self) -> bool:
        """Whether its forwards keep the precision of its weights."""
        return self._autocast is None

    def precision(self) -> AbstractContextManager[Any]:
        """What its forwards run in, for who calls the model within by itself."""
        kind = next(self.lm.parameters()).device.type
        return torch.autocast(kind, self._autocast, enabled=self._autocast is not None)

    def hidden(self, batch: Batch) -> Tensor:
        """The last hidden states by flat position: [positions, width]."""
        with torch.autocast(
            batch.ids.device.type, self._autocast, enabled=self._autocast is not None
        ):
            states = self._decoder()(**self._inputs(batch)).last_hidden_state
        return states.flatten(0, 1)

    def _logits(self, batch: Batch) -> Tensor:
        inputs = self._inputs(batch)
        if self.layout is Layout.FLAT:
            return self.lm(**inputs, logits_to_keep=batch.targets).logits[0]
        return self.lm(**inputs).logits.flatten(0, 1)[batch.targets]

    def _in_chunks(self, batch: Batch, temperature: float) -> Tensor:
        head = self.lm.get_output_embeddings()

        def some(states: Tensor, labels: Tensor) -> Tensor:
            return _log_probs(head(states), labels, temperature)

        size = max(1, CHUNK_ELEMENTS // self._vocabulary)
        states = self.hidden(batch)[batch.targets]
        chunks = zip(states.split(size), batch.labels.split(size), strict=True)
        return torch.cat([checkpoint(some, *each, use_reentrant=False) for each in chunks])

    def _inputs(self, batch: Batch) -> dict[str, Any]:
        inputs: dict[str, Any] = {"input_ids": batch.ids, "use_cache": False}
        if self.layout is Layout.PADDED:
            return {**inputs, "attention_mask": batch.attention_mask}
        return {
            **inputs,
            "position_ids": batch.position_ids,
            "attention_mask": no_mask(batch.ids.device),
            "segments": Segments(batch.cu_seqlens, batch.lengths),
        }

    def _decoder(self) -> Any:
        lm = self.lm.get_base_model() if hasattr(self.lm, "get_base_model") else self.lm
        return lm.get_decoder()


def _log_probs(logits: Tensor, labels: Tensor, temperature: float) -> Tensor:
    logits = logits.float()
    if temperature != 1.0:
        logits = logits / temperature
    return -F.cross_entropy(logits, labels, reduction="none")
