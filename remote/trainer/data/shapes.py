"""The shapes that rows come in, turned into one: a conversation and what is learned of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from remote.trainer.data.files import RowError
from remote.trainer.data.rows import Kind
from remote.trainer.problems import did_you_mean

Message = dict[str, Any]
Row = Mapping[str, Any]

ROLES = ("system", "developer", "user", "assistant", "tool")
# What a chat template may look at besides role and content.
EXTRAS = ("name", "reasoning_content", "tool_calls", "tool_call_id")


class Conversation(NamedTuple):
    """Messages, of which the assistant's turns from message `learned_from` on are learned."""

    messages: list[Message]
    learned_from: int


class Shape(NamedTuple):
    """A way to write rows down: the columns it needs, those it may have, and how it is read."""

    columns: tuple[str, ...]
    optional: tuple[str, ...]
    read: Callable[[Row], tuple[Conversation, ...]]


def conversations(row: Any, kind: Kind) -> tuple[Conversation, ...]:
    """The parts of a row of this kind. Raises RowError, which says what is wrong with it."""
    if not isinstance(row, Mapping):
        raise RowError("not a mapping of columns to values")
    for each in SHAPES[kind]:
        # A null counts as absent: JSONL of mixed shapes that became parquet is full of them.
        if all(row.get(column) is not None for column in each.columns):
            return each.read(row)
    return shape([name for name in row if row[name] is not None], kind).read(row)


def shape(columns: Iterable[str], kind: Kind) -> Shape:
    """The shape that these columns are. Raises RowError when they are none that `kind` reads."""
    names = list(columns)
    for each in SHAPES[kind]:
        if all(column in names for column in each.columns):
            return each
    wanted = ", or ".join(" and ".join(f"`{c}`" for c in each.columns) for each in SHAPES[kind])
    raise RowError(f"has {_listed(names)}; {wanted} is needed{_hint(names, kind)}")


def known_columns(kind: Kind) -> tuple[str, ...]:
    """All columns that rows of this kind are read from."""
    return tuple({c: 0 for each in SHAPES[kind] for c in (*each.columns, *each.optional)})


def messages(value: Any, name: str) -> list[Message]:
    """A list of messages as templates want them. Raises RowError naming the message."""
    if not isinstance(value, list) or not value:
        raise RowError(f"`{name}` is not a list of messages with something in it")
    if all(map(_is_plain, value)):
        return value
    return [_message(each, f"`{name}`, message {n}") for n, each in enumerate(value, start=1)]


def turns(value: Any, name: str, role: str) -> list[Message]:
    """A list of messages, or a text, which is one message of `role`. Raises RowError."""
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    return messages(value, name)


def _chat(row: Row) -> tuple[Conversation, ...]:
    return (_answered([], messages(row["messages"], "messages")),)


def _completion(row: Row) -> tuple[Conversation, ...]:
    prompt = turns(row["prompt"], "prompt", "user")
    return (_answered(prompt, turns(row["completion"], "completion", "assistant")),)


def _teacher(row: Row) -> tuple[Conversation, ...]:
    prompt = turns(row["content"], "content", "user")
    if not isinstance(row["teacher_response"], str):
        raise RowError("`teacher_response` is not a text")
    return (_answered(prompt, turns(row["teacher_response"], "teacher_response", "assistant")),)


def _last_of(read: Callable[[Row], tuple[Conversation, ...]]) -> Callable[[Row], Any]:
    """The same conversation, of which the last turn alone is learned."""
    return lambda row: tuple(_last_turn(each.messages) for each in read(row))


def _pair(row: Row) -> tuple[Conversation, ...]:
    prompt = row.get("prompt")
    before = [] if prompt is None else turns(prompt, "prompt", "user")
    return tuple(_side(row[name], name, before) for name in ("chosen", "rejected"))


def _side(value: Any, name: str, prompt: list[Message]) -> Conversation:
    said = turns(value, name, "assistant")
    # Some data sets repeat the prompt in both answers, others do not.
    whole = said if any(each["role"] != "assistant" for each in said) else [*prompt, *said]
    try:
        return _last_turn(whole)
    except RowError as error:
        raise RowError(f"`{name}`: {error}") from error


def _answered(prompt: list[Message], answers: list[Message]) -> Conversation:
    for each in answers:
        if each["role"] == "assistant" and _says_something(each):
            return Conversation([*prompt, *answers], len(prompt))
    raise RowError("no assistant message with text: nothing to learn from")


def _last_turn(conversation: list[Message]) -> Conversation:
    if conversation[-1]["role"] != "assistant":
        raise RowError("the last message is not the assistant's: nothing to learn from")
    if not _says_something(conversation[-1]):
        raise RowError("the assistant's last message is empty: nothing to learn from")
    return Conversation(conversation, len(conversation) - 1)


def _says_something(message: Message) -> bool:
    return bool(message["content"].strip() or message.get("tool_calls"))


def _is_plain(value: Any) -> bool:
    """Whether it is a message already, with nothing to be put right."""
    return (
        type(value) is dict
        and len(value) == 2
        and value.get("role") in ROLES
        and type(value.get("content")) is str
    )


def _message(value: Any, where: str) -> Message:
    if not isinstance(value, Mapping):
        raise RowError(f"{where}: not a mapping with role and content")
    role = value.get("role")
    if role not in ROLES:
        near = did_you_mean(role, ROLES) if isinstance(role, str) else ""
        raise RowError(f"{where}: role is {role!r}, not one of {', '.join(ROLES)}{near}")
    extras = {key: value[key] for key in EXTRAS if value.get(key) is not None}
    return {"role": role, "content": _content(value, where), **extras}


def _content(value: Row, where: str) -> str:
    content = value.get("content")
    if isinstance(content, str):
        return content
    if content is None and (value.get("tool_calls") or value.get("reasoning_content")):
        return ""
    if isinstance(content, list) and content and all(_is_text(part) for part in content):
        return "".join(part["text"] for part in content)
    raise RowError(f"{where}: content is not a text")


def _is_text(part: Any) -> bool:
    return isinstance(part, Mapping) and isinstance(part.get("text"), str)


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names[:10]) or "no columns"


def _hint(names: list[str], kind: Kind) -> str:
    if kind != "pairs" and "chosen" in names and "rejected" in names:
        return "; these are preference pairs, for method dpo or simpo"
    return ""


_TEACHER = ("content", "teacher_response")
SHAPES: dict[Kind, tuple[Shape, ...]] = {
    "chat": (
        Shape(("messages",), (), _chat),
        Shape(("prompt", "completion"), (), _completion),
        Shape(_TEACHER, (), _teacher),
    ),
    "distill": (
        Shape(_TEACHER, (), _last_of(_teacher)),
        Shape(("prompt", "completion"), (), _last_of(_completion)),
        Shape(("messages",), (), _last_of(_chat)),
    ),
    "pairs": (Shape(("chosen", "rejected"), ("prompt",), _pair),),
}
