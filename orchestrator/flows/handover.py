"""What earlier runs of a job left for a launch that begins at a later phase: verdicts, and the
checkpoints that it starts from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from orchestrator.core.gate import GateVerdict
from orchestrator.core.phases import choose_start
from orchestrator.core.plan import Given, StartPlan
from orchestrator.core.run import Phase, Run
from orchestrator.core.spec import Job

OTHER = "other code, data, settings or image than now"
UNENDED = "which was not ended there"
CHANGED = f"which ran {OTHER}"


def runs_of(job: Job, runs: Sequence[Run]) -> list[Run]:
    """Those that were launched from the same file, as far as that is known."""
    return [run for run in runs if (run.name, run.folder) == (job.name, str(job.base))]


def why_not_passed(runs: Sequence[Run], phase: str, key: str) -> str:
    """Why the gate of `phase` lets nothing begin after it: empty when it said GO in the newest of
    the `runs`, newest first, that came to a verdict on `key`."""
    expired = ""
    for run in runs:
        for begun in reversed([each for each in run.phases if each.name == phase]):
            verdict = _verdict(run, begun)
            if verdict and begun.key == key:
                return "" if verdict == GateVerdict.GO else f"{run.id} was {verdict}"
            if verdict == GateVerdict.GO:
                expired = expired or f"{run.id} passed it with {OTHER}"
    return expired or "no earlier run of this job passed it"


def find_given(runs: Sequence[Run], start: StartPlan, key: str) -> Given | None:
    """The checkpoint that `start` means, from one of the `runs`, newest first, that has it here: of
    a phase that ran what `key` says before any other, of one that has ended before one that has
    not."""
    found = [given for run in runs if (given := _given(run, start, key))]
    return min(found, key=_oddity, default=None)


def _oddity(given: Given) -> int:
    return ("", UNENDED, CHANGED).index(given.note)


def _given(run: Run, start: StartPlan, key: str) -> Given | None:
    source = choose_start(run, start)
    place = Path(run.mirrored[source.digest]) if source else None
    if source is None or place is None or not place.is_dir():
        return None
    begun = next((each for each in reversed(run.phases) if each.name == start.phase), None)
    if begun is None or begun.key != key:
        note = CHANGED
    else:
        note = "" if _verdict(run, begun) == GateVerdict.GO else UNENDED
    return Given(run.id, str(place.parent), source, note)


def _verdict(run: Run, begun: Phase) -> str:
    """What the phase ended with; empty while nobody has said. A last one ends with its run."""
    is_last, outcome = begun is run.phase, run.outcome
    if begun.ended or not (is_last and outcome):
        return begun.ended
    if outcome.state == "SUCCEEDED":
        return GateVerdict.GO
    said_no = outcome.code == "gate" or begun.approved is False
    return GateVerdict.NO_GO if said_no else ""
