"""Looks whether a model sees sequences laid end to end as it sees each of them alone.

What a layer adds to attention may be new, and be left out without a word: two forwards show it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from remote.trainer.data.batch import Layout, collate
from remote.trainer.data.rows import Encoded
from remote.trainer.policy import Policy
from remote.trainer.problems import TrainError
from remote.trainer.ranks import rank

LENGTHS = (9, 5)
# The mean difference of log-probabilities that rounding explains: in float32, in less.
EXACT, HALF = 1e-3, 0.1


def settled(policy: Policy) -> Policy:
    """The policy, padded from now on, and this said, if it does not see each sequence alone.

    Weights that ZeRO-3 has sharded cannot be asked before they are in an engine.
    """
    if policy.layout is Layout.PADDED or _sharded(policy):
        return policy
    why = _strays(policy.eval())
    if why is not None:
        policy.layout = Layout.PADDED
        if rank() == 0:
            print(f"attention: sequences are padded, which is slower: {why}", flush=True)
    return policy


def _strays(policy: Policy) -> str | None:
    vocabulary = int(policy.lm.config.vocab_size)
    sequences = [_sequence(length, vocabulary) for length in LENGTHS]
    with torch.no_grad():
        policy.layout = Layout.PADDED
        alone = torch.cat([_log_probs(policy, [each]) for each in sequences])
        policy.layout = Layout.FLAT
        try:
            together = _log_probs(policy, sequences)
        except TrainError as error:
            return error.problems[0]
        except (RuntimeError, TypeError, ValueError, LookupError, AttributeError) as error:
            return f"end to end: {type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    off = float((together - alone).abs().mean())
    return None if off < _tolerance(policy) else f"end to end they differ by {off:.2g}"


def _sequence(length: int, vocabulary: int) -> Encoded:
    ids = (np.arange(length) * 7919 + length * 104729) % vocabulary
    return Encoded(ids.astype(np.int32), np.arange(length) > 0)


def _log_probs(policy: Policy, sequences: list[Encoded]) -> Tensor:
    where = next(policy.parameters()).device
    return policy(collate(sequences, layout=policy.layout, device=where))


def _tolerance(policy: Policy) -> float:
    exact = policy.exact and next(policy.parameters()).dtype == torch.float32
    return EXACT if exact else HALF


def _sharded(policy: Policy) -> bool:
    return any(hasattr(each, "ds_id") for each in policy.parameters())
