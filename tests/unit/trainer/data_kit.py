"""What the tests of the data share: a tokenizer with control tokens, and files of rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from remote.trainer.data.encode import Encoder, Recipe
from remote.trainer.data.prepare import prepare, recipe_of
from remote.trainer.data.rows import Request, Store

CHATML = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
SPECIAL = ("<unk>", "<bos>", "<|im_start|>", "<|im_end|>", "<eos>")
ORDINARY = ("<think>", "</think>", "<tool_response>", "</tool_response>")
TEXT = "the quick brown fox jumps over a lazy dog and sleeps user assistant system tool\n" * 5


def tokenizer(template: str = CHATML, *, special: Sequence[str] = SPECIAL) -> Any:
    """A byte-level tokenizer of a few hundred tokens."""
    pairs = Tokenizer(models.BPE())
    pairs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pairs.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=list(special),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    pairs.train_from_iterator([TEXT], trainer)
    pairs.add_tokens([AddedToken(text, special=False, normalized=False) for text in ORDINARY])
    made = PreTrainedTokenizerFast(
        tokenizer_object=pairs,
        unk_token="<unk>",
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<eos>",
    )
    made.chat_template = template
    return made


def recipe(template: str = CHATML, *, kind: Any = "chat", **changes: Any) -> Recipe:
    request = Request(files=(), kind=kind, max_length=512, template=None, cache=Path(), **changes)
    return recipe_of(request, tokenizer(template))


def learned(encoder: Encoder, row: dict[str, Any], made: Any) -> list[tuple[str, list[str]]]:
    """For each part the whole text, and the learned stretches of it."""
    found = []
    drafts = encoder._drafts(row)
    ready = encoder._encodings(drafts)
    for draft in drafts:
        ids, spans = encoder._tokens(draft, ready)
        found.append((made.decode(ids), [made.decode(ids[a:b]) for a, b in spans]))
    return found


def chat(*contents: str, system: str | None = None) -> list[dict[str, str]]:
    """A conversation whose contents are the user's and the assistant's in turn."""
    roles = ("user", "assistant")
    said = [{"role": roles[n % 2], "content": text} for n, text in enumerate(contents)]
    return said if system is None else [{"role": "system", "content": system}, *said]


def jsonl(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def parquet(path: Path, rows: Sequence[dict[str, Any]], **options: Any) -> Path:
    pq.write_table(pa.Table.from_pylist(list(rows)), path, **options)
    return path


def unchecked(*values: bytes) -> pa.Array:
    """A column of texts that arrow was told are UTF-8."""
    return pa.StringArray.from_buffers(len(values), *pa.array(values, pa.binary()).buffers()[1:])


def stored(folder: Path, *files: Path, made: Any = None, **changes: Any) -> Store:
    """The files prepared with defaults, `changes` to the request apart."""
    given = {"kind": "chat", "max_length": 512, "template": None, **changes}
    request = Request(files=tuple(map(str, files)), cache=folder / "cache", **given)
    return prepare(request, made or tokenizer())
