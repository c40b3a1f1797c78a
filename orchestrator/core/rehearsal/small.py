"""The job made small: the same phases, commands, layouts and hand-overs, on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.core.rehearsal.edits import Wish, is_hub_id, shrink_command
from orchestrator.core.spec import Job, Phase
from orchestrator.core.spec.job import ONLY_PHASE

TOOLS = "gpujob_rehearsal"
MODEL = f"{TOOLS}/model"
ROWS = f"{TOOLS}/rows.jsonl"
MOST_RANKS = 2
# Kept from everything of the user's that is offline here and would ask the internet.
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "WANDB_MODE": "offline",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
}
_WHOLE_RUN = ("budget", "notify", "outputs", "phases", "setup", "health")
_ONLY_FOR_REAL = (
    *("num_train_epochs", "optim", "attn_implementation", "tf32", "warmup_ratio"),
    *("global_batch_size", "report_to"),
)
_TRAIN_ARGS = {
    "logging_steps": 1,
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "warmup_steps": 0,
    "bf16": False,
    "fp16": False,
    "gradient_checkpointing": False,
}


@dataclass(frozen=True)
class Part:
    """One phase and how it is made small. `steps` is where its trainer ends; `patch` are settings
    in the user's files; `tools` and `data` say what lies where here; `stand_in` runs the user's
    command with our programs in place of the trainer's. `ends`: some setting limits its steps.
    `models` are what the job trains, by the names that it gives them; `absent` data that `train`
    reads and only the box will have: rows of ours are in their place."""

    phase: Phase
    job: Job
    wish: Wish
    patch: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)
    tools: str = ""
    stand_in: bool = False
    ends: bool = True
    python: str = "python3"
    models: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()

    @property
    def ranks(self) -> int:
        return min(MOST_RANKS, max(need.count for need in self.job.resources.needs))


def small_tree(name: str, parts: tuple[Part, ...], folder: str) -> dict[str, Any]:
    """The job file of the rehearsal; what it mirrors lies below `folder`."""
    phases = [_phase(part, folder) for part in parts]
    alone = len(phases) == 1 and parts[0].phase.name == ONLY_PHASE
    checkpoints = {"path": parts[0].job.checkpoints.path, "mirror": f"{folder}/mirror"}
    return {
        "name": name,
        "checkpoints": checkpoints if not alone else phases[0]["checkpoints"],
        "phases": phases,
    }


def offset_of(parts: tuple[tuple[Phase, Job], ...], index: int) -> int:
    """How many phases' steps lie before this one's: those whose checkpoint it resumes from."""
    start = parts[index][0].start_from
    if start is None or start.how == "path" or index == 0:
        return 0
    names = [phase.name for phase, _ in parts]
    before = names.index(start.phase) if start.phase in names else index - 1
    return 1 + offset_of(parts, before)


def _phase(part: Part, folder: str) -> dict[str, Any]:
    phase, job = part.phase, part.job
    tree = job.model_dump(
        mode="json", by_alias=True, exclude_unset=True, exclude_none=True, warnings=False
    )
    tree = {key: value for key, value in tree.items() if key not in (*_WHOLE_RUN, "name")}
    tree["resources"] = {"providers": ["local"], "gpu": f"cpu:{part.ranks}"}
    tree["recovery"] = {"host_loss": 3, "crash": 0}
    tree["data"] = _data(part)
    tree["env"] = {**tree.get("env", {}), **OFFLINE}
    tree["checkpoints"] = _checkpoints(tree["checkpoints"], folder)
    if job.train is not None:
        tree["train"] = _train(tree["train"], part)
    else:
        tree["run"] = wrapped(shrink_command(job.run or "", part.wish), part)
        tree["patch"] = _patch(tree.get("patch", {}), part.patch)
    return {**tree, **_of_phase(phase, part)}


def wrapped(run: str, part: Part) -> str:
    """The user's command between what makes our programs found and what looks at what it left.

    A SIGTERM for the group ends the trainer as it would without us."""
    path = f'export PATH="$PWD/{TOOLS}/bin:$PATH"\n'
    return (
        f'{path}echo "gpujob-rehearsal-attempt: $GPUJOB_ATTEMPT"\n'
        f"trap : TERM\n(\n{run}\n)\nrehearsed=$?\n"
        f'"{part.python}" {TOOLS}/look.py\nexit $rehearsed\n'
    )


def _of_phase(phase: Phase, part: Part) -> dict[str, Any]:
    told: dict[str, Any] = {"name": phase.name}
    if phase.start_from:
        told["start_from"] = phase.start_from.model_dump(mode="json", by_alias=True)
        told["start_from"] = {k: v for k, v in told["start_from"].items() if v is not None}
    if phase.stop_after_steps or not part.ends:
        told["stop_after_steps"] = min(
            phase.stop_after_steps or part.wish.steps, 3 * part.wish.every
        )
    if phase.gate:
        told["gate"] = {"approve": True}
    return told


def _data(part: Part) -> list[dict[str, str]]:
    items = [
        {"from": part.data.get(item.source, item.source), "to": item.to} for item in part.job.data
    ]
    return [*items, {"from": part.tools, "to": f"{TOOLS}/"}] if part.tools else items


def _checkpoints(tree: Mapping[str, Any], folder: str) -> dict[str, Any]:
    gone = ("also", "transfer", "size_gb", "keep")
    kept = {key: value for key, value in tree.items() if key not in gone}
    return {**kept, "mirror": f"{folder}/mirror"}


def _patch(
    users: Mapping[str, Mapping[str, Any]], ours: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """The user's own first: a key that is not there is still an error."""
    names = dict.fromkeys([*users, *ours])
    return {name: {**users.get(name, {}), **ours.get(name, {})} for name in names}


def _train(tree: Mapping[str, Any], part: Part) -> dict[str, Any]:
    """`train:` with a tiny model, few steps, and nothing that only a GPU has."""
    wish, args = part.wish, dict(tree.get("args", {}))
    for key in _ONLY_FOR_REAL:
        args.pop(key, None)
    args.update(_TRAIN_ARGS, max_steps=wish.steps, save_steps=wish.every)
    small = {**tree, "args": args, "max_seq_length": min(tree.get("max_seq_length", 128), 128)}
    small["data"] = _data_names(tree["data"], part)
    if is_hub_id(tree["model"]):
        small["model"] = wish.model
    if "qlora" in small:
        small["lora"] = small.pop("qlora")
    if small.get("evaluate"):
        few = {"every": wish.every, "max_examples": 8}
        small["evaluate"] = {**small["evaluate"], **few}
        small["evaluate"]["data"] = _data_names(small["evaluate"]["data"], part)
    if small.get("method") == "gad":
        fast = {"rollouts": 2, "max_new_tokens": 8, "critic_warmup": 0}
        small["gad"] = {**small.get("gad", {}), **fast}
    return small


def _data_names(names: str | list[str], part: Part) -> list[str]:
    several = [names] if isinstance(names, str) else names
    return list(dict.fromkeys(ROWS if name in part.absent else name for name in several))
