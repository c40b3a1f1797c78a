"""From a job to a plan, and from a plan to a run on record. Nothing here touches a box."""

from __future__ import annotations

import os
import secrets as random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchestrator.core.codec import to_json
from orchestrator.core.placeholders import fill
from orchestrator.core.plan import PLAN_VERSION, PhasePlan, Plan, Upload
from orchestrator.core.resumable import resume_problems
from orchestrator.core.run import Limits, Run
from orchestrator.core.spec import Job
from orchestrator.errors import BadJobFile, Missing
from orchestrator.flows.handover import find_given, runs_of, why_not_passed
from orchestrator.flows.phase_plan import Shop, plan_phase
from orchestrator.flows.phase_settings import with_settings
from orchestrator.flows.phase_work import Part, work_of
from orchestrator.ports import Ledger

# What a run keeps to itself, by the file in its folder: NAME=value lines, deleted at its end.
Private = Mapping[str, Mapping[str, str]]
PRIVATE = SECRETS, PUSH_KEYS, VOLUME_KEYS = "secrets.env", "s3.env", "volume.env"


def make_plan(job: Job, shop: Shop, *, begin: str = "", earlier: Sequence[Run] = ()) -> Plan:
    """Resolve a job completely: offers, what travels, commands, where checkpoints go.

    With `begin` it begins at the phase of that name, which the `earlier` runs, newest first, have
    to allow: they passed the gates before it, and have what it starts from.
    Raises BadJobFile for what the file asks and this machine lacks or another run owns,
    NoCapacity without an offer."""
    if job.refuse:
        raise BadJobFile(
            f"{job.name} must not be run: {' '.join(job.refuse.split())}; nothing was rented",
            hint="`refuse:` in the job file says so; take the reason away, then the key",
        )
    parts = [
        Part(phase, whole.at(job.base), before, alone=len(job.parts) == 1)
        for (phase, whole), before in zip(job.parts, _before(job), strict=True)
    ]
    skipped, kept = _split(parts, begin)
    runs = runs_of(job, earlier)
    for part in skipped:
        _check_passed(part, begin, runs, shop)
    phases = [plan_phase(part, shop) for part in kept]
    left = {part.phase.name: part for part in skipped}
    phases = with_settings([_with_given(each, left, runs, shop) for each in phases])
    plan = Plan(
        v=PLAN_VERSION,
        name=job.name,
        folder=str(job.base),
        limits=_limits(job, kept[0].job),
        secrets=tuple(dict.fromkeys(name for part in kept for name in part.job.secrets)),
        phases=tuple(phases),
    )
    _check_alike(plan)
    _check_resumes(plan)
    return plan


def _before(job: Job) -> list[str]:
    return ["", *(phase.name for phase, _ in job.parts[:-1])]


def _split(parts: list[Part], begin: str) -> tuple[list[Part], list[Part]]:
    """The phases before the one that is begun at, and the rest. Raises BadJobFile."""
    names = [part.phase.name for part in parts]
    if begin and begin not in names:
        raise BadJobFile(
            f"the job has no phase {begin}; nothing was rented",
            hint=f"its phases are {', '.join(names)}",
        )
    at = names.index(begin) if begin else 0
    return parts[:at], parts[at:]


def _check_passed(part: Part, begin: str, runs: Sequence[Run], shop: Shop) -> None:
    """Raises BadJobFile unless the gate of a phase that is left out let something begin after it,
    with what the file, code, data and image are now."""
    if part.phase.gate is None:
        return
    name = part.phase.name
    why = why_not_passed(runs, name, work_of(part, shop.trees).key)
    if why:
        raise BadJobFile(
            f"phase {begin} comes after the gate of {name}, and {why}; nothing was rented",
            hint=f"launch from {name} on, or take its `gate:` out of the file",
        )


def _with_given(
    phase: PhasePlan, left: Mapping[str, Part], runs: Sequence[Run], shop: Shop
) -> PhasePlan:
    """What a phase that is left out would have left, from an earlier run. Raises BadJobFile."""
    start = phase.start
    if start is None or start.phase not in left:
        return phase
    found = find_given(runs, start, work_of(left[start.phase], shop.trees).key)
    if found is None:
        raise BadJobFile(
            f"phase {phase.name} starts from the checkpoint `{start.checkpoint}` of {start.phase}, "
            "and no earlier run of this job has it here; nothing was rented",
            hint=f"launch from {start.phase} on, or without --phase",
        )
    return replace(phase, start=replace(start, given=found))


def _check_alike(plan: Plan) -> None:
    """What a run has once cannot differ from phase to phase. Raises BadJobFile."""
    volumes = {phase.rental.volume for phase in plan.phases}
    if len(volumes) > 1:
        raise BadJobFile(
            "resources.volume differs between phases, and a run has one; nothing was rented",
            hint="write it at the top of the job file, or launch the phases as jobs of their own",
        )


