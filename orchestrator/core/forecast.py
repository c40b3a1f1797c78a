"""How much disk a run's checkpoints will take, before anything is rented. Pure.

Sizes are per parameter: two bytes of weights, and what the trainer adds for an exact resume. They
are a range; what certainly does not fit even at its lower end is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.core.keep import Keep

WEIGHT_BYTES = 2.0
# Bytes a trained parameter: weights and the optimizer's moments in the weights' own precision, up
# to fp32 masters and fp32 moments. DeepSpeed's ZeRO always writes the latter (measured: 14 to 16).
FULL_BYTES = (6.0, 14.0)
ZERO_BYTES = (14.0, 16.0)
LORA_BYTES = (6.0, 16.0)
GB = 10**9


@dataclass(frozen=True)
class Size:
    """Bytes of something: at the least, and at the most as far as is known."""

    low: int
    high: int

    def times(self, count: int) -> Size:
        return Size(self.low * count, self.high * count)

    def plus(self, other: Size) -> Size:
        return Size(self.low + other.low, self.high + other.high)


@dataclass(frozen=True)
class Forecast:
    """What a run's checkpoints need. `saves` is how many there will be, `on_box` how many the
    trainer leaves on its disk at once, `here` how many stay in the mirror; None is unknown, and
    then `box` and `mirror` are for as many as are certain. `basis` says what the sizes come from.
    """

    checkpoint: Size
    final: Size
    box: Size
    mirror: Size
    saves: int | None
    on_box: int | None
    here: int | None
    basis: str


def forecast(
    checkpoint: Size,
    final: Size,
    basis: str,
    args: Mapping[str, Any],
    keep: Keep | None,
    *,
    base_bytes: int = 0,
) -> Forecast:
    """`args` are the trainer's own arguments, where the job says them; `base_bytes` is what else
    certainly lies on the box's disk."""
    saves = _saves(args)
    on_box = _at_once(saves, _whole(args.get("save_total_limit")))
    here = _kept(saves, _whole(args.get("save_steps")), keep)
    certain = 1 if saves is None or saves > 0 else 0
    base = Size(base_bytes, base_bytes)
    return Forecast(
        checkpoint,
        final,
        checkpoint.times(certain if on_box is None else on_box).plus(final).plus(base),
        checkpoint.times(certain if here is None else here).plus(final),
        saves,
        on_box,
        here,
        basis,
    )


def sizes(parameters: int, trained: int, *, lora: bool, zero: bool) -> tuple[Size, Size]:
    """One checkpoint, and the final weights, of a model of which `trained` parameters learn."""
    low, high = LORA_BYTES if lora else ZERO_BYTES if zero else FULL_BYTES
    checkpoint = Size(int(trained * low), int(trained * high))
    saved = trained if lora else parameters
    return checkpoint, Size(int(saved * WEIGHT_BYTES), int(saved * 2 * WEIGHT_BYTES))


def parameters_of(config: Any) -> int | None:
    """The parameters of a transformer from its `config.json`; None when that does not say."""
    shape = _shape(config)
    if shape is None:
        return None
    embeddings = shape.vocab * shape.hidden * (1 if shape.tied else 2)
    return embeddings + shape.layers * (shape.attention + shape.feed_forward)


def lora_parameters(config: Any, rank: int, targets: tuple[str, ...]) -> int | None:
    """What an adapter of this rank trains: rows and columns of each matrix it is put beside."""
    shape = _shape(config)
    if shape is None:
        return None
    matrices = shape.matrices
    wanted = matrices if "all-linear" in targets else {
        name: size for name, size in matrices.items() if name in targets
    }  # fmt: skip
    both = sum(rows + columns for rows, columns in wanted.values())
    return shape.layers * rank * both if both else None


@dataclass(frozen=True)
class _Shape:
    vocab: int
    hidden: int
    layers: int
    matrices: Mapping[str, tuple[int, int]]
    experts: int
    tied: bool

    @property
    def attention(self) -> int:
        return sum(_area(self.matrices[name]) for name in _ATTENTION)

    @property
    def feed_forward(self) -> int:
        areas = [_area(size) for name, size in self.matrices.items() if name not in _ATTENTION]
        return sum(areas) * self.experts


_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
# The names that model families use for one thing.
_KEYS = {
    "hidden": ("hidden_size", "n_embd", "d_model"),
    "layers": ("num_hidden_layers", "n_layer", "num_layers"),
    "heads": ("num_attention_heads", "n_head"),
    "inner": ("moe_intermediate_size", "intermediate_size", "n_inner", "d_ff"),
    "experts": ("num_experts", "num_local_experts", "n_routed_experts"),
}


def _shape(config: Any) -> _Shape | None:
    """From a hostile or odd file too: None unless every number is there and sensible."""
    if not isinstance(config, Mapping):
        return None
    found = {name: _first(config, keys) for name, keys in _KEYS.items()}
    vocab, hidden, layers = _whole(config.get("vocab_size")), found["hidden"], found["layers"]
    if vocab is None or hidden is None or layers is None:
        return None
    heads = found["heads"] or 1
    width = _whole(config.get("head_dim")) or max(1, hidden // heads)
    queries = width * heads
    keys = width * (_whole(config.get("num_key_value_heads")) or heads)
    inner = found["inner"] or 4 * hidden
    matrices = {
        "q_proj": (hidden, queries),
        "k_proj": (hidden, keys),
        "v_proj": (hidden, keys),
        "o_proj": (queries, hidden),
        "up_proj": (hidden, inner),
        "down_proj": (inner, hidden),
    }
    if "n_embd" not in config and "d_model" not in config:
        matrices["gate_proj"] = (hidden, inner)
    tied = config.get("tie_word_embeddings", "n_embd" in config) is True
    return _Shape(vocab, hidden, layers, matrices, found["experts"] or 1, tied)


def _saves(args: Mapping[str, Any]) -> int | None:
    """How many checkpoints there will be, `final` not counted."""
    if args.get("save_strategy") == "no":
        return 0
    steps, every = _whole(args.get("max_steps")), _whole(args.get("save_steps"))
    if steps is None or every is None or args.get("save_strategy", "steps") != "steps":
        return None
    # The last step is saved as well when it is no multiple.
    return -(-steps // every)


def _at_once(saves: int | None, limit: int | None) -> int | None:
    """On the box: retention deletes an old one after the next was written."""
    if limit is None:
        return saves
    return limit + 1 if saves is None else min(saves, limit + 1)


def _kept(saves: int | None, every: int | None, keep: Keep | None) -> int | None:
    """In the mirror when the run has ended."""
    if keep is None or saves is None:
        return saves if keep is None else (keep.last or 1)
    kept = max(1, keep.last or 0) if keep.best is None else max(keep.last or 0, keep.best_count)
    if keep.every is not None and every is not None:
        kept = max(kept, saves * every // max(keep.every, every))
    return min(saves, kept)


def _first(config: Mapping[Any, Any], names: tuple[str, ...]) -> int | None:
    return next((value for name in names if (value := _whole(config.get(name)))), None)


def _area(size: tuple[int, int]) -> int:
    return size[0] * size[1]


def _whole(value: Any) -> int | None:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 10**9:
        return None
    return value
