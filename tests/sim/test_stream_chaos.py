"""A few seeds of the stream-chaos campaign: `make campaign NAME=stream-chaos SEEDS=500` has all."""

from __future__ import annotations

from pathlib import Path

import pytest

from sim.stream_chaos import make_sealed, survive

SEEDS = range(8)


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_sealed(tmp_path_factory.mktemp("box"))


@pytest.mark.parametrize("seed", SEEDS)
def test_every_byte_arrives_whatever_breaks(seed: int, tmp_path: Path, sealed: Path) -> None:
    told = survive(seed, tmp_path / "seed", sealed)
    assert told["violations"] == []
    assert told["faults"], "nothing happened, so nothing was shown"
