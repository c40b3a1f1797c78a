"""The emulated Thunder Compute on a driven clock and without boxes, as new for every test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kit.cloud import Cloud
from kit.thunder import START, Api, as_new, client


@pytest.fixture(scope="session")
def one_thunder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    folder = tmp_path_factory.mktemp("thunder")
    cloud = Cloud.start(folder, "thunder", boxes="none", driven=START)
    yield cloud
    violations = cloud.violations()
    cloud.close()
    assert violations == []


@pytest.fixture
def cloud(one_thunder: Cloud) -> Cloud:
    return as_new(one_thunder)


@pytest.fixture
def api(cloud: Cloud) -> Iterator[Api]:
    with client(cloud) as made:
        yield made
