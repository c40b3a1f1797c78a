"""A model's own generation settings, put away while it has to say what its weights say."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from transformers import GenerationConfig


@contextlib.contextmanager
def without_habits(lm: Any) -> Iterator[None]:
    """While it lasts, `generate` does what it is told and nothing else.

    What it is not told it takes from the model: a repetition penalty there, say, changes what is
    sampled from, and so what is measured, or what the log-probabilities are of.
    """
    inner = lm.get_base_model() if hasattr(lm, "get_base_model") else lm
    own = inner.generation_config
    inner.generation_config = GenerationConfig()
    try:
        yield
    finally:
        inner.generation_config = own
