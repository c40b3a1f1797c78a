"""The folder that a DeepSpeed engine writes: one optimizer shard a rank, and the model whole or in
shards. Rank 0 writes the pointer `latest` seconds before others end, so it proves nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Iterable, Optional, Set, Tuple

from remote.agent.layouts.tree import Tree, pickled_none, pickled_number

LATEST = "latest"
STATES = r"_(?:model|optim)_states\.pt$"
_OPTIMIZER = re.compile(r"^(?:bf16_)?zero_pp_rank_(\d+)_mp_rank_(\d+)_optim_states\.pt$")
_MODEL = re.compile(r"^(?:bf16_)?(?:zero_pp_rank_(\d+)_)?mp_rank_(\d+)_model_states\.pt$")

Shards = Set[Tuple[int, int]]


@dataclass(frozen=True)
class Zero:
    """The shards by (data-parallel rank, model-parallel rank)."""

    tree: Tree
    optimizers: Shards
    models: Shards
    whole_models: Set[int]

    @staticmethod
    def of(tree: Tree) -> Zero:
        """`tree` is the engine's own folder (the tag)."""
        optimizers = [match for match in map(_OPTIMIZER.match, tree) if match]
        models = [match for match in map(_MODEL.match, tree) if match]
        return Zero(
            tree,
            {(int(match[1]), int(match[2])) for match in optimizers},
            {(int(match[1]), int(match[2])) for match in models if match[1] is not None},
            {int(match[2]) for match in models if match[1] is None},
        )

    @property
    def is_zero3(self) -> bool:
        return bool(self.models)

    @property
    def is_doubtful(self) -> bool:
        """ZeRO-0 has no optimizer shards, and neither has another stage before they are there:
        by names they look alike."""
        return not self.optimizers and self._told("dp_world_size") is None

    @property
    def step(self) -> Optional[int]:
        return self._told("global_steps")

    def missing(self, ranks: int) -> Optional[str]:
        """ZeRO-1 and -2 have one optimizer shard a rank, ZeRO-3 a model shard too; ZeRO-0 has
        the whole model alone, unless it trains in bf16. The model's own file says how many data
        ranks there are, and holds the optimizer where no shards will come."""
        if not self.optimizers and not self.models and not self.whole_models:
            return "model states of DeepSpeed"
        sharded = bool(self.optimizers) or self.is_zero3
        if not sharded and 0 not in self.whole_models:
            return "mp_rank_00_model_states.pt"
        if not sharded and self._awaits_shards():
            return "zero_pp_rank_0_mp_rank_00_optim_states.pt"
        least = max(ranks, self._told("dp_world_size") or 1) if sharded else 1
        return (
            (_missing_shards("optim", self.optimizers, least) if sharded else None)
            or (_missing_shards("model", self.models, least) if self.is_zero3 else None)
            or (None if self.is_zero3 else self._missing_whole_models())
        )

    def _missing_whole_models(self) -> Optional[str]:
        parallel = {model for _, model in self.optimizers} or {0}
        absent = sorted(parallel - self.whole_models)
        return "mp_rank_%02d_model_states.pt" % absent[0] if absent else None

    def _awaits_shards(self) -> bool:
        return pickled_none(self._pickle(), "optimizer")

    def _told(self, key: str) -> Optional[int]:
        return pickled_number(self._pickle(), key)

    def _pickle(self) -> bytes:
        first = min((path for path in self.tree if _MODEL.match(path)), default=None)
        return self.tree.pickled(first) if first else b""


def _missing_shards(what: str, have: Shards, ranks: int) -> Optional[str]:
    if _is_grid(have, ranks):
        return None
    return "%s_states of every rank (%d of %d)" % (what, len(have), ranks)


def _is_grid(shards: Iterable[Tuple[int, int]], ranks: int) -> bool:
    """Every data-parallel rank of every model-parallel one, as many as there are ranks."""
    have = set(shards)
    rows, columns = {data for data, _ in have}, {model for _, model in have}
    full = rows == set(range(len(rows))) and columns == set(range(len(columns)))
    return full and len(have) == len(rows) * len(columns) and len(have) >= ranks
