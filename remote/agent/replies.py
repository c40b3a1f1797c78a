"""How the agent says no."""

from __future__ import annotations

from typing import Sequence, Tuple


class Refusal(Exception):
    """An error reply: `kind` is one of not_found, changed, refused, no_space, io; `need` is what
    has to be sent again."""

    def __init__(self, kind: str, message: str, need: Sequence[Tuple[str, int]] = ()) -> None:
        super().__init__(message)
        self.kind = kind
        self.need = need
