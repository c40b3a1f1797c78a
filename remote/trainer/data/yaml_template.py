"""Conversations in the YAML templates of torchllms.

What a row says is tokenised apart from what the template writes, with no control tokens in it.
The end of the assistant's turn is learned in both schemas; torchllms itself left it out in the
second.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

from remote.trainer.data.draft import Draft, Ids, Piece, Plain
from remote.trainer.data.files import RowError
from remote.trainer.data.guard import clean
from remote.trainer.data.shapes import Message
from remote.trainer.data.yaml_schemas import Rules, Wrapper


class _Fragment(NamedTuple):
    """A part of a message in a wrapper of its own."""

    name: str
    content: str
    learned: bool
    assistant: bool


class YamlTemplate:
    """Implements `Template`."""

    def __init__(self, rules: Rules, controls: Collection[int]) -> None:
        self._rules, self._controls = rules, controls

    def conversation(self, messages: Sequence[Message], learned_from: int) -> Draft:
        return self._draft(self._pieces(messages, learned_from, last=len(messages) - 1))

    def prompt(self, messages: Sequence[Message]) -> Draft:
        pieces = self._pieces(messages, len(messages), last=len(messages))
        return self._draft([*pieces, Ids(self._rules.suffix, False)])

    def _draft(self, pieces: Sequence[Piece]) -> Draft:
        kept = tuple(each for each in pieces if each[0])
        ids = [token for each in kept if isinstance(each, Ids) for token in each.ids]
        return Draft(kept, sum(map(self._controls.__contains__, ids)))

    def _pieces(self, messages: Sequence[Message], learned_from: int, *, last: int) -> list[Piece]:
        """`last`: the number of the turn that a generation would be of."""
        fragments = list(self._fragments(messages, learned_from, last))
        pieces: list[Piece] = [Ids(self._rules.bos, False)]
        merged = False
        for at, fragment in enumerate(fragments):
            wrapper = self._wrapper(fragment.name)
            after = fragments[at + 1].name if at + 1 < len(fragments) else None
            merges = after in wrapper.merge_with
            pieces += self._opening(fragment, wrapper, merged=merged)
            pieces += self._closing(fragment, wrapper, merges=merges)
            merged = merges
        return pieces

    def _opening(self, fragment: _Fragment, wrapper: Wrapper, *, merged: bool) -> list[Piece]:
        """Up to and with the words. An empty reasoning may be the prompt's already."""
        if self._rules.opened and fragment.name == "reasoning" and not fragment.content:
            return [Ids(self._rules.suffix, False)]
        content = clean(fragment.content.strip() if self._rules.strip else fragment.content)
        return [
            Ids(() if merged else wrapper.start, False),
            Ids(wrapper.inner_start, fragment.learned),
            Plain(content, fragment.learned, strict=not fragment.assistant),
        ]

    def _closing(self, fragment: _Fragment, wrapper: Wrapper, *, merges: bool) -> list[Piece]:
        opened = self._rules.opened and fragment.name == "reasoning" and not fragment.content
        inner = Ids(() if opened else wrapper.inner_end, fragment.learned)
        if merges:
            return [inner, Ids(wrapper.separator, fragment.learned)]
        said, left = wrapper.end[: wrapper.learned_end], wrapper.end[wrapper.learned_end :]
        return [inner, Ids(said, fragment.learned), Ids(left, False)]

    def _fragments(
        self, messages: Sequence[Message], learned_from: int, last: int
    ) -> Iterator[_Fragment]:
        asked = max((n for n, each in enumerate(messages) if each["role"] == "user"), default=-1)
        for number, message in enumerate(messages):
            role = "system" if message["role"] == "developer" else message["role"]
            if role != "assistant":
                yield _Fragment(role, message["content"], learned=False, assistant=False)
                continue
            forget = self._rules.forget_reasoning and number < asked
            inject = self._rules.inject_reasoning and number == last
            for name, content in _said(message, forget=forget, inject=inject):
                yield _Fragment(name, content, learned=number >= learned_from, assistant=True)

    def _wrapper(self, name: str) -> Wrapper:
        try:
            return self._rules.wrappers[name]
        except KeyError:
            raise RowError(f"the template writes nothing for {name}") from None


def _said(message: Message, *, forget: bool, inject: bool) -> Iterator[tuple[str, str]]:
    """What an assistant thinks, then what it calls, then what it says."""
    reasoning = "" if forget else message.get("reasoning_content") or ""
    calls = message.get("tool_calls") or []
    if reasoning or inject:
        yield "reasoning", reasoning
    for call in calls:
        yield "tool_call", _call(call)
    if message["content"] or not (reasoning or inject or calls):
        yield "assistant", message["content"]


def _call(call: Any) -> str:
    """A call as JSON; arguments that are a text already stay as they are."""
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise RowError("a tool call has no function with a name")
    arguments = function.get("arguments") or "{}"
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False, separators=(",", ":"))
    name = json.dumps(function["name"], ensure_ascii=False)
    return f'{{"name": {name}, "arguments": {arguments}}}'
