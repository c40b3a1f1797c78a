"""Everything an evaluation asks, read and tokenised before a model is loaded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from remote.trainer.data.encode import Encoder
from remote.trainer.data.files import RowError
from remote.trainer.data.prepare import prepare, recipe_of
from remote.trainer.data.rows import Request, Store
from remote.trainer.data.shapes import Message
from remote.trainer.evaluate import items as questions
from remote.trainer.evaluate import prompts
from remote.trainer.evaluate.items import Columns, Items
from remote.trainer.evaluate.prompts import MAX_PROBLEMS, Prompt
from remote.trainer.evaluate.settings import Evaluation, Sampling
from remote.trainer.problems import TrainError

CACHE = Path(".trainer-cache/data")


@dataclass(frozen=True)
class Asked:
    """`same`: equal for two evaluations that can be compared. `stops` end an answer."""

    store: Store | None
    prompts: tuple[Prompt, ...]
    prompt_ids: tuple[tuple[int, ...], ...]
    items: Items | None
    item_ids: tuple[tuple[int, ...], ...]
    stops: tuple[int, ...]
    pad: int
    same: str


def read(settings: Evaluation, tokenizer: Any, *, vocabulary: int, positions: int | None) -> Asked:
    """Raises TrainError naming key, file and row."""
    encoder = Encoder(recipe_of(_request(settings, (), "data", vocabulary=vocabulary), tokenizer))
    longest = min(settings.max_seq_length, positions or settings.max_seq_length)
    store = _store(settings, tokenizer, vocabulary)
    said, said_ids = _prompts(settings, encoder, longest)
    asked, asked_ids = _items(settings, encoder, longest)
    pad = tokenizer.pad_token_id
    return Asked(
        store=store,
        prompts=tuple(said),
        prompt_ids=said_ids,
        items=asked,
        item_ids=asked_ids,
        stops=tuple({encoder.stop(): 0, int(tokenizer.eos_token_id): 0}),
        pad=int(tokenizer.eos_token_id if pad is None else pad),
        same=_same(settings, store, [*said_ids, *asked_ids], asked),
    )


def _request(
    settings: Evaluation,
    files: tuple[str, ...],
    key: str,
    *,
    vocabulary: int,
    most: int | None = None,
) -> Request:
    return Request(
        files=files,
        kind="chat",
        max_length=settings.max_seq_length,
        template=settings.template,
        cache=CACHE,
        limit=most,
        key=key,
        vocabulary=vocabulary,
    )


def _store(settings: Evaluation, tokenizer: Any, vocabulary: int) -> Store | None:
    given = settings.loss
    if given is None:
        return None
    request = _request(
        settings, given.files, "loss.data", vocabulary=vocabulary, most=given.max_examples
    )
    store = prepare(request, tokenizer)
    if len(store) == 0:
        raise TrainError(["max_seq_length: no example of loss.data has an answer within it"])
    return store


def _prompts(
    settings: Evaluation, encoder: Encoder, longest: int
) -> tuple[list[Prompt], tuple[tuple[int, ...], ...]]:
    given = settings.generate
    if given is None:
        return [], ()
    found = prompts.load(given.files, most=given.max_examples, key="generate.data")
    asked = [(each.source, each.messages) for each in found]
    return found, _tokens(asked, encoder, given.sampling, longest, "generate.data")


def _items(
    settings: Evaluation, encoder: Encoder, longest: int
) -> tuple[Items | None, tuple[tuple[int, ...], ...]]:
    given = settings.socrates
    if given is None:
        return None, ()
    key = "socrates.data"
    found = questions.load(
        given.files, Columns(**given.columns), most=given.max_examples, seed=settings.seed, key=key
    )
    asked = [(each.source, each.prompt) for each in found.asked]
    return found, _tokens(asked, encoder, given.sampling, longest, key)


def _tokens(
    asked: Iterable[tuple[str, Sequence[Message]]],
    encoder: Encoder,
    sampling: Sampling,
    longest: int,
    key: str,
) -> tuple[tuple[int, ...], ...]:
    room = longest - sampling.max_new_tokens
    made: list[tuple[int, ...]] = []
    problems: list[str] = []
    for source, messages in asked:
        try:
            ids = tuple(encoder.prompt(messages))
        except RowError as error:
            problems.append(f"{key}: {source}: {error}")
            continue
        made.append(ids)
        if len(ids) > room:
            problems.append(
                f"{key}: {source}: is {len(ids)} tokens, and {room} are left of {longest}"
                f" (max_seq_length, or the model's positions) for an answer of"
                f" {sampling.max_new_tokens}"
            )
    if problems:
        raise TrainError(problems[:MAX_PROBLEMS])
    return tuple(made)


def _same(
    settings: Evaluation, store: Store | None, ids: Sequence[Sequence[int]], items: Items | None
) -> str:
    """The tokens that go in, the responses they are held to, and how answers are drawn."""
    tasks = [
        asdict(each.sampling) if each else None for each in (settings.generate, settings.socrates)
    ]
    held = [(*i.cell, i.response, i.low, i.high) for i in items.asked] if items else []
    about = [store.fingerprint if store else None, tasks, settings.seed, settings.batch_size]
    return hashlib.sha256(json.dumps([about, ids, held]).encode()).hexdigest()