def _check_resumes(plan: Plan) -> None:
    problems = resume_problems(plan.phases)
    if problems:
        raise BadJobFile(
            "\n".join([*problems, "nothing was rented"]),
            hint="start it `as: path` from the weights alone, or let both phases say the same",
        )


def secret_values(plan: Plan, environ: Mapping[str, str], dotenv: Path) -> dict[str, str]:
    """The values of the plan's secrets: the environment first, then the `.env` file.

    Raises BadJobFile naming every one that is unset, never a value."""
    known = {**read_dotenv(dotenv), **environ}
    unset = [name for name in plan.secrets if not known.get(name)]
    if unset:
        raise BadJobFile(
            f"the job needs {', '.join(unset)}, and nothing sets it; nothing was rented",
            hint=f"export {unset[0]}=…, or write it to {dotenv}, and launch again",
        )
    broken = [name for name in plan.secrets if "\n" in known[name] or "\0" in known[name]]
    if broken:
        raise BadJobFile(f"the value of {', '.join(broken)} has more than one line")
    return {name: known[name] for name in plan.secrets}


def record(
    plan: Plan, private: Private, *, ledger: Ledger, shop: Shop, state: Path
) -> tuple[str, Plan]:
    """Snapshot the code, keep the secrets, claim the mirror folder, and put the run on record:
    the daemon does the rest. Raises BadJobFile when another run has the folder."""
    run = f"{plan.name}-{random.token_hex(3)}"
    plan = replace(plan, phases=tuple(_named(phase, run) for phase in plan.phases))
    folder = state / "runs" / run
    try:
        folder.mkdir(parents=True, mode=0o700)
        for upload in {each.digest: each for each in _code(plan)}.values():
            kept = folder / plan.code_folder(upload)
            shop.trees.snapshot(Path(upload.source), upload.tree, kept)
        for index, phase in enumerate(plan.phases):
            for patched in phase.patch:
                _write_new(patched.place(folder, index), patched.text)
        for name, values in private.items():
            if values:
                _write_private(folder / name, values)
        for mirror in dict.fromkeys(phase.checkpoints.mirror for phase in plan.phases):
            shop.claim_mirror(Path(mirror), run)
        ledger.create(run, to_json(_without_text(plan)), _planned(plan, private))
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise Missing(
            f"the state folder {state} cannot be written: {error}; nothing was rented",
            hint="free some room there, or set GPUJOB_HOME to another folder",
        ) from error
    except BaseException:
        # No run, no secrets of one; a Ctrl-C too.
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return run, plan


def _without_text(plan: Plan) -> Plan:
    """What patched files hold is nothing for the ledger."""
    phases = (
        replace(phase, patch=tuple(replace(each, text="") for each in phase.patch))
        for phase in plan.phases
    )
    return replace(plan, phases=tuple(phases))


def _named(phase: PhasePlan, run: str) -> PhasePlan:
    """With the run's name in the folder of its mirror."""
    mirror = fill(phase.checkpoints.mirror, {"run_id": run})
    return replace(phase, checkpoints=replace(phase.checkpoints, mirror=mirror))


def _code(plan: Plan) -> list[Upload]:
    return [upload for phase in plan.phases for upload in phase.uploads if upload.what == "code"]


def _planned(plan: Plan, private: Private) -> dict[str, Any]:
    """The run's first event."""
    limits, first = plan.limits, plan.phases[0]
    checkpoints = first.checkpoints
    return {
        "name": plan.name,
        "folder": plan.folder,
        "mirror": checkpoints.mirror,
        "volume": first.rental.volume,
        "volume_store": bool(private.get(VOLUME_KEYS)),
        "also": checkpoints.also.uri if checkpoints.also else "",
        "metric": to_json(checkpoints.keep.best) if checkpoints.keep else None,
        "phases": [phase.name for phase in plan.phases],
        "usd_per_hour": first.offer.usd_per_hour,
        "host_loss": limits.host_loss,
        "crash": limits.crash,
        "budget_usd": limits.budget_usd,
        "budget_hours": limits.budget_hours,
        "budget_usd_per_hour": limits.budget_usd_per_hour,
    }


def _limits(job: Job, first: Job) -> Limits:
    """The budget is the whole run's, the recoveries are those of its first phase."""
    return Limits(
        host_loss=first.recovery.host_loss,
        crash=first.recovery.crash,
        budget_usd=job.budget.usd,
        budget_hours=job.budget.hours,
        budget_usd_per_hour=job.budget.usd_per_hour,
    )


def read_dotenv(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    pairs = (
        line.removeprefix("export ").partition("=")
        for line in path.read_text(errors="replace").splitlines()
        if "=" in line and not line.lstrip().startswith("#")
    )
    return {name.strip(): value.strip().strip("'\"") for name, _, value in pairs}


def _write_private(path: Path, values: Mapping[str, str]) -> None:
    """NAME=value lines."""
    _write_new(path, "".join(f"{name}={value}\n" for name, value in values.items()))


def _write_new(path: Path, text: str) -> None:
    """Readable by the owner alone from the first byte on."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
