"""Facts are told once, whole, in order, whatever was torn before."""

from __future__ import annotations

from pathlib import Path

import pytest

from remote.agent.facts import Facts, read


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


def test_a_new_boot_counts_anew_and_repeats_nothing(path: Path) -> None:
    first = Facts(path, "i1")
    assert first.tell("agent.started", version="1")
    assert first.tell("trainer.exited", attempt=1, rc=0, tail="")
    second = Facts(path, "i1")
    assert second.tell("agent.started", version="1")
    assert not second.tell("trainer.exited", attempt=1, rc=0, tail="again")
    assert second.was_told("trainer.exited", attempt=1)
    assert second.tell("trainer.exited", attempt=2, rc=0, tail="")
    facts = list(read(path))
    assert [(fact.boot == first.boot, fact.seq) for fact in facts] == [
        (True, 1),
        (True, 2),
        (False, 1),
        (False, 2),
    ]


@pytest.mark.parametrize("torn", [b"{", b'{"v": 1}', b"\xff\xfe"])
def test_a_torn_line_is_cut_off(path: Path, torn: bytes) -> None:
    Facts(path, "i1").tell("agent.settled", attempt=1)
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    Facts(path, "i1")
    assert path.read_bytes() == whole


def test_a_torn_fact_is_told_again(path: Path) -> None:
    Facts(path, "i1").tell("agent.settled", attempt=1)
    path.write_bytes(path.read_bytes()[:-1])
    assert Facts(path, "i1").tell("agent.settled", attempt=1)
    assert [fact.kind for fact in read(path)] == ["agent.settled"]


def test_a_fact_that_cannot_be_written_was_not_told(path: Path) -> None:
    facts = Facts(path, "i1")
    path.unlink()
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        facts.tell("agent.settled", attempt=1)
    path.rmdir()
    assert facts.tell("agent.settled", attempt=1)
    assert [fact.seq for fact in read(path)] == [1]


def test_lines_that_are_no_facts_are_passed_over(path: Path) -> None:
    Facts(path, "i1").tell("agent.settled", attempt=1)
    path.write_bytes(b'nonsense\n{"v": 9}\n' + path.read_bytes())
    assert Facts(path, "i1").was_told("agent.settled", attempt=1)
