"""Which phase of a run something belongs to."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.core.run import Run, Seal


def of_phase(run: Run, serial: int) -> Run:
    """The run as if it had been this phase alone: its attempts and what they sealed."""
    if not run.phases:
        return run
    attempts = tuple(each for each in run.attempts if each.phase == serial)
    numbers = {each.number for each in attempts}
    seals = tuple(each for each in run.seals if each.attempt in numbers)
    metric = run.phases[serial].metric or run.metric
    phases = run.phases[: serial + 1]
    return replace(run, phases=phases, attempts=attempts, seals=seals, metric=metric)


def serial_of(run: Run, seal: Seal) -> int:
    """The phase, among those that have begun, whose trainer wrote this checkpoint."""
    return next((each.phase for each in run.attempts if each.number == seal.attempt), run.serial)


def phase_name(run: Run, serial: int) -> str:
    return run.phases[serial].name if serial < len(run.phases) else ""


def full_name(run: Run, seal: Seal) -> str:
    """The checkpoint's name, with its phase's where a run has several."""
    phase = phase_name(run, serial_of(run, seal)) if len(run.phases) > 1 else ""
    return f"{phase}/{seal.name}" if phase else seal.name
