"""How the agent says no."""

from __future__ import annotations


class Refusal(Exception):
    """An error reply: `kind` is one of not_found, changed, refused, no_space, io."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
