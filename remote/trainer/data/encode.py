"""Rows to tokens: what a worker does with a block, and what generation needs of a prompt."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from remote.trainer.data.draft import Draft, Ids, Plain, Span, Text
from remote.trainer.data.files import Block, RowError, rows
from remote.trainer.data.guard import control_ids
from remote.trainer.data.rows import PARTS, Kind
from remote.trainer.data.shapes import Message, conversations
from remote.trainer.data.templates import Source, make, written
from remote.trainer.problems import TrainError

LEARNED = np.uint32(1 << 31)  # the bit of a stored token that says whether it is learned
MAX_PROBLEMS = 20


@dataclass(frozen=True)
class Recipe:
    """All that decides which tokens a row becomes, in a form that another process can take."""

    tokenizer: str
    names: Mapping[str, str]
    source: Source
    kind: Kind
    max_length: int
    vocabulary: int | None


@dataclass(frozen=True)
class Part:
    """What became of a block. `tokens` of all kept rows end to end, with the bit LEARNED;
    `lengths` and `counts` (learned) by row and part; `numbers` the kept rows' in their file."""

    tokens: npt.NDArray[np.uint32]
    lengths: npt.NDArray[np.int32]
    counts: npt.NDArray[np.int32]
    numbers: npt.NDArray[np.uint32]
    read: int
    truncated: int
    problems: tuple[str, ...]


class Encoder:
    """Raises TrainError when tokenizer and template do not belong together."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._tokenizer = _loaded(recipe.tokenizer)
        others = written(recipe.source, self._tokenizer)
        self._blind = _blind(recipe.tokenizer)
        self._strict = _blind(recipe.tokenizer, others) if others else self._blind
        self._controls = control_ids(self._tokenizer, recipe.names)
        self._template = make(recipe.source, self._tokenizer, recipe.names)

    def block(self, block: Block) -> Part:
        """All rows of a block. Never raises for what is in it: those are its problems."""
        made = _Making(self._recipe)
        waiting: list[tuple[int, list[Draft]]] = []
        for number, row in rows(block):
            made.read += 1
            try:
                waiting.append((number, self._drafts(row)))
            except RowError as error:
                made.problem(number, error)
        ready = self._encodings([draft for _, drafts in waiting for draft in drafts])
        for number, drafts in waiting:
            try:
                made.add(number, [self._tokens(draft, ready) for draft in drafts])
            except RowError as error:
                made.problem(number, error)
        return made.part()

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """The tokens that a model goes on from. Raises RowError."""
        draft = self._template.prompt(messages)
        return self._tokens(draft, self._encodings([draft]))[0]

    def stop(self) -> int:
        """The token that ends an assistant's turn. Raises TrainError when there is none."""
        said: list[Message] = [
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": "Hello"},
        ]
        try:
            draft = self._template.conversation(said, 1)
        except RowError as error:
            raise TrainError([f"template: {error}"]) from error
        ids, spans = self._tokens(draft, self._encodings([draft]))
        learned = [token for begin, end in spans for token in ids[begin:end]]
        stops = [token for token in learned if token in self._controls]
        return stops[-1] if stops else learned[-1]

    def _drafts(self, row: Any) -> list[Draft]:
        if isinstance(row, RowError):
            raise row
        return [
            self._template.conversation(each.messages, each.learned_from)
            for each in conversations(row, self._recipe.kind)
        ]

    def _encodings(self, drafts: Sequence[Draft]) -> dict[int, Any]:
        """Each piece's encoding, by the piece's identity: in batches it is much faster."""
        ready: dict[int, Any] = {}
        by_tokenizer: tuple[list[Text | Plain], ...] = ([], [], [])
        for draft in drafts:
            for piece in draft.pieces:
                if isinstance(piece, Text):
                    by_tokenizer[0].append(piece)
                elif isinstance(piece, Plain):
                    by_tokenizer[1 + piece.strict].append(piece)
        tokenizers = (self._tokenizer, self._blind, self._strict)
        for tokenizer, pieces in zip(tokenizers, by_tokenizer, strict=True):
            texts = [piece.text for piece in pieces]
            encoded = tokenizer.encode_batch(texts, add_special_tokens=False)
            ready.update(zip(map(id, pieces), encoded, strict=True))
        return ready

    def _tokens(self, draft: Draft, ready: Mapping[int, Any]) -> tuple[list[int], list[Span]]:
        """A draft's tokens, and which of them are learned."""
        ids: list[int] = []
        spans: list[Span] = []
        for piece in draft.pieces:
            at = len(ids)
            if isinstance(piece, Ids):
                ids += piece.ids
                spans += [(at, len(ids))] if piece.learned else []
                continue
            encoding = ready[id(piece)]
            if isinstance(piece, Plain):
                ids += encoding.ids
                spans += [(at, len(ids))] if piece.learned else []
                continue
            found = [_within(encoding, piece.text, span) for span in piece.spans]
            if None in found:
                return self._tokens(*self._split(draft, piece))
            ids += encoding.ids
            spans += [(at + a, at + b) for a, b in found if a < b]  # type: ignore[misc]
        self._check(draft, ids)
        return ids, spans

    def _split(self, draft: Draft, piece: Text) -> tuple[Draft, Mapping[int, Any]]:
        """A token reaches over the beginning of a turn, which a model that generates never sees:
        there the text is tokenised in two."""
        at = draft.pieces.index(piece)
        cuts = [0, *(begin for begin, _ in piece.spans if begin), len(piece.text)]
        parts = [_cut(piece, a, b) for a, b in pairwise(cuts)]
        again = draft._replace(pieces=(*draft.pieces[:at], *parts, *draft.pieces[at + 1 :]))
        return again, self._encodings([again])

    def _check(self, draft: Draft, ids: Sequence[int]) -> None:
        seen = sum(map(self._controls.__contains__, ids))
        if seen != draft.controls:
            raise RowError(
                f"is tokenised to {seen} control tokens and the template writes {draft.controls}:"
                " a text in it looks like one to this tokenizer"
            )
        known = self._recipe.vocabulary
        if known is not None and ids and max(ids) >= known:
            raise RowError(
                f"has token {max(ids)} and the model knows {known}: tokenizer and model do not"
                " belong together"
            )


