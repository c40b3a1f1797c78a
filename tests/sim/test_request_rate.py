"""Fifty runs on one account that allows 60 requests a minute: one listing serves them all, and
the account never has to refuse a request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.cloud import Cloud
from kit.history import planned

from orchestrator.adapters.sqlite import SqliteLedger
from orchestrator.core.actions import Deadlines
from orchestrator.core.codec import to_json
from orchestrator.daemon import Scheduler
from orchestrator.flows.fleet import Fleet
from orchestrator.flows.step import World as Ports
from orchestrator.holder import Holder
from remote.contract import Manifest
from sim.clouds_world import START, CloudWorld, SharedClock, offers_of, provider_of
from sim.story import make_plan
from sim.world import SimBoxes, SimMirror, SimTasks

STEP_S = 3.0


@pytest.fixture(params=["runpod"])
def cloud(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cloud]:
    cloud = Cloud.start(
        tmp_path / "cloud", request.param, driven=START, boxes="none", requests_per_minute=60
    )
    yield cloud
    cloud.close()


@pytest.mark.parametrize("runs", [10, pytest.param(50, marks=pytest.mark.long)])
def test_many_runs_never_ask_too_often(tmp_path: Path, cloud: Cloud, runs: int) -> None:
    clock = SharedClock(cloud)
    world = CloudWorld(cloud, clock)
    provider = provider_of(cloud, clock)
    plan = make_plan(offers_of(provider))
    ledger = SqliteLedger(tmp_path / "ledger.db", clock, Holder.current())
    for number in range(runs):
        (tmp_path / "runs" / f"demo-{number}").mkdir(parents=True)
        ledger.create(f"demo-{number}", to_json(plan), planned()[1])
    tasks = SimTasks(world)
    mirrors = {f"demo-{number}": SimMirror() for number in range(runs)}
    scheduler = Scheduler(
        Ports(
            ledger=ledger,
            fleet=Fleet({provider.name: provider}, tasks, clock),
            boxes=SimBoxes(world),
            tasks=tasks,
            clock=clock,
            mirror=lambda run, _: mirrors[run],
            agent=lambda: b"agent",
            library=lambda: (Path("/lib"), Manifest(())),
            state=tmp_path,
            deadlines=Deadlines(),
        )
    )
    for _ in range(400):
        if not scheduler.turn():
            break
        clock.advance(STEP_S)
        tasks.run_due()
    assert [run.reason for run in ledger.runs()] == ["trained to the end"] * runs
    assert cloud.instances() == []
    requests = cloud.audit()
    assert [each for each in requests if each["status"] == 429] == []
    minutes = Counter(each["at"][:16] for each in requests)
    assert max(minutes.values()) <= 60
    assert len(requests) > 2 * runs
