"""What to run: `attempts/<n>/spec.json`, read strictly."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

from remote.agent.durable import read_json
from remote.agent.layouts import Layout, layouts_of
from remote.agent.paths import Root, below_home
from remote.contract import ContractError, check_path, check_version

_INSTANCE = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$")


@dataclass(frozen=True)
class StopRequest:
    """The HTTP request that ends this box's billing. Its token is in our environment."""

    method: str
    url: str
    body: Dict[str, Any]
    token_variable: str


@dataclass(frozen=True)
class DeadmanRule:
    """When a box that no controller asks after ends its trainer, and how it stops itself.

    Not before `orphan_s` of silence; a trainer that runs is left alone until `hours_until`.
    `keeps_seals` when what is sealed outlives the stop."""

    orphan_s: float
    hours_until: Optional[datetime]
    stop: Optional[StopRequest]
    keeps_seals: bool = False


@dataclass(frozen=True)
class Spec:
    """One attempt's command and where its checkpoints appear. `world_size` is the plan's idea of
    the number of ranks; the trainer's own processes know better. `resume_at` is where the
    checkpoint to resume from was put. Every `look_s` the machine is looked at, and the JSON files
    `watched`, below the work folder."""

    instance: str
    attempt: int
    workdir: Path
    command: str
    env: Dict[str, str]
    secrets: bool
    checkpoints: Path
    layouts: Tuple[Layout, ...]
    world_size: int
    resume_step: Optional[int]
    resume_at: Optional[Path] = None
    deadman: Optional[DeadmanRule] = None
    look_s: float = 15.0
    watched: Tuple[str, ...] = ()

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
    place = record.get("resume_at")
    instance = _text(record["instance"])
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
        layouts=layouts_of(record["layout"]),
        world_size=max(1, int(record["world_size"])),
        resume_step=None if step is None else int(step),
        resume_at=None if place is None else workdir / _text(place),
        deadman=_deadman(record.get("deadman")),
        look_s=_seconds(record.get("look_s", 15.0)),
        watched=tuple(check_path(_text(each)) for each in record.get("watched", ())),
    )


def _seconds(value: Any) -> float:
    if not 0.2 <= float(value) <= 3600:
        raise ValueError("look_s is %r" % value)
    return float(value)


def _deadman(record: Optional[Dict[str, Any]]) -> Optional[DeadmanRule]:
    if record is None:
        return None
    orphan_s, until, stop = float(record["orphan_s"]), record["hours_until"], record["stop"]
    if not 0 < orphan_s < float("inf"):
        raise ValueError("orphan_s is %r" % orphan_s)
    return DeadmanRule(
        orphan_s=orphan_s,
        hours_until=None if until is None else _moment(_text(until)),
        stop=None if stop is None else _stop(stop),
        keeps_seals=record.get("keeps_seals") is True,
    )


def _stop(record: Dict[str, Any]) -> StopRequest:
    return StopRequest(
        method=_text(record["method"]),
        url=_text(record["url"]),
        body=dict(record["body"]),
        token_variable=_text(record["token_variable"]),
    )


def _moment(text: str) -> datetime:
    """Python 3.9 reads no `Z`."""
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


def _text(value: Any) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise ValueError("%r is not text" % (value,))
    return value