class _Making:
    """Gathers the rows of a block."""

    def __init__(self, recipe: Recipe) -> None:
        self._longest, self._parts = recipe.max_length, PARTS[recipe.kind]
        self.read = self.truncated = 0
        self._ids: list[int] = []
        self._spans: list[Span] = []
        self._lengths: list[int] = []
        self._counts: list[int] = []
        self._numbers: list[int] = []
        self._problems: list[str] = []

    def problem(self, number: int, error: RowError) -> None:
        if len(self._problems) < MAX_PROBLEMS:
            self._problems.append(f"row {number}: {error}")

    def add(self, number: int, parts: list[tuple[list[int], list[Span]]]) -> None:
        """Keep a row, cut to the longest length, unless a part of it has nothing to learn."""
        longest = self._longest
        self.truncated += any(len(ids) > longest for ids, _ in parts)
        # The first token has nothing before it that it could be learned from.
        cut = [
            (ids[:longest], [(max(a, 1), min(b, longest)) for a, b in spans])
            for ids, spans in parts
        ]
        counts = [sum(max(0, b - a) for a, b in spans) for _, spans in cut]
        if not all(counts):
            return
        for ids, spans in cut:
            at = len(self._ids)
            self._ids += ids
            self._spans += [(at + a, at + b) for a, b in spans if a < b]
            self._lengths.append(len(ids))
        self._counts += counts
        self._numbers.append(number)

    def part(self) -> Part:
        tokens = np.asarray(self._ids, dtype=np.uint32)
        begins, ends = np.asarray(self._spans, dtype=np.int64).reshape(-1, 2).T
        edges = np.zeros(len(tokens) + 1, dtype=np.int32)
        np.add.at(edges, begins, 1)
        np.add.at(edges, ends, -1)
        tokens[np.cumsum(edges[:-1]) > 0] |= LEARNED
        return Part(
            tokens=tokens,
            lengths=np.asarray(self._lengths, dtype=np.int32).reshape(-1, self._parts),
            counts=np.asarray(self._counts, dtype=np.int32).reshape(-1, self._parts),
            numbers=np.asarray(self._numbers, dtype=np.uint32),
            read=self.read,
            truncated=self.truncated,
            problems=tuple(self._problems),
        )


def _loaded(text: str) -> Any:
    tokenizer = Tokenizer.from_str(text)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _blind(text: str, others: Sequence[str] = ()) -> Any:
    """The tokenizer, taking control tokens' spellings, and those of `others`, for plain text."""
    if others:
        record = json.loads(text)
        for added in record["added_tokens"]:
            added["special"] |= added["content"] in others
        text = json.dumps(record)
    tokenizer = _loaded(text)
    tokenizer.encode_special_tokens = True
    return tokenizer


def _within(encoding: Any, text: str, span: Span) -> Span | None:
    """The tokens of a span of characters; None when a token reaches over its beginning."""
    begin, end = span
    first = encoding.char_to_token(begin)
    if first is None:  # white space that the tokenizer gives to no token
        first = _token_from(encoding, text, begin)
    elif encoding.token_to_chars(first)[0] < begin:
        return None
    return first, _token_from(encoding, text, end)


def _token_from(encoding: Any, text: str, at: int) -> int:
    """The first token that begins at this character or after it."""
    while at < len(text):
        token = encoding.char_to_token(at)
        if token is not None:
            return int(token)
        at += 1
    return len(encoding.ids)


def _cut(piece: Text, first: int, end: int) -> Text:
    inside = [(max(a, first) - first, min(b, end) - first) for a, b in piece.spans]
    return Text(piece.text[first:end], tuple((a, b) for a, b in inside if a < b))
