"""What every Ledger promises, examined on SQLite with real files and real processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from kit.clock import ManualClock
from kit.history import BOOTED, BOX, ENDED, TRAINING, Told, drain, mirrored, planned, sealed

from orchestrator.adapters.sqlite import SqliteLedger
from orchestrator.core.fold import fold_all
from orchestrator.errors import LedgerError, NotFound, StaleLease
from orchestrator.holder import Holder
from remote.contract import Fact

RUN = "demo-1"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def ledger(tmp_path: Path, clock: ManualClock) -> SqliteLedger:
    return _open(tmp_path, clock)


def _open(folder: Path, clock: ManualClock, holder: Holder | None = None) -> SqliteLedger:
    return SqliteLedger(folder / "ledger.db", clock, holder or Holder.current())


def _begin(ledger: SqliteLedger) -> int:
    ledger.create(RUN, {"v": 1}, planned()[1])
    lease = ledger.acquire(RUN)
    assert lease
    return lease.epoch


def _tell(ledger: SqliteLedger, epoch: int, *told: Told) -> None:
    for kind, data in told:
        ledger.append(RUN, kind, data, epoch=epoch)


def _fact(seq: int = 1, **data: Any) -> Fact:
    return Fact(BOX, "boot", seq, "2026-01-01T00:00:00Z", "checkpoint.sealed", data)


def test_the_cached_fold_is_the_fold_of_the_events(ledger: SqliteLedger) -> None:
    epoch = _begin(ledger)
    for told in (*ENDED, mirrored(60), mirrored(60, final=True), drain()):
        _tell(ledger, epoch, told)
        assert ledger.run(RUN) == fold_all(RUN, ledger.events(RUN))
    assert ledger.runs() == [ledger.run(RUN)]


def test_sequence_numbers_have_no_gaps(ledger: SqliteLedger) -> None:
    _tell(ledger, _begin(ledger), *TRAINING)
    seqs = [event.seq for event in ledger.events(RUN)]
    assert seqs == list(range(1, len(TRAINING) + 2))
    assert [event.seq for event in ledger.events(RUN, after=3)] == seqs[3:]


def test_a_stale_epoch_writes_nothing(tmp_path: Path, clock: ManualClock) -> None:
    first = _open(tmp_path, clock)
    epoch = _begin(first)
    first.release(first.acquire(RUN) or pytest.fail("no lease"))
    second = _open(tmp_path, clock)
    taken = second.acquire(RUN)
    assert taken
    with pytest.raises(StaleLease):
        first.append(RUN, *BOOTED[0], epoch=epoch)
    with pytest.raises(StaleLease):
        first.append_fact(RUN, _fact(), 10, sealed(10), epoch=epoch)
    assert [event.kind for event in first.events(RUN)] == ["planned"]


def test_a_living_holder_keeps_the_lease(tmp_path: Path, clock: ManualClock) -> None:
    _begin(_open(tmp_path, clock))
    other = Holder(Holder.current().boot, os.getppid(), -1)
    assert _open(tmp_path, clock, other).acquire(RUN) is None


def test_a_dead_holder_is_succeeded_at_once(tmp_path: Path, clock: ManualClock) -> None:
    dead = Holder(Holder.current().boot, 2**22 + 1, 1)
    ledger = _open(tmp_path, clock, dead)
    epoch = _begin(ledger)
    lease = _open(tmp_path, clock).acquire(RUN)
    assert lease and lease.epoch == epoch + 1


def test_a_holder_on_another_host_has_a_time_to_live(tmp_path: Path, clock: ManualClock) -> None:
    _begin(_open(tmp_path, clock, Holder("another boot", 1, 1)))
    here = _open(tmp_path, clock)
    assert here.acquire(RUN) is None
    clock.advance(60)
    assert here.acquire(RUN)


def test_only_requests_go_without_a_lease(ledger: SqliteLedger) -> None:
    _begin(ledger)
    ledger.append(RUN, "requested.teardown", {"reason": "x"})
    assert ledger.run(RUN).teardown == "x"
    with pytest.raises(LedgerError):
        ledger.append(RUN, *BOOTED[0])


def test_a_fact_told_twice_is_one_fact(ledger: SqliteLedger) -> None:
    epoch = _begin(ledger)
    assert ledger.append_fact(RUN, _fact(), 100, sealed(10), epoch=epoch)
    assert not ledger.append_fact(RUN, _fact(), 100, sealed(10), epoch=epoch)
    assert ledger.append_fact(RUN, _fact(seq=2), 180, None, epoch=epoch)
    assert len(ledger.run(RUN).seals) == 1
    assert ledger.fact_offset(RUN, BOX) == 180
    assert ledger.fact_offset(RUN, "another") == 0


def test_a_run_id_is_taken_once(ledger: SqliteLedger) -> None:
    _begin(ledger)
    with pytest.raises(LedgerError):
        ledger.create(RUN, {}, planned()[1])


def test_an_unknown_run_is_not_found(ledger: SqliteLedger) -> None:
    for ask in (ledger.run, ledger.plan):
        with pytest.raises(NotFound):
            ask("nothing")
    with pytest.raises(NotFound):
        ledger.append("nothing", "requested.teardown", {})


def test_terminal_runs_are_not_active(ledger: SqliteLedger) -> None:
    epoch = _begin(ledger)
    assert ledger.active() == [RUN]
    _tell(ledger, epoch, drain("FAILED", "crash"), ("drain.ended", {"missing": []}))
    _tell(ledger, epoch, ("run.finished", {}))
    assert ledger.active() == []


def test_the_ledger_keeps_its_id(tmp_path: Path, clock: ManualClock) -> None:
    assert _open(tmp_path, clock).id == _open(tmp_path, clock).id


def test_a_ledger_of_another_version_is_refused(tmp_path: Path, clock: ManualClock) -> None:
    _open(tmp_path, clock).close()
    with sqlite3.connect(tmp_path / "ledger.db") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(LedgerError, match="version 99"):
        _open(tmp_path, clock)


def test_a_folder_that_cannot_be_written_is_a_clear_error(clock: ManualClock) -> None:
    with pytest.raises(LedgerError, match="cannot be opened"):
        _open(Path("/proc/nothing"), clock)


def _write_until_killed(folder: Path, ready: Any) -> None:
    ledger = _open(folder, ManualClock())
    epoch = _begin(ledger)
    for step in range(100_000):
        ledger.append(RUN, *sealed(step % 100), epoch=epoch)
        ready.value = step + 1


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path, clock: ManualClock) -> None:
    context = multiprocessing.get_context("spawn")
    acknowledged = context.Value("i", 0)
    writer = context.Process(target=_write_until_killed, args=(tmp_path, acknowledged))
    writer.start()
    while acknowledged.value < 20:
        writer.join(0.01)
        assert writer.exitcode is None
    assert writer.pid
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    told = acknowledged.value
    ledger = _open(tmp_path, clock)
    assert len(ledger.events(RUN)) - 1 in (told, told + 1)
    assert ledger.run(RUN) == fold_all(RUN, ledger.events(RUN))


def _count_events(folder: Path) -> int:
    """In a process of its own, which opens the ledger and closes it again."""
    code = (
        "import sys; from pathlib import Path\n"
        "from orchestrator.adapters.clock import SystemClock\n"
        "from orchestrator.adapters.sqlite import SqliteLedger\n"
        "from orchestrator.holder import Holder\n"
        "ledger = SqliteLedger(Path(sys.argv[1]), SystemClock(), Holder.current())\n"
        f"print(len(ledger.events({RUN!r}))); ledger.close()"
    )
    command = [sys.executable, "-c", code, str(folder / "ledger.db")]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_two_ledgers_in_one_process_lose_nothing_to_a_third(
    tmp_path: Path, clock: ManualClock
) -> None:
    """To open and close the file beside SQLite drops its locks (POSIX): another process would
    then believe that it is alone, and delete the journal under the living writer."""
    first = _open(tmp_path, clock)
    epoch = _begin(first)
    second = _open(tmp_path, clock)
    for told in range(2, 6):
        second.append(RUN, *sealed(told), epoch=epoch)
        assert _count_events(tmp_path) == told
    assert len(first.events(RUN)) == 5
