"""Names of GPUs."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def suggest(wanted: str, known: Iterable[str]) -> list[str]:
    """Known names that look like `wanted`, best first."""
    return difflib.get_close_matches(wanted, sorted(known), n=3)
