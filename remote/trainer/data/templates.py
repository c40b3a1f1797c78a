"""Which template a run uses, and what it needs of the tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remote.trainer.data.chat_template import ChatTemplate
from remote.trainer.data.draft import Template
from remote.trainer.data.guard import Guard, control_ids
from remote.trainer.data.jinja import Jinja
from remote.trainer.data.yaml_schemas import Reader
from remote.trainer.data.yaml_template import YamlTemplate
from remote.trainer.problems import TrainError

YAML = (".yaml", ".yml")


@dataclass(frozen=True)
class Source:
    """A template's text; `yaml` says that it is one of torchllms and none of Hugging Face."""

    text: str
    yaml: bool


def source(template: Path | None, tokenizer: Any) -> Source:
    """What the settings name, else what the tokenizer brings. Raises TrainError."""
    if template is not None and template.suffix in YAML:
        try:
            return Source(template.read_text(encoding="utf-8"), yaml=True)
        except (OSError, ValueError) as error:
            raise TrainError([f"template: {template}: cannot be read: {error}"]) from error
    try:
        return Source(tokenizer.get_chat_template(), yaml=False)
    except ValueError as error:
        raise TrainError([f"template: the tokenizer brings no chat template: {error}"]) from error


def make(given: Source, tokenizer: Any, names: Mapping[str, str]) -> Template:
    """The template, ready for conversations. `tokenizer` is a `tokenizers.Tokenizer`, `names` are
    the special tokens by their names. Raises TrainError."""

    def ids(text: str) -> tuple[int, ...]:
        return tuple(tokenizer.encode(text, add_special_tokens=False).ids)

    def count(text: str) -> int:
        return sum(map(controls.__contains__, ids(text)))

    controls = control_ids(tokenizer, names)
    if given.yaml:
        size = tokenizer.get_vocab_size(with_added_tokens=True)
        return YamlTemplate(Reader(ids, controls, size).read(given.text), controls)
    added = tokenizer.get_added_tokens_decoder().values()
    guard = Guard([each.content for each in added if each.special], written(given, tokenizer))
    return ChatTemplate(Jinja(given.text, names), guard, count)


def written(given: Source, tokenizer: Any) -> list[str]:
    """Tokens that the template writes and that the tokenizer does not call special, such as
    `<tool_response>`. Runs of white space are none: they are tokens in places, and harmless."""
    added = tokenizer.get_added_tokens_decoder().values()
    plain = [each.content for each in added if not each.special and each.content.strip()]
    return [text for text in plain if text in given.text]
