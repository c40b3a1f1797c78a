"""Our names for GPUs: `A100-80GB-SXM`, `H100-80GB-PCIe`, `RTX4090`. A job may write less than that,
in any case: A100, a100-sxm, H100-80GB, 4090."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

from orchestrator.core.offer import ANY_GPU

# What vendors write (reference/runpod.md §1.5, reference/thunder.md §1.3) where a rule would miss.
# In small letters they are Thunder's, to whom `a100` is the one with 40 GB.
_VENDORS: Mapping[str, str] = {
    "NVIDIA A100 80GB PCIe": "A100-80GB-PCIe",
    "NVIDIA A100-SXM4-80GB": "A100-80GB-SXM",
    "NVIDIA A100-SXM4-40GB": "A100-40GB-SXM",
    "NVIDIA H100 80GB HBM3": "H100-80GB-SXM",
    "NVIDIA H100 PCIe": "H100-80GB-PCIe",
    "NVIDIA H100 NVL": "H100-94GB-NVL",
    "a100xl": "A100-80GB",
    "a100": "A100-40GB",
    "h100": "H100-80GB",
    "a6000": "RTXA6000",
}
_NOISE = {"NVIDIA", "GEFORCE", "TESLA", "AMD", "INSTINCT", "GENERATION"}
_SLICE = re.compile(r"(?P<whole>.+?) MIG (?P<size>\S+)")


def canonical(vendor: str) -> str:
    """Our name for a vendor's: letters, digits, dots and dashes, whatever the vendor says."""
    known = _VENDORS.get(vendor)
    if known:
        return known
    part = _SLICE.fullmatch(vendor)
    if part and part["whole"] in _VENDORS:
        return f"{_VENDORS[part['whole']]}-MIG-{'-'.join(_split(part['size']))}"
    text = "-".join(_split(vendor))
    return text.upper() if text.islower() else text


def fits(wanted: str, offered: str) -> bool:
    """Whether a GPU named `offered` is what `wanted` asks for: every word of it is there, and the
    first is its first. A slice of a GPU (MIG) only when that is asked for."""
    have = _words(offered)
    sliced = "MIG" in have
    if wanted == ANY_GPU:
        return not sliced
    want = _words(wanted)
    if sliced != ("MIG" in want) or not want or not have or not _same(want[0], have[0]):
        return False
    return all(any(_same(word, other) for other in have) for word in want)


def suggest(wanted: str, known: Iterable[str]) -> list[str]:
    """Known names that look like `wanted`, best first."""
    by_look = {name.lower(): name for name in sorted(known)}
    close = difflib.get_close_matches(wanted.lower(), by_look, n=3, cutoff=0.5)
    return [by_look[each] for each in close]


@lru_cache(maxsize=4096)
def _words(name: str) -> list[str]:
    return [re.sub(r"SXM\d", "SXM", word.upper()) for word in _split(name)]


def _split(name: str) -> list[str]:
    """The words that tell one GPU from another; `RTX 4090` is one of them."""
    words = [word for word in re.findall(r"[A-Za-z0-9.]+", name) if word.upper() not in _NOISE]
    if len(words) > 1 and words[0].upper() == "RTX" and re.match(r"[Aa]?\d", words[1]):
        return [words[0] + words[1], *words[2:]]
    return words


def _same(wanted: str, offered: str) -> bool:
    return offered in (wanted, f"RTX{wanted}")
