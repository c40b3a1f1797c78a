"""Keeps what a row says apart from what the template writes.

A text that spells a control token (`<|im_end|>`) would be tokenised as one, and could end a turn
and begin another. While a template is rendered such a spelling is replaced by a stand-in, which is
put back as plain text afterwards. Stand-ins are made of Unicode's noncharacters, which no text
has: those of a row are replaced first, as are halves of surrogate pairs, which no tokenizer takes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from remote.trainer.data.draft import Piece, Plain, Span, Text
from remote.trainer.data.shapes import Message

OPEN, CLOSE = "\ufdd0", "\ufdd1"
_FOREIGN = re.compile("[\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
_STAND_IN = re.compile(f"{OPEN}([0-9]+){CLOSE}")


def control_ids(tokenizer: Any, names: Mapping[str, str]) -> frozenset[int]:
    """The control tokens of a `tokenizers.Tokenizer`, without the one for unknown text."""
    added = tokenizer.get_added_tokens_decoder()
    unknown = names.get("unk_token")
    return frozenset(n for n, each in added.items() if each.special and each.content != unknown)


def clean(text: str) -> str:
    """The text without characters that are no text."""
    return text if text.isascii() else _FOREIGN.sub("\ufffd", text)


class Guard:
    """`special` are spellings of control tokens. `written` are further tokens that the template
    writes: an assistant may say them (`<think>`), nobody else."""

    def __init__(self, special: Iterable[str], written: Iterable[str] = ()) -> None:
        strict = _longest_first(special)
        self._spellings = _longest_first([*strict, *written])
        self._numbers = {text: number for number, text in enumerate(self._spellings)}
        self._special = _any_of(strict)
        self._all = _any_of(self._spellings)
        self._first = sorted({text[0] for text in self._spellings})

    def message(self, message: Message) -> Message:
        """The message with stand-ins in all of its texts."""
        if len(message) == 2 and self._harmless(message["content"]):
            return message
        pattern = self._special if message["role"] == "assistant" else self._all
        return {key: self._safe(value, pattern) for key, value in message.items()}

    def _harmless(self, content: str) -> bool:
        """A quick look, which nearly every text passes."""
        for character in self._first:
            if character in content:
                return False
        return content.isascii()

    def pieces(self, text: str, spans: Sequence[Span]) -> tuple[Piece, ...]:
        """A rendered text in pieces: each stand-in is a plain one, the rest stays as it is."""
        if OPEN not in text:
            return (Text(text, tuple(spans)),)
        found: list[Text | Plain] = []
        at = 0
        for match in _STAND_IN.finditer(text):
            found.append(_cut(text, at, match.start(), spans))
            spelling = self._spellings[int(match[1])]
            learned = any(begin <= match.start() < end for begin, end in spans)
            found.append(Plain(spelling, learned))
            at = match.end()
        found.append(_cut(text, at, len(text), spans))
        return tuple(piece for piece in found if piece.text)

    def controls(self, text: str) -> int:
        """How many control tokens are spelled in a rendered text."""
        return sum(1 for _ in self._special.finditer(text)) if self._special else 0

    def first(self, text: str, begin: int, end: int) -> Span | None:
        """The first token there that a template writes."""
        match = self._all.search(text, begin, end) if self._all else None
        return match.span() if match else None

    def last(self, text: str, begin: int, end: int) -> Span | None:
        """The last token there that a template writes."""
        found = [each.span() for each in self._all.finditer(text, begin, end)] if self._all else []
        return found[-1] if found else None

    def _safe(self, value: Any, pattern: re.Pattern[str] | None) -> Any:
        if isinstance(value, str):
            value = clean(value)
            return pattern.sub(self._stand_in, value) if pattern else value
        if isinstance(value, dict):
            return {self._safe(k, pattern): self._safe(v, pattern) for k, v in value.items()}
        if isinstance(value, list):
            return [self._safe(each, pattern) for each in value]
        return value

    def _stand_in(self, match: re.Match[str]) -> str:
        return f"{OPEN}{self._numbers[match[0]]}{CLOSE}"


def _cut(text: str, first: int, end: int, spans: Sequence[Span]) -> Text:
    inside = [(max(a, first) - first, min(b, end) - first) for a, b in spans]
    return Text(text[first:end], tuple((a, b) for a, b in inside if a < b))


def _longest_first(texts: Iterable[str]) -> list[str]:
    return sorted({text for text in texts if text}, key=lambda text: (-len(text), text))


def _any_of(texts: Sequence[str]) -> re.Pattern[str] | None:
    return re.compile("|".join(map(re.escape, texts))) if texts else None
