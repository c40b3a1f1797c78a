"""Hugging Face's chat templates, compiled as transformers compiles them.

Two things differ. A `generation` block leaves marks around what it says, and the clock stands
still: a template that writes today's date would make other tokens of the same data tomorrow, and
no run could be resumed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from remote.trainer.data.files import RowError
from remote.trainer.problems import TrainError

BEGIN, END = "\ufdd2", "\ufdd3"
# The date that Llama 3's templates write by themselves.
TODAY = datetime(2024, 7, 26, tzinfo=timezone.utc)
# What broken rows make a template raise, besides its own complaints.
_RAISED = (TemplateError, TypeError, ValueError, AttributeError, LookupError, ArithmeticError)


class Jinja:
    """One chat template. `names` are the special tokens' names, which it may write."""

    def __init__(self, source: str, names: Mapping[str, str]) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Marks, loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _complain
        environment.globals["strftime_now"] = TODAY.strftime
        self._names = dict(names)
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            raise TrainError([f"template: is no chat template: {error}"]) from error

    def render(self, messages: Sequence[Mapping[str, Any]], *, prompt: bool = False) -> str:
        """The conversation; with `prompt` the beginning of the assistant's turn too.

        Raises RowError when the template refuses it.
        """
        try:
            return self._template.render(
                messages=messages,
                tools=None,
                documents=None,
                add_generation_prompt=prompt,
                **self._names,
            )
        except _RAISED as error:
            raise RowError(f"the chat template refuses it: {error}") from error


class _Marks(Extension):
    tags = {"generation"}  # noqa: RUF012 - so Jinja wants it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        begin, end = (
            nodes.Output([nodes.TemplateData(mark)], lineno=line) for mark in (BEGIN, END)
        )
        return [begin, *body, end]


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _complain(message: str) -> NoReturn:
    raise TemplateError(message)
