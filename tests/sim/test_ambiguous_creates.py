"""A create that was answered 500, too late or not at all while the machine exists: never two
instances, never an orphan. `make campaign` runs many more seeds than this."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.cloud import Cloud

from sim.clouds_world import START, SharedClock
from sim.creates import live_through

SEEDS = 4


@pytest.fixture(params=["runpod", "thunder"])
def cloud(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cloud]:
    cloud = Cloud.start(
        tmp_path / "cloud", request.param, driven=START, boxes="none", requests_per_minute=600
    )
    yield cloud
    cloud.close()


def test_never_two_never_an_orphan(tmp_path: Path, cloud: Cloud) -> None:
    clock = SharedClock(cloud)
    told = [live_through(cloud, clock, tmp_path / str(seed), seed) for seed in range(SEEDS)]
    assert [each for each in told if each["violations"]] == []
    assert any(each["instances"] > 1 for each in told), "no fault made a difference"
