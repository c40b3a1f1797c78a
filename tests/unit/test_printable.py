"""What others say reaches no terminal but as text."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from orchestrator.adapters.frames import refusal
from orchestrator.core.facts import to_event
from orchestrator.core.printable import printable
from orchestrator.core.run import Event, Run
from orchestrator.views.event import event_line
from orchestrator.views.verify import Verdict, verdicts_text
from remote.contract import Fact

HOSTILE = "no\x1b[2J\x1b]0;title\x07 such\r\n\x9b31m file\u202e"


def test_one_line_of_printable_text() -> None:
    assert printable(HOSTILE) == "no [2J ]0;title such 31m file"
    assert printable("Gewichte äöü 権重, 5 %") == "Gewichte äöü 権重, 5 %"


@pytest.mark.parametrize("kind", ["not_found", "changed", "no_space", "io", "refused", "\x1b[2J"])
def test_an_error_of_a_box(kind: str) -> None:
    assert refusal({"error": kind, "message": HOSTILE}).message.isprintable()


def test_a_fact_of_a_box_and_its_line() -> None:
    run = Run("demo-1")
    told = to_event(run, Fact("i1", "b", 1, "", "push.failed", {"message": HOSTILE}))
    assert told and told[1]["message"].isprintable()
    data = {"instance": "i1", "message": HOSTILE}
    event = Event(run="demo-1", seq=1, at=datetime.now(UTC), kind="push.failed", epoch=1, data=data)
    assert event_line(event).isprintable()


def test_a_damaged_file_that_is_called_like_a_command_of_a_terminal() -> None:
    verdict = Verdict("checkpoint-10", "/mirror/checkpoint-10", "0" * 64, 1, (HOSTILE,))
    text = verdicts_text(Run("demo-1"), [verdict])
    assert all(line.isprintable() for line in text.split("\n"))
