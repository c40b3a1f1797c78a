"""What a box says is recorded once, wrong lines are passed over, and nothing is passed by when
this side cannot store it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from kit.clock import ManualClock
from kit.history import BOX, DIGEST, TRAINING, planned

from orchestrator.adapters.sqlite import SqliteLedger
from orchestrator.core.redact import Redactor
from orchestrator.errors import LedgerError, StorageBlocked
from orchestrator.flows.link import Link, probe
from orchestrator.holder import Holder
from remote.contract import Fact

RUN = "demo-1"


class TroubledLedger(SqliteLedger):
    """A ledger that can be locked by somebody else for a while."""

    locked = False

    def append_fact(self, *arguments: Any, **words: Any) -> bool:
        if self.locked:
            raise LedgerError("database is locked")
        return SqliteLedger.append_fact(self, *arguments, **words)


@pytest.fixture
def ledger(tmp_path: Path) -> TroubledLedger:
    ledger = TroubledLedger(tmp_path / "ledger.db", ManualClock(), Holder.current())
    ledger.create(RUN, {}, planned()[1])
    return ledger


@pytest.fixture
def link(ledger: TroubledLedger, tmp_path: Path) -> Link:
    lease = ledger.acquire(RUN)
    assert lease
    for kind, data in TRAINING:
        ledger.append(RUN, kind, data, epoch=lease.epoch)
    return Link(lease, ledger, ManualClock(), tmp_path, Redactor())


def sealed(seq: int, step: int) -> Mapping[str, Any]:
    data = {
        "attempt": 1,
        "name": f"checkpoint-{step}",
        "generation": 1,
        "step": step,
        "size_bytes": 1,
        "digest": DIGEST[step],
        "final": False,
    }
    fact = Fact(BOX, "boot", seq, "2026-01-01T00:00:00Z", "checkpoint.sealed", data)
    return {"file": "events", "end": seq * 100, "line": json.loads(fact.encode())}


def names(ledger: SqliteLedger) -> list[str]:
    return [seal.name for seal in ledger.run(RUN).seals]


def test_a_fact_that_cannot_be_stored_is_not_passed_by(link: Link, ledger: TroubledLedger) -> None:
    ledger.locked = True
    assert not link.take_in(BOX, [sealed(1, 10)])
    assert link.is_deaf(BOX)
    ledger.locked = False
    link.take_in(BOX, [sealed(2, 20)])
    assert names(ledger) == [], "what comes after the gap waits for a new link"
    assert link.offsets(BOX)[0] == 0
    link.ended(BOX)
    link.take_in(BOX, [sealed(1, 10), sealed(2, 20)])
    assert names(ledger) == ["checkpoint-10", "checkpoint-20"]


@pytest.mark.parametrize(
    "line",
    [
        {},
        {"file": "events", "end": 1},
        {"file": "events", "end": float("inf"), "line": dict(sealed(1, 10)["line"])},
        {"file": "events", "end": 1, "line": {**sealed(1, 10)["line"], "seq": 10**30}},
        {"file": "events", "end": 1, "line": {**sealed(1, 10)["line"], "instance": "another"}},
        {"file": "events", "end": 1, "line": {**sealed(1, 10)["line"], "v": 99}},
        {"file": "log", "offset": 5, "data": "QQ=="},
        {"file": "log", "offset": -1, "data": "QQ=="},
        {"file": "../../etc/passwd", "offset": 0, "data": "QQ=="},
        {"heartbeat": ["x"], "agent_alive": True},
        {"heartbeat": {"x": "y" * 100_000}, "agent_alive": True},
    ],
    ids=range(11),
)
def test_a_wrong_line_is_passed_over(
    link: Link, ledger: TroubledLedger, line: dict[str, Any], tmp_path: Path
) -> None:
    before = sorted(path.name for path in tmp_path.rglob("*"))
    assert link.take_in(BOX, [line, sealed(2, 20)])
    assert names(ledger) == ["checkpoint-20"]
    assert link.heartbeats() == {}
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_a_repeated_log_is_written_once(link: Link, tmp_path: Path) -> None:
    for offset, data in ((0, "QUI="), (0, "QUJD"), (2, "Q0Q=")):
        link.take_in(BOX, [{"file": "log", "offset": offset, "data": data}])
    assert (tmp_path / BOX / "log").read_bytes() == b"ABCD"


def test_a_box_is_not_silent_because_this_side_cannot_store_what_it_says(
    link: Link, ledger: TroubledLedger
) -> None:
    link.ended(BOX)
    assert list(link.silent()) == [BOX]
    ledger.locked = True
    assert not link.take_in(BOX, [sealed(1, 10), {"heartbeat": {"at": 1}, "agent_alive": True}])
    assert (link.silent(), link.agent_alive(BOX)) == ({}, True)
    assert link.blocked() is None, "without a ledger nothing can be put on record"
    link.ended(BOX)
    assert not link.take_in(BOX, [sealed(1, 10)])
    assert link.silent() == {}


def test_a_log_that_cannot_be_stored_is_told_and_read_again(link: Link, tmp_path: Path) -> None:
    (tmp_path / BOX).touch()
    line = {"file": "log", "offset": 0, "data": "QUI="}
    assert not link.take_in(BOX, [sealed(1, 10), line, {"heartbeat": {}, "agent_alive": True}])
    assert (link.is_deaf(BOX), link.agent_alive(BOX), link.silent()) == (True, True, {})
    told = link.blocked()
    assert told and (told.reason, str(tmp_path) in told.message) == ("failing", True)
    assert link.blocked() is None, "once"
    (tmp_path / BOX).unlink()
    link.ended(BOX)
    assert link.offsets(BOX)[1] == 0
    assert link.take_in(BOX, [line])
    assert (tmp_path / BOX / "log").read_bytes() == b"AB"


def test_room_for_what_a_box_says(tmp_path: Path) -> None:
    probe(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(StorageBlocked):
        probe(tmp_path / "not-there")


@pytest.mark.parametrize(
    "news",
    [sealed(1, 10), {"file": "log", "offset": 0, "data": "QUI="},
     {"heartbeat": {"at": "later"}, "agent_alive": True}],
    ids=["a fact", "a log line", "a pulse"],
)  # fmt: skip
def test_whatever_is_new_is_a_sign_of_life(
    ledger: TroubledLedger, tmp_path: Path, news: Mapping[str, Any]
) -> None:
    clock, lease = ManualClock(), ledger.acquire(RUN)
    assert lease
    for kind, data in TRAINING:
        ledger.append(RUN, kind, data, epoch=lease.epoch)
    link = Link(lease, ledger, clock, tmp_path, Redactor())
    pulse = {"heartbeat": {"at": "noon"}, "agent_alive": True}
    link.take_in(BOX, [pulse])
    clock.advance(61)
    assert list(link.silent()) == [BOX]
    link.take_in(BOX, [pulse, news])
    assert link.silent() == {}
    clock.advance(61)
    link.take_in(BOX, [pulse if "heartbeat" not in news else news, news])
    assert list(link.silent()) == [BOX], "what is repeated is not new"


def test_a_pulse_that_stands_still_is_silence(ledger: TroubledLedger, tmp_path: Path) -> None:
    clock = ManualClock()
    lease = ledger.acquire(RUN)
    assert lease
    link = Link(lease, ledger, clock, tmp_path, Redactor())
    pulse = {"heartbeat": {"at": "noon"}, "agent_alive": True}
    link.take_in(BOX, [pulse])
    began = clock.now()
    clock.advance(61)
    link.take_in(BOX, [pulse])
    assert link.agent_alive(BOX) is True
    assert link.silent() == {BOX: began}
    link.take_in(BOX, [{"heartbeat": {"at": "later"}, "agent_alive": True}])
    assert link.silent() == {}
