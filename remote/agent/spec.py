"""What to run: `attempts/<n>/spec.json`, read strictly."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Optional

from remote.agent.durable import read_json
from remote.agent.paths import Root, below_home
from remote.contract import ContractError, check_version

LAYOUTS = ("huggingface",)
_INSTANCE = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$")


@dataclass(frozen=True)
class Spec:
    """One attempt's command and where its checkpoints appear. `world_size` is the plan's idea of
    the number of ranks; the trainer's own processes know better."""

    instance: str
    attempt: int
    workdir: Path
    command: str
    env: Dict[str, str]
    secrets: bool
    checkpoints: Path
    layout: str
    world_size: int
    resume_step: Optional[int]

    @staticmethod
    def read(root: Root, attempt: int) -> Spec:
        """Raises ContractError when it is missing or says what it may not."""
        record = read_json(root.attempt(attempt) / "spec.json")
        if record is None:
            raise ContractError("attempts/%d/spec.json is missing or not JSON" % attempt)
        check_version(record, "spec")
        try:
            spec = _from_json(record)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ContractError("spec.json is wrong: %r" % error) from error
        if spec.attempt != attempt:
            raise ContractError("spec.json is of attempt %d, not %d" % (spec.attempt, attempt))
        return spec


def _from_json(record: Dict[str, Any]) -> Spec:
    workdir = below_home(_text(record["workdir"]))
    step = record["resume_step"]
    layout = _text(record["layout"])
    instance = _text(record["instance"])
    if layout not in LAYOUTS:
        raise ValueError("the layout %r is not known to this agent" % layout)
    if not _INSTANCE.match(instance):
        raise ValueError("not an instance: %r" % instance)
    return Spec(
        instance=instance,
        attempt=int(record["attempt"]),
        workdir=workdir,
        command=_text(record["command"]),
        env={_text(key): _text(value) for key, value in record["env"].items()},
        secrets=bool(record["secrets"]),
        checkpoints=workdir / _text(record["checkpoints"]),
        layout=layout,
        world_size=max(1, int(record["world_size"])),
        resume_step=None if step is None else int(step),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise ValueError("%r is not text" % (value,))
    return value
