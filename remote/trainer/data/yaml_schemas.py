"""The YAML templates of torchllms, in both of their schemas, read into one form.

The first (until 2025) gives tokens by number: `bos`, and `<role>_start` and `<role>_end` for each
role. The second gives texts: an envelope and an inner wrapper a role, which roles share an
envelope, and what a prompt ends with.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from remote.trainer.problems import Problems, TrainError

Tokens = tuple[int, ...]

_FIRST_ROLES = ("system", "user", "assistant", "tool")
_SECOND_ROLES = (*_FIRST_ROLES, "reasoning", "tool_call")
_TEXTS = ("envelope_start", "inner_start", "inner_end", "envelope_end", "merge_separator")
_STRIP, _FORGET, _INJECT = (
    "strip_whitespace",
    "strip_reasoning_from_prior_turns",
    "inject_empty_reasoning_for_last_turn",
)


@dataclass(frozen=True)
class Wrapper:
    """What is written around one role's words. `learned_end`: how many tokens of `end` an
    assistant has to say itself."""

    start: Tokens = ()
    inner_start: Tokens = ()
    inner_end: Tokens = ()
    end: Tokens = ()
    learned_end: int = 0
    separator: Tokens = ()
    merge_with: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rules:
    """A whole template. `suffix` is what a prompt for generation ends with; `opened` says that it
    holds an empty reasoning too."""

    bos: Tokens
    wrappers: Mapping[str, Wrapper]
    suffix: Tokens
    opened: bool = False
    strip: bool = False
    forget_reasoning: bool = False
    inject_reasoning: bool = False


@dataclass(frozen=True)
class Reader:
    """`encode` makes tokens of what the template writes; `size` is how many there are."""

    encode: Callable[[str], Tokens]
    controls: Collection[int]
    size: int
    problems: Problems = field(default_factory=Problems)

    def read(self, text: str) -> Rules:
        """The template's rules. Raises TrainError with all that is wrong with it."""
        try:
            record = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise TrainError([f"template: is not YAML: {error}"]) from error
        if not isinstance(record, dict):
            raise TrainError(["template: must be a mapping, one of torchllms' templates"])
        rules = self._second(record) if "roles" in record else self._first(record)
        assistant = rules.wrappers.get("assistant")
        if assistant is None or not assistant.end:
            self.problems.add(
                "template: nothing ends the assistant's turn, so the model would never learn to"
                " stop"
            )
        self.problems.raise_if_any()
        return rules

    def _first(self, record: Mapping[str, Any]) -> Rules:
        ends = [f"{role}_{end}" for role in _FIRST_ROLES for end in ("start", "end")]
        self.problems.unknown(record, ("bos", *ends, _STRIP), "template: ")
        wrappers = {}
        for role in _FIRST_ROLES:
            start, end = (self._numbers(record, f"{role}_{each}") for each in ("start", "end"))
            if start or end:
                wrappers[role] = Wrapper(start=start, end=end, learned_end=len(end))
        suffix = wrappers["assistant"].start if "assistant" in wrappers else ()
        strip = self._flag(record, _STRIP, default=False)
        return Rules(self._numbers(record, "bos"), wrappers, suffix, strip=strip)

    def _second(self, record: Mapping[str, Any]) -> Rules:
        known = ("bos", "roles", _STRIP, _FORGET, _INJECT)
        extra = ("generation_prompt_suffix", "stop_token_ids")
        self.problems.unknown(record, (*known, *extra), "template: ")
        stops = self._numbers(record, "stop_token_ids")
        roles = self.problems.mapping(record, "roles")
        self.problems.unknown(roles, _SECOND_ROLES, "template: roles.")
        wrappers = {
            role: self._wrapper(roles, role, stops) for role in _SECOND_ROLES if role in roles
        }
        suffix = self._text(record, "generation_prompt_suffix", "")
        return Rules(
            bos=self.encode(self._text(record, "bos", "")),
            wrappers=wrappers,
            suffix=self.encode(suffix) if suffix else _start(wrappers),
            opened=bool(suffix) and suffix == _empty_reasoning(roles),
            strip=self._flag(record, _STRIP, default=True),
            forget_reasoning=self._flag(record, _FORGET, default=True),
            inject_reasoning=self._flag(record, _INJECT, default=False),
        )

    def _wrapper(self, roles: Mapping[str, Any], role: str, stops: Tokens) -> Wrapper:
        given = self.problems.mapping(roles, role)
        prefix = f"roles.{role}."
        self.problems.unknown(given, (*_TEXTS, "merge_with"), f"template: {prefix}")
        start, inner_start, inner_end, end, separator = (
            self.encode(self._text(given, key, prefix)) for key in _TEXTS
        )
        merge_with = self.problems.texts(given, "merge_with", f"template: {prefix}")
        learned = _learned_end(end, stops, self.controls)
        return Wrapper(start, inner_start, inner_end, end, learned, separator, merge_with)

    def _text(self, record: Mapping[str, Any], key: str, prefix: str) -> str:
        value = record.get(key, "")
        if not isinstance(value, str):
            self.problems.add(f"template: {prefix}{key}: must be a text")
            return ""
        return value

    def _flag(self, record: Mapping[str, Any], key: str, *, default: bool) -> bool:
        return self.problems.flag(record, key, "template: ") if key in record else default

    def _numbers(self, record: Mapping[str, Any], key: str) -> Tokens:
        value = record.get(key) or []
        if not isinstance(value, list) or any(type(each) is not int for each in value):
            self.problems.add(f"template: {key}: must be a list of token numbers")
            return ()
        wrong = [each for each in value if not 0 <= each < self.size]
        if wrong:
            self.problems.add(
                f"template: {key}: the tokenizer has no token {wrong[0]}, it knows {self.size};"
                " the template is another model's"
            )
        return tuple(value)


def _learned_end(end: Tokens, stops: Tokens, controls: Collection[int]) -> int:
    """Up to the token that stops a generation; all of it when none does."""
    for known in (stops, controls):
        for at, token in enumerate(end):
            if token in known:
                return at + 1
    return len(end)


def _start(wrappers: Mapping[str, Wrapper]) -> Tokens:
    return wrappers["assistant"].start if "assistant" in wrappers else ()


def _empty_reasoning(roles: Mapping[str, Any]) -> str:
    given = roles.get("reasoning")
    if not isinstance(given, dict):
        return ""
    return "".join(str(given.get(key, "")) for key in _TEXTS[:3])
