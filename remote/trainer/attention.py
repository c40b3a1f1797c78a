"""Attention over sequences laid end to end: each sees itself alone, and nothing is padded.

The fastest exact way is taken: torch's variable-length flash attention on a GPU, else SDPA over
sequences padded within the attention only (causality keeps the padding out), else one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from remote.trainer.problems import TrainError

varlen_attn: Any
try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # torch before 2.10
    varlen_attn = None
_WORDS = {"scale", "window_size", "enable_gqa"}
if varlen_attn is not None and not set(signature(varlen_attn).parameters) >= _WORDS:
    varlen_attn = None  # a first version of it

NAME = "segments"
FLASH_DIM = 256  # the largest head of the flash kernels (flash-attention's README)
FLASH_SINCE = (8, 0)  # Ampere, the first GPU they are for
WASTE = 2  # padded tokens a real one, above which sequences are taken one by one
# What some models add to attention, and neither SDPA nor flash attention would.
_MORE = ("s_aux", "sinks", "softcap", "indices", "block_indices")
_UNSAID = -1


@dataclass(frozen=True)
class Segments:
    """Where the sequences of a flat batch end, and how they are padded when they have to be."""

    bounds: Tensor
    lengths: tuple[int, ...]

    @property
    def longest(self) -> int:
        return max(self.lengths)

    @property
    def even(self) -> bool:
        return min(self.lengths) == self.longest

    @property
    def wasteful(self) -> bool:
        return len(self.lengths) * self.longest > WASTE * sum(self.lengths)

    @cached_property
    def grid(self) -> Tensor:
        """The flat position of each padded one; padding points at the first token."""
        steps = torch.arange(self.longest, device=self.bounds.device)
        begins, ends = self.bounds[:-1].long(), self.bounds[1:].long()
        places = begins[:, None] + steps
        return torch.where(places < ends[:, None], places, 0)

    @cached_property
    def back(self) -> Tensor:
        """The padded position of each flat one."""
        rows = torch.repeat_interleave(
            torch.arange(len(self.lengths), device=self.bounds.device),
            self.bounds.diff().long(),
            output_size=sum(self.lengths),
        )
        within = torch.arange(len(rows), device=rows.device) - self.bounds[:-1].long()[rows]
        return rows * self.longest + within


def no_mask(device: torch.device) -> Tensor:
    """A mask that transformers takes for one made ready, and makes none: segments replace it."""
    return torch.empty(1, 1, 0, 0, device=device)


def segments_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    segments: Segments | None = None,
    sliding_window: int | None = _UNSAID,
    **rest: Any,
) -> tuple[Tensor, None]:
    """What transformers calls in each layer; without segments it is transformers' own SDPA.

    Raises TrainError when the layer asks for more than is done here.
    """
    _refuse_more(module, rest, _MORE)
    if segments is None:
        if attention_mask is not None and attention_mask.shape[-1] == 0:
            raise TrainError([_not_ours(module, "is not told where sequences end")])
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **rest
        )
    _refuse_more(module, rest, ("position_bias",))
    if sliding_window == _UNSAID:
        _refuse_masked_window(module)
        sliding_window = None
    if sliding_window is not None and sliding_window >= segments.longest:
        sliding_window = None
    if _can_flash(query, value, dropout):
        return _flash(query, key, value, segments, scaling, sliding_window), None
    groups = query.shape[1] // key.shape[1]
    heads = (query, repeat_kv(key, groups), repeat_kv(value, groups))
    if segments.wasteful:
        return _one_by_one(heads, segments, dropout, scaling, sliding_window), None
    return _padded(heads, segments, dropout, scaling, sliding_window), None


def _refuse_more(module: torch.nn.Module, rest: Mapping[str, Any], names: Iterable[str]) -> None:
    asked = [name for name in names if rest.get(name) is not None]
    if asked:
        raise TrainError([_not_ours(module, f"has {asked[0]}")])


def _refuse_masked_window(module: torch.nn.Module) -> None:
    """A layer that names none may have it in its mask, which segments replace."""
    config = getattr(module, "config", None)
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"]
    if getattr(config, "sliding_window", None) is not None and "sliding_attention" in kinds:
        raise TrainError([_not_ours(module, "has its sliding window in the mask")])


def _not_ours(module: torch.nn.Module, what: str) -> str:
    return (
        f"model: {type(module).__name__} {what}, so sequences cannot be laid end to end;"
        " args.attn_implementation: eager pads them"
    )


def _can_flash(query: Tensor, value: Tensor, dropout: float) -> bool:
    if varlen_attn is None or dropout or not query.is_cuda:
        return False
    half = query.dtype in (torch.bfloat16, torch.float16)
    return half and suits_flash(query.shape[-1], value.shape[-1]) and _has_flash(query.device)


def suits_flash(query_dim: int, value_dim: int) -> bool:
    """Whether the kernels know heads of this size: multiples of 8 up to 256, the values' as the
    queries' (latent attention has others)."""
    return query_dim == value_dim <= FLASH_DIM and query_dim % 8 == 0


@cache
def _has_flash(device: torch.device) -> bool:
    return torch.cuda.get_device_capability(device) >= FLASH_SINCE


def _flash(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    segments: Segments,
    scaling: float | None,
    window: int | None,
) -> Tensor:
    flat = (each.squeeze(0).transpose(0, 1) for each in (query, key, value))
    bounds, longest = segments.bounds, segments.longest
    out = varlen_attn(
        *flat,
        bounds,
        bounds,
        longest,
        longest,
        scale=scaling,
        window_size=(-1 if window is None else window - 1, 0),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return out.unsqueeze(0)


def _padded(
    heads: tuple[Tensor, ...],
    segments: Segments,
    dropout: float,
    scaling: float | None,
    window: int | None,
) -> Tensor:
    count, longest = len(segments.lengths), segments.longest
    if segments.even:
        rows = [each.squeeze(0).unflatten(1, (count, longest)).transpose(0, 1) for each in heads]
    else:
        rows = [each.squeeze(0)[:, segments.grid].transpose(0, 1) for each in heads]
    out = _causal(rows, dropout, scaling, window).transpose(1, 2).flatten(0, 1)
    return (out if segments.even else out[segments.back]).unsqueeze(0)


def _one_by_one(
    heads: tuple[Tensor, ...],
    segments: Segments,
    dropout: float,
    scaling: float | None,
    window: int | None,
) -> Tensor:
    parts = zip(*(each.split(segments.lengths, dim=2) for each in heads), strict=True)
    done = [_causal(part, dropout, scaling, window) for part in parts]
    return torch.cat(done, dim=2).transpose(1, 2)


def _causal(heads: Any, dropout: float, scaling: float | None, window: int | None) -> Tensor:
    query, key, value = heads
    length = query.shape[2]
    if window is None or window >= length:
        return scaled_dot_product_attention(
            query, key, value, dropout_p=dropout, is_causal=True, scale=scaling
        )
    at = torch.arange(length, device=query.device)
    behind = at[:, None] - at[None, :]
    return scaled_dot_product_attention(
        query, key, value, (behind >= 0) & (behind < window), dropout_p=dropout, scale=scaling
    )


AttentionInterface.register(NAME, segments_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
