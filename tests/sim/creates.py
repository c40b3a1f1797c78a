"""Creates whose answer is lost while the machine exists, on the emulated clouds: one seed, one run
from launch to teardown, and what the account says of it."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kit.cloud import Cloud

from orchestrator.core.run import Run
from sim.clouds_world import CloudWorld, SharedClock, offers_of, provider_of
from sim.story import RUN, Story, make_plan

# What may befall a create, with the parameters that a seed chooses from.
LOST: Mapping[str, tuple[tuple[str, Mapping[str, tuple[float, ...]]], ...]] = {
    "runpod": (
        ("create-500-but-created", {}),
        ("create-hangs-but-created", {"hang_s": (0.8,)}),
        ("create-answer-lost", {}),
        ("done-then-502", {}),
        ("create-500", {}),
        ("invisible-after-create", {"for_s": (5.0, 30.0, 55.0)}),
    ),
    "thunder": (
        ("create-500-but-created", {}),
        ("create-hangs-but-created", {"for_s": (0.8,)}),
        ("create-cut-short", {}),
        ("create-500", {}),
        ("list-empty-after-create", {"for_s": (5.0, 30.0, 55.0)}),
        ("list-cut-short", {}),
    ),
}


def live_through(cloud: Cloud, clock: SharedClock, folder: Path, seed: int) -> dict[str, Any]:
    """One run with two faults around its creates, torn down at a moment that the seed chooses.
    What was seen, and `violations`: what must never be."""
    chance = random.Random(seed)
    faults = [_armed(cloud, chance) for _ in range(2)]
    provider = provider_of(cloud, clock)
    world = CloudWorld(cloud, clock, seed)
    began_s = world.now_s
    plan = make_plan(_offers(cloud, clock))
    story = Story(folder, seed, world=world, provider=provider, plan=plan, step_s=1.5)
    leave_s = chance.uniform(5.0, 150.0)
    most = 0
    overlaps = []

    def meddle(story: Story, run: Run) -> None:
        nonlocal most
        living = len(world.living())
        most = max(most, living)
        if living > 1:
            overlaps.append(f"{living} instances at {world.now_s - began_s:.0f} s")
        if not run.teardown and world.now_s - began_s >= leave_s:
            story._ledger().append(RUN, "requested.teardown", {"reason": "enough"})

    run = story.run(meddle=meddle, limit_s=world.now_s - 1767225600 + 3600)
    cloud.disarm()
    left = [each["mark"] for each in cloud.instances()]
    for each in cloud.instances():
        cloud.end(each["id"])
    violations = [*overlaps[:1], *(f"left behind: {mark}" for mark in left)]
    return {
        "seed": seed,
        "cloud": cloud.kind,
        "faults": faults,
        "state": str(run.state),
        "instances": len(run.instances),
        "at_once": most,
        "violations": violations,
    }


def _armed(cloud: Cloud, chance: random.Random) -> dict[str, Any]:
    name, choices = chance.choice(LOST[cloud.kind])
    params: dict[str, Any] = {key: chance.choice(values) for key, values in choices.items()}
    if name == "done-then-502":
        params |= {"method": "POST", "path": "/v2/pods"}
    cloud.fault(name, **params, skip=chance.choice((0, 0, 1)))
    return {"name": name, **params}


def _offers(cloud: Cloud, clock: SharedClock) -> Any:
    return offers_of(provider_of(cloud, clock))


__all__ = ["LOST", "live_through"]
