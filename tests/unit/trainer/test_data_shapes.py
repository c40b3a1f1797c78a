"""The four shapes of rows, and the sentences about rows that are none of them."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("pyarrow")

from data_kit import chat

from remote.trainer.data.files import RowError
from remote.trainer.data.shapes import conversations, known_columns

Q, A = chat("Why?", "Because.")
EARLIER = chat("Hi", "Hello")


@pytest.mark.parametrize(
    ("kind", "row", "expected"),
    [
        ("chat", {"messages": [Q, A]}, [([Q, A], 0)]),
        ("chat", {"messages": [Q, A], "extra": 1}, [([Q, A], 0)]),
        ("chat", {"messages": None, "prompt": "Why?", "completion": "Because."}, [([Q, A], 1)]),
        ("chat", {"prompt": [*EARLIER, Q], "completion": [A]}, [([*EARLIER, Q, A], 3)]),
        ("chat", {"content": [Q], "teacher_response": "Because."}, [([Q, A], 1)]),
        ("distill", {"content": [Q], "teacher_response": "Because."}, [([Q, A], 1)]),
        ("distill", {"messages": [*EARLIER, Q, A]}, [([*EARLIER, Q, A], 3)]),
        ("distill", {"prompt": "Why?", "completion": "Because."}, [([Q, A], 1)]),
        (
            "pairs",
            {"chosen": [Q, A], "rejected": [Q, EARLIER[1]]},
            [([Q, A], 1), ([Q, EARLIER[1]], 1)],
        ),
        (
            "pairs",
            {"prompt": "Why?", "chosen": "Because.", "rejected": "Hello"},
            [([Q, A], 1), ([Q, EARLIER[1]], 1)],
        ),
        (
            "pairs",
            {"prompt": "Why?", "chosen": [Q, A], "rejected": [Q, A]},
            [([Q, A], 1), ([Q, A], 1)],
        ),
        ("pairs", {"prompt": [Q], "chosen": [A], "rejected": [A]}, [([Q, A], 1), ([Q, A], 1)]),
    ],
    ids=[
        "messages",
        "extra-column",
        "null-column",
        "prompt-messages",
        "sft-on-a-teacher",
        "teacher",
        "distill-messages",
        "distill-prompt",
        "pairs",
        "pair-of-texts",
        "prompt-repeated",
        "prompt-apart",
    ],
)
def test_shapes(kind: Any, row: dict[str, Any], expected: list[Any]) -> None:
    assert [tuple(each) for each in conversations(row, kind)] == expected


def test_messages_are_put_right() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    call = {"role": "assistant", "content": None, "tool_calls": [{"name": "f"}], "id": 3}
    row = {"messages": [{"role": "user", "content": parts}, call]}
    ((said, _),) = conversations(row, "chat")
    assert said == [
        {"role": "user", "content": "ab"},
        {"role": "assistant", "content": "", "tool_calls": [{"name": "f"}]},
    ]


@pytest.mark.parametrize(
    ("kind", "row", "problem"),
    [
        ("chat", 3, "not a mapping of columns to values"),
        (
            "chat",
            {"text": "hi"},
            "has `text`; `messages`, or `prompt` and `completion`, or `content`",
        ),
        ("chat", {}, "has no columns;"),
        ("chat", {"chosen": [A], "rejected": [A]}, "these are preference pairs, for method dpo"),
        ("pairs", {"messages": [Q, A]}, "has `messages`; `chosen` and `rejected` is needed"),
        ("chat", {"messages": []}, "`messages` is not a list of messages with something in it"),
        ("chat", {"messages": [Q]}, "no assistant message with text: nothing to learn from"),
        ("chat", {"messages": [Q, {**A, "content": " \n"}]}, "no assistant message with text"),
        ("chat", {"messages": [Q, "hi"]}, "`messages`, message 2: not a mapping"),
        ("chat", {"messages": [{**Q, "role": "assistent"}]}, "message 1: role is 'assistent'"),
        ("chat", {"messages": [{**Q, "role": ["user"]}]}, r"message 1: role is \['user'\]"),
        ("chat", {"messages": [{**Q, "content": 4}]}, "message 1: content is not a text"),
        ("chat", {"messages": [{"role": "user"}]}, "message 1: content is not a text"),
        ("distill", {"messages": [Q, A, Q]}, "the last message is not the assistant's"),
        ("distill", {"content": [Q], "teacher_response": 4}, "`teacher_response` is not a text"),
        ("distill", {"content": [Q], "teacher_response": " "}, "no assistant message with text"),
        ("pairs", {"chosen": [Q, A], "rejected": [Q]}, "`rejected`: the last message is not"),
        (
            "pairs",
            {"chosen": "", "rejected": "x"},
            "`chosen`: the assistant's last message is empty",
        ),
    ],
)
def test_rows_that_are_refused(kind: Any, row: Any, problem: str) -> None:
    with pytest.raises(RowError, match=problem):
        conversations(row, kind)


def test_a_wrong_role_is_guessed() -> None:
    with pytest.raises(RowError, match="did you mean assistant"):
        conversations({"messages": [{"role": "assistent", "content": "x"}]}, "chat")


def test_only_columns_that_are_read_are_read() -> None:
    assert known_columns("pairs") == ("chosen", "rejected", "prompt")
    assert "messages" in known_columns("chat")
