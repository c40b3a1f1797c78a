"""How likely a model finds what it should have said: loss and perplexity."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from remote.trainer.data.batch import Layout, collate
from remote.trainer.data.rows import Store
from remote.trainer.policy import Policy

MAX_EXPONENT = 700


def likelihood(lm: Any, store: Store, *, batch_size: int) -> dict[str, Any]:
    """The mean loss a learned token over all of `store`, and its exponential.

    Rows of about the same length make a batch, and sums are in float64: the value does not depend
    on the batch size.
    """
    policy = Policy(lm, layout=Layout.PADDED)
    place = next(lm.parameters()).device
    order = np.argsort(store.lengths[:, 0], kind="stable").tolist()
    total = 0.0
    with torch.inference_mode():
        for first in range(0, len(order), batch_size):
            rows = [store.row(at)[0] for at in order[first : first + batch_size]]
            batch = collate(rows, layout=Layout.PADDED, device=place)
            total -= float(policy(batch).double().sum())
    loss = total / store.report.learned
    return {
        "loss": loss if math.isfinite(loss) else None,
        "perplexity": math.exp(loss) if loss < MAX_EXPONENT else None,
        "tokens": store.report.learned,
        "examples": store.report.used,
        "truncated": store.report.truncated,
        "dropped": store.report.masked,
    }
