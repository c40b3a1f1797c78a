"""What a template makes of a conversation, before it is tokenised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from remote.trainer.data.shapes import Message

Span = tuple[int, int]


class Text(NamedTuple):
    """Text in which the tokenizer may see control tokens; characters in `spans` are learned."""

    text: str
    spans: tuple[Span, ...] = ()


class Plain(NamedTuple):
    """Text in which nothing is a control token, whatever it spells; when `strict`, none of the
    other tokens that a template writes (`<tool_response>`) either."""

    text: str
    learned: bool
    strict: bool = True


class Ids(NamedTuple):
    """Tokens that are tokens already."""

    ids: tuple[int, ...]
    learned: bool


Piece = Text | Plain | Ids


class Draft(NamedTuple):
    """Pieces in order. `controls` is how many control tokens the template wrote."""

    pieces: tuple[Piece, ...]
    controls: int


class Template(Protocol):
    """Raises RowError for a conversation that it cannot put into words."""

    def conversation(self, messages: Sequence[Message], learned_from: int) -> Draft:
        """All of it; the assistant's turns from message `learned_from` on are learned, each with
        the token that ends it."""

    def prompt(self, messages: Sequence[Message]) -> Draft:
        """All of it and the beginning of the assistant's turn, for generation."""
