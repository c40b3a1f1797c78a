"""What gc ends and what it never touches."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kit.clock import ManualClock
from kit.history import planned

from orchestrator.adapters.local import LocalProvider
from orchestrator.adapters.sqlite import SqliteLedger
from orchestrator.core.marks import Marked, make_mark
from orchestrator.errors import LedgerError, ProviderError, Refused, Transient
from orchestrator.flows.gc import end, survey
from orchestrator.holder import Holder
from orchestrator.ports import Listing, Provider, ProviderInstance

THEIRS = make_mark("ffffffff", "theirs-1a2b3c-1")


class Cloud(LocalProvider):
    """As much of a cloud as gc sees: a list that a script changes, ends that may be refused."""

    capabilities = replace(LocalProvider.capabilities, poll_s=5, absent_s=5)

    def __init__(self, root: Path, clock: ManualClock, marks: Iterable[str] = ()) -> None:
        super().__init__(root, clock=clock)
        self.rented = {f"id-{n}": mark for n, mark in enumerate(marks)}
        self.asked: list[str] = []
        self.listed = 0
        self.refuses: dict[str, ProviderError] = {}
        self.hides: dict[int, set[str]] = {}
        self.down: ProviderError | None = None

    def list(self) -> Listing:
        self.listed += 1
        if self.down:
            raise self.down
        hidden = self.hides.get(self.listed, set())
        now = self._clock.now()
        return Listing(
            now,
            tuple(
                ProviderInstance(it, mark, "RUNNING", now, 0.5)
                for it, mark in self.rented.items()
                if it not in hidden
            ),
        )

    def terminate(self, provider_id: str) -> None:
        self.asked.append(provider_id)
        if provider_id in self.refuses:
            raise self.refuses[provider_id]
        self.rented.pop(provider_id, None)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def ledger(tmp_path: Path, clock: ManualClock) -> SqliteLedger:
    return SqliteLedger(tmp_path / "ledger.db", clock, Holder.current())


def rent(ledger: SqliteLedger, run: str, *, ended: bool = False) -> str:
    """A run on record with one instance; its mark."""
    ledger.create(run, {}, planned()[1])
    lease = ledger.acquire(run)
    assert lease
    mark = make_mark(ledger.id, f"{run}-1")

    def tell(kind: str, **data: Any) -> None:
        ledger.append(run, kind, data, epoch=lease.epoch)

    tell(
        "instance.intended", instance=f"{run}-1", provider="a", offer="x", usd_per_hour=1, mark=mark
    )
    if ended:
        tell("instance.gone", instance=f"{run}-1")
        tell("drain.begun", outcome="CANCELLED", reason="asked", code="asked")
        tell("drain.ended", complete=True, missing=[])
        tell("run.finished")
    return mark


def test_only_our_marks_without_a_live_run_are_orphans(
    tmp_path: Path, ledger: SqliteLedger, clock: ManualClock
) -> None:
    live, ended = rent(ledger, "live-1a2b3c"), rent(ledger, "done-1a2b3c", ended=True)
    never = make_mark(ledger.id, "never-1a2b3c-1")
    cloud = Cloud(tmp_path, clock, [live, ended, never, THEIRS, "my-own-pod", ""])
    seen = survey({"a": cloud}, lambda: ledger)
    assert {each.mark: each.owner for each in seen.marked} == {
        live: "run",
        ended: "orphan",
        never: "orphan",
        THEIRS: "foreign",
    }
    assert not cloud.asked


def test_the_providers_are_listed_before_the_ledger_is_read(
    tmp_path: Path, ledger: SqliteLedger, clock: ManualClock
) -> None:
    """An instance that a daemon rents meanwhile is on record by then: it is no orphan."""
    mark = make_mark(ledger.id, "late-1a2b3c-1")
    cloud = Cloud(tmp_path, clock, [mark])

    def open_ledger() -> SqliteLedger:
        assert cloud.listed == 1
        rent(ledger, "late-1a2b3c")
        return ledger

    assert survey({"a": cloud}, open_ledger).of("orphan") == ()


def test_a_provider_that_cannot_be_listed_is_unknown(
    tmp_path: Path, ledger: SqliteLedger, clock: ManualClock
) -> None:
    down, up = Cloud(tmp_path, clock), Cloud(tmp_path, clock, [make_mark(ledger.id, "x-1a2b3c-1")])
    down.down = Transient("the API is down")
    seen = survey({"a": down, "b": up}, lambda: ledger)
    assert seen.unknown == {"a": "the API is down"}
    assert [each.provider for each in seen.of("orphan")] == ["b"]


def test_without_a_ledger_nothing_is_known(tmp_path: Path, clock: ManualClock) -> None:
    (tmp_path / "ledger.db").write_bytes(b"no database at all" * 100)
    cloud = Cloud(tmp_path, clock, [make_mark("0123abcd", "x-1a2b3c-1")])
    with pytest.raises(LedgerError):
        survey({"a": cloud}, lambda: SqliteLedger(tmp_path / "ledger.db", clock, Holder.current()))
    assert not cloud.asked


def orphans(cloud: Cloud) -> list[Marked]:
    return [
        Marked("a", it.provider_id, it.mark, "orphan", it.state, it.created_at, it.usd_per_hour)
        for it in cloud.list().instances
    ]


def ended(cloud: Cloud, clock: ManualClock, wait_s: float = 60) -> dict[str, str]:
    providers: dict[str, Provider] = {"a": cloud}
    left = end(orphans(cloud), providers, clock, wait_s=wait_s)
    return {each.provider_id: why for each, why in left.items()}


def test_an_end_is_proven_by_as_many_absences_as_the_provider_needs(
    tmp_path: Path, clock: ManualClock
) -> None:
    cloud = Cloud(tmp_path, clock, [THEIRS])
    assert ended(cloud, clock) == {}
    assert (cloud.asked, cloud.listed) == (["id-0"], 3)


def test_a_list_that_skips_an_instance_once_proves_nothing(
    tmp_path: Path, clock: ManualClock
) -> None:
    cloud = Cloud(tmp_path, clock, [THEIRS])
    cloud.refuses["id-0"] = Transient("busy")
    cloud.hides = {2: {"id-0"}, 4: {"id-0"}}
    assert ended(cloud, clock, wait_s=20) == {"id-0": "busy"}
    assert cloud.rented


def test_one_that_is_refused_does_not_hold_up_the_others(
    tmp_path: Path, clock: ManualClock
) -> None:
    cloud = Cloud(tmp_path, clock, [THEIRS, THEIRS])
    cloud.refuses["id-0"] = Refused("locked by support")
    assert ended(cloud, clock, wait_s=30) == {"id-0": "locked by support"}
    assert set(cloud.rented) == {"id-0"}
    assert clock.monotonic() <= ManualClock().monotonic() + 30


def test_a_list_that_fails_is_no_absence(tmp_path: Path, clock: ManualClock) -> None:
    cloud = Cloud(tmp_path, clock, [THEIRS])
    found = orphans(cloud)
    cloud.down = Transient("down")
    left = end(found, {"a": cloud}, clock, wait_s=30)
    assert list(left) == found
