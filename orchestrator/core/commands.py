"""The text of the commands that run on the box."""

from __future__ import annotations

from orchestrator.core.plan import Plan
from orchestrator.core.run import Attempt, Source


def work_folder(run: str) -> str:
    """Below the box's home folder."""
    return f"gpujob/{run}"


def agent_root(run: str) -> str:
    """Below the box's home folder; 0700."""
    return f".gpujob/{run}"


def resume_place(plan: Plan, source: Source) -> str:
    """Where an uploaded checkpoint is put, below the work folder."""
    place = plan.checkpoints.resume.place or "{checkpoints.path}/{checkpoint}"
    return fill(place, {"checkpoints.path": plan.checkpoints.path, "checkpoint": source.name})


def trainer_command(plan: Plan, run: str, attempt: Attempt) -> str:
    """What `bash -c` gets, with {resume} and the other placeholders filled."""
    return fill(plan.command, _values(plan, run, attempt))


def trainer_env(plan: Plan, run: str, attempt: Attempt) -> dict[str, str]:
    """The trainer's environment beside secrets and what the agent knows itself."""
    values = _values(plan, run, attempt)
    resume = plan.checkpoints.resume.env if attempt.resume else {}
    return {
        **plan.env,
        **{name: fill(text, values) for name, text in resume.items()},
        "GPUJOB_RUN_ID": run,
        "GPUJOB_ATTEMPT": str(attempt.number),
        "GPUJOB_PHASE": plan.phase,
        "GPUJOB_CHECKPOINT_DIR": plan.checkpoints.path,
        "GPUJOB_RESUME_FROM": values["checkpoint"],
    }


def own_trainer_command(run: str, world_size: int) -> str:
    """How a `train:` job starts `remote.trainer`: torchrun, one process a rank."""
    root = f'"$HOME/{agent_root(run)}'
    return (
        f'PYTHONPATH={root}/lib"${{PYTHONPATH:+:$PYTHONPATH}} '
        f"python3 -m torch.distributed.run --standalone --nproc_per_node {world_size} "
        f'-m remote.trainer {root}/train.json"'
    )


def fill(text: str, values: dict[str, str]) -> str:
    """Replace the listed placeholders; `${X}`, JSON and awk braces are left alone."""
    for name, value in values.items():
        text = text.replace("${" + name + "}", "\0").replace("{" + name + "}", value)
        text = text.replace("\0", "${" + name + "}")
    return text


def _values(plan: Plan, run: str, attempt: Attempt) -> dict[str, str]:
    source = attempt.resume
    checkpoint = resume_place(plan, source) if source else ""
    resume = fill(plan.checkpoints.resume.args, {"checkpoint": checkpoint}) if source else ""
    return {
        "gpus": str(plan.world_size),
        "nodes": "1",
        "resume": resume,
        "checkpoint": checkpoint,
        "run_id": run,
        "phase": plan.phase,
        "checkpoints.path": plan.checkpoints.path,
    }
