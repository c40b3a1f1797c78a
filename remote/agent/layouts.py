"""When a checkpoint is complete: pure functions over the names, sizes and a few small texts of a
pinned tree. Sources: transformers 4.36 to 5.x and DeepSpeed as they were seen to write."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Dict, Iterable, List, Mapping, Optional, Set, Tuple

from remote.contract import ContractError, check_path, check_version

Files = Mapping[str, int]
Texts = Mapping[str, bytes]

STATE = "trainer_state.json"
SENTINEL = "checkpoint-is-incomplete.txt"
LATEST = "latest"
_NONCE = re.compile(r"^[A-Za-z0-9_-]{1,64}$")
_OPTIMIZER = re.compile(r"^(?:bf16_)?zero_pp_rank_(\d+)_mp_rank_(\d+)_optim_states\.pt$")
_MODEL = re.compile(r"^(?:bf16_)?(?:zero_pp_rank_(\d+)_)?mp_rank_(\d+)_model_states\.pt$")
_RNG = re.compile(r"^rng_state_(\d+)\.pth$")
_WHOLE_WEIGHTS = ("model.safetensors", "pytorch_model.bin", "pytorch_model_fsdp.bin")
_ADAPTERS = ("adapter_model.safetensors", "adapter_model.bin")
# torch.distributed.checkpoint renames `.metadata` into place after every shard.
_FSDP_WEIGHTS, _FSDP_OPTIMIZER = "pytorch_model_fsdp_0/.metadata", "optimizer_0/.metadata"
MAX_TEXT_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True)
class Verdict:
    """`missing` says what a complete checkpoint would have besides; None when it is complete.
    `doubtful`: complete as far as names tell, so it shall lie still for longer. `world_size` is
    the number of ranks whose files are there."""

    missing: Optional[str]
    step: Optional[int] = None
    max_steps: Optional[int] = None
    world_size: Optional[int] = None
    doubtful: bool = False


@dataclass(frozen=True)
class Marker:
    """What our own trainer says after a barrier: these files of these sizes are the checkpoint."""

    name: str
    step: Optional[int]
    world_size: Optional[int]
    nonce: str
    files: Dict[str, int]


def read_marker(data: bytes) -> Marker:
    """Raises ContractError for anything but a whole marker."""
    try:
        record = json.loads(data)
        check_version(record, "marker")
        nonce = str(record["nonce"])
        files = {check_path(str(file["path"])): int(file["size"]) for file in record["files"]}
        name, step, world_size = str(record["name"]), record["step"], record["world_size"]
    except ContractError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ContractError("not a marker: %s" % error) from error
    if not _NONCE.match(nonce) or not files:
        raise ContractError("a marker with the nonce %r and %d files" % (nonce, len(files)))
    return Marker(name, _number(step), _number(world_size), nonce, files)


def texts_needed(files: Files) -> List[str]:
    """The files whose content the functions here want to see."""
    wanted = [STATE, LATEST, *(path for path in files if _is_index(path))]
    return [path for path in wanted if files.get(path, MAX_TEXT_BYTES + 1) <= MAX_TEXT_BYTES]


def huggingface(
    step: int, files: Files, texts: Texts, *, world_size: int, at_least: int = 1
) -> Verdict:
    """The rule for `checkpoint-<step>` of the Hugging Face Trainer, with or without DeepSpeed.

    `world_size` is the number of ranks that write; a trainer that wrote `rng_state.pth` says
    itself that it has one. `at_least`: so many wrote an earlier checkpoint of the attempt."""
    state, trouble = _state(texts)
    alone = "rng_state.pth" in files and not _rng_ranks(files) and at_least <= 1
    ranks = 1 if alone else max(world_size, at_least)
    deepspeed = DeepSpeed.of(files, texts)
    missing = (
        ("end of the save (%s is there)" % SENTINEL if SENTINEL in files else None)
        or trouble
        or (None if state.get("global_step") == step else "%s of step %d" % (STATE, step))
        or _missing_weights(files, texts, deepspeed, ranks)
        or _missing_optimizer(files, deepspeed, ranks)
        or _missing_rng(files, ranks)
    )
    doubtful = deepspeed is not None and not deepspeed.optimizer_shards
    return Verdict(missing, step, _number(state.get("max_steps")), ranks, doubtful)


def final(files: Files, texts: Texts) -> Verdict:
    """The rule for what a finished trainer left at the root: weights and their configuration."""
    state, _ = _state(texts)
    missing = _missing_weights(files, texts, None, 1)
    if not missing and not {"config.json", "adapter_config.json"} & set(files):
        missing = "config.json"
    step, last = _number(state.get("global_step")), _number(state.get("max_steps"))
    return Verdict(missing, step, last)


def weights(files: Iterable[str]) -> List[str]:
    """The files among `files` that hold a model or adapter."""
    return [path for path in files if path.endswith((".safetensors", ".bin"))]


@dataclass(frozen=True)
class DeepSpeed:
    """The files of the folder that `latest` names, by (data-parallel rank, model-parallel rank)."""

    tag: str
    optimizer_shards: Set[Tuple[int, int]]
    model_shards: Set[Tuple[int, int]]
    whole_models: Set[int]

    @staticmethod
    def of(files: Files, texts: Texts) -> Optional[DeepSpeed]:
        """None when the checkpoint is not one of DeepSpeed's."""
        if LATEST not in files:
            return None
        tag = texts.get(LATEST, b"").decode("utf-8", "replace").strip()
        names = [path[len(tag) + 1 :] for path in files if tag and path.startswith(tag + "/")]
        optimizers = [match for match in map(_OPTIMIZER.match, names) if match]
        models = [match for match in map(_MODEL.match, names) if match]
        return DeepSpeed(
            tag,
            {(int(match[1]), int(match[2])) for match in optimizers},
            {(int(match[1]), int(match[2])) for match in models if match[1] is not None},
            {int(match[2]) for match in models if match[1] is None},
        )

    @property
    def is_zero3(self) -> bool:
        return bool(self.model_shards)

    def missing(self, ranks: int) -> Optional[str]:
        """ZeRO-1 and -2 have one optimizer shard a rank, ZeRO-3 a model shard too; ZeRO-0 has
        the whole model alone, unless it trains in bf16."""
        shards = self.optimizer_shards | self.model_shards
        if not shards and not self.whole_models:
            return "%s/ with its model states" % (self.tag or "the folder that `latest` names")
        if self.optimizer_shards or self.is_zero3:
            for what, have in (("optim", self.optimizer_shards), ("model", self.model_shards)):
                if (what == "optim" or self.is_zero3) and not _is_grid(have, ranks):
                    words = (self.tag, len(have), ranks, what)
                    return "%s/: %d of %d %s_states" % words
        if not self.is_zero3:
            parallel = {model for _, model in self.optimizer_shards} or {0}
            if not parallel <= self.whole_models:
                return "%s/mp_rank_00_model_states.pt" % self.tag
        return None


