"""A run with one of its parts changed: what every part of the fold is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from orchestrator.core.run import Event, Instance, Run

Step = Callable[[Run, Event], Run]


def change_instance(run: Run, event: Event, **changes: Any) -> Run:
    return change_with(run, event, lambda each: replace(each, **changes))


def change_with(run: Run, event: Event, change: Callable[[Instance], Instance]) -> Run:
    wanted = event.data["instance"]
    instances = tuple(change(each) if each.id == wanted else each for each in run.instances)
    return replace(run, instances=instances)


def change_attempt(run: Run, number: int, **changes: Any) -> Run:
    attempts = tuple(
        replace(each, **changes) if each.number == number else each for each in run.attempts
    )
    return replace(run, attempts=attempts)


def change_seal(run: Run, event: Event, **changes: Any) -> Run:
    wanted = (event.data["instance"], event.data["name"], event.data["generation"])
    seals = tuple(
        replace(each, **changes) if (each.instance, each.name, each.generation) == wanted else each
        for each in run.seals
    )
    return replace(run, seals=seals)


def change_phase(run: Run, **changes: Any) -> Run:
    """The run with changes to the phase that it is in."""
    if run.phase is None:
        return run
    return replace(run, phases=(*run.phases[:-1], replace(run.phase, **changes)))
