"""Every family's job file is rehearsed as it stands: nothing is set but where the checkout is."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import systems_kit as kit
from kit.gpujob import Place, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.long]


def as_it_stands(place: Place) -> list[str]:
    return []


def two_branches(place: Place) -> list[str]:
    sets = []
    for at, (name, branch) in enumerate((("verl-warmup", "warmup"), ("verl-gad", "gad"))):
        kit.repository(place.folder / name, branch=branch)
        sets.append(f"phases.{at}.code.path={place.folder / name}")
    return sets


def pinned(place: Place) -> list[str]:
    commit = kit.repository(place.folder / "checkout")
    sets = [f"phases.{at}.git.commit='{commit}'" for at in (0, 1)]
    return [f"code.path={place.folder / 'checkout'}", *sets]


@pytest.mark.parametrize(
    ("name", "sets", "phases"),
    [
        ("socrates/full", as_it_stands, 5),
        ("finetune/4090", as_it_stands, 2),
        ("chai/7b", two_branches, 2),
        ("torchllms/sft", pinned, 2),
        ("mahals/ladder", as_it_stands, 6),
        ("chai/native", as_it_stands, 2),
        ("socrates/native", as_it_stands, 2),  # its data are made by its setup
    ],
    ids=["socrates", "finetune", "chai", "torchllms", "mahals", "chai-native", "socrates-native"],
)
def test_it_passes(
    place: Place, name: str, sets: Callable[[Place], list[str]], phases: int
) -> None:
    words = [word for each in sets(place) for word in ("--set", each)]
    job = str(kit.job(name))
    done = place.run("rehearse", job, "--json", *words, check=None, timeout_s=300, **kit.SECRETS)
    report = json.loads(done.stdout)
    assert report["mistakes"] == [], done.stderr
    assert report["passed"] and report["took_s"] < 300
    here = [each for each in report["proven"] if "brought home and verified" in each]
    assert len(here) == phases, report["proven"]
    wait_until(lambda: place.processes() == [], 15, "no process to be left")
