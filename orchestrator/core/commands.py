"""The text of the commands that run on the box, and where things are there."""

from __future__ import annotations

from orchestrator.core.placeholders import fill, fill_all, placeholders
from orchestrator.core.plan import PhasePlan
from orchestrator.core.run import Attempt, Source


def work_folder(run: str) -> str:
    """Below the box's home folder."""
    return f"gpujob/{run}"


def agent_root(run: str) -> str:
    """Below the box's home folder; 0700."""
    return f".gpujob/{run}"


def resume_place(phase: PhasePlan, source: Source) -> str:
    """Where an uploaded checkpoint is put, below the work folder."""
    place = phase.checkpoints.resume.place or "{checkpoints.path}/{checkpoint}"
    return fill(place, {"checkpoints.path": phase.checkpoints.path, "checkpoint": source.name})


def start_place(phase: PhasePlan) -> str:
    """Where the checkpoint of an earlier phase lies that this one is told of, below the work
    folder; empty without one."""
    return phase.start.place if phase.start and phase.start.how == "path" else ""


def trainer_command(phase: PhasePlan, run: str, attempt: Attempt, world_size: int) -> str:
    """What `bash -c` gets, with {resume} and the other placeholders filled."""
    return fill(phase.command, _values(phase, run, attempt, world_size))


def trainer_env(phase: PhasePlan, run: str, attempt: Attempt, world_size: int) -> dict[str, str]:
    """The trainer's environment beside secrets and what the agent knows itself."""
    values = _values(phase, run, attempt, world_size)
    resume = phase.checkpoints.resume.env if attempt.resume else {}
    return {
        **phase.env,
        **fill_all(dict(resume), values),
        "GPUJOB_RUN_ID": run,
        "GPUJOB_ATTEMPT": str(attempt.number),
        "GPUJOB_PHASE": phase.name,
        "GPUJOB_CHECKPOINT_DIR": phase.checkpoints.path,
        "GPUJOB_RESUME_FROM": values["checkpoint"],
        "GPUJOB_START": values["start"],
    }


def own_trainer_command() -> str:
    """How a `train:` job starts `remote.trainer`: one process a rank."""
    root = '"$HOME/.gpujob/{run_id}'
    # The work folder is yours: a package of yours named `remote` must not be taken for ours.
    return (
        f'PYTHONSAFEPATH=1 PYTHONPATH={root}/lib"${{PYTHONPATH:+:$PYTHONPATH}} '
        f'exec python3 -m remote.trainer.launch --ranks {{gpus}} {root}/train.json"'
    )


def _values(phase: PhasePlan, run: str, attempt: Attempt, world_size: int) -> dict[str, str]:
    return placeholders(
        gpus=world_size,
        nodes=1,
        run_id=run,
        phase=phase.name,
        checkpoints_path=phase.checkpoints.path,
        checkpoint=resume_place(phase, attempt.resume) if attempt.resume else None,
        resume_args=phase.checkpoints.resume.args,
        start=start_place(phase),
    )