def _is_grid(shards: Set[Tuple[int, int]], ranks: int) -> bool:
    """Every data-parallel rank of every model-parallel one, as many as there are ranks."""
    rows, columns = {data for data, _ in shards}, {model for _, model in shards}
    full = rows == set(range(len(rows))) and columns == set(range(len(columns)))
    return full and len(shards) == len(rows) * len(columns) and len(shards) >= ranks


def _missing_weights(
    files: Files, texts: Texts, deepspeed: Optional[DeepSpeed], ranks: int
) -> Optional[str]:
    for index in filter(_is_index, files):
        shards = _shards(texts.get(index, b""))
        absent = sorted(shard for shard in shards if shard not in files)
        if absent or not shards:
            return absent[0] if absent else "the shards that %s names" % index
        return None
    if any(name in files for name in (*_WHOLE_WEIGHTS, _FSDP_WEIGHTS)):
        return None
    adapter = next((name for name in _ADAPTERS if name in files), None)
    if adapter or "adapter_config.json" in files:
        config = None if "adapter_config.json" in files else "adapter_config.json"
        return config if adapter else _ADAPTERS[0]
    if deepspeed and deepspeed.is_zero3:
        return deepspeed.missing(ranks)  # not gathered: the weights are in the shards alone
    return "weights"


def _missing_optimizer(files: Files, deepspeed: Optional[DeepSpeed], ranks: int) -> Optional[str]:
    if deepspeed:
        return deepspeed.missing(ranks)
    if any(name in files for name in ("optimizer.pt", "optimizer.bin", _FSDP_OPTIMIZER)):
        return None if "scheduler.pt" in files else "scheduler.pt"
    return "optimizer.pt"


def _missing_rng(files: Files, ranks: int) -> Optional[str]:
    if ranks == 1 and "rng_state.pth" in files:
        return None
    have = _rng_ranks(files)
    absent = [rank for rank in range(ranks) if rank not in have]
    return "rng_state_%d.pth" % absent[0] if absent else None


def _rng_ranks(files: Files) -> Set[int]:
    return {int(match[1]) for match in map(_RNG.match, files) if match}


def _is_index(path: str) -> bool:
    return "/" not in path and path.endswith((".safetensors.index.json", ".bin.index.json"))


def _shards(index: bytes) -> Set[str]:
    try:
        return {str(shard) for shard in json.loads(index)["weight_map"].values()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return set()


def _state(texts: Texts) -> Tuple[Dict[str, Any], Optional[str]]:
    if STATE not in texts:
        return {}, STATE
    try:
        state = json.loads(texts[STATE])
    except ValueError:
        state = None
    if not isinstance(state, dict):
        return {}, "whole %s" % STATE
    return state, None


def _number(value: Any) -> Optional[int]:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
