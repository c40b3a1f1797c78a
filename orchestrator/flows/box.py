"""What is done on a box: each function is the body of one task and may be repeated."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from orchestrator.core.commands import (
    agent_root,
    resume_place,
    start_place,
    trainer_command,
    trainer_env,
    work_folder,
)
from orchestrator.core.plan import PhasePlan, Plan
from orchestrator.core.run import Attempt, Instance, Seal, Source
from orchestrator.errors import CommandFailed, IntegrityError, NotFound, Wiped
from orchestrator.flows import outfit, stores
from orchestrator.ports import (
    Boxes,
    Endpoint,
    Mirror,
    Progress,
    Provider,
    Shell,
    Stream,
    TaskContext,
)
from remote.contract import Manifest, shell_words

LOOK_S, LEAST_LOOK_S = 15.0, 0.5


@dataclass(frozen=True)
class Kit:
    """What a task needs to work on one box of one run, in the phase `index` of its plan.

    `mirror` is this phase's, `mirrors` are those of the phases before, `given` what an earlier run
    left to start from. `start` is the checkpoint that its trainer is told the place of.
    `hours_until` is when the budget's hours will be over, if nobody is there to see it."""

    run: str
    plan: Plan
    boxes: Boxes
    endpoint: Endpoint
    world_size: int
    folder: Path
    mirror: Mirror
    agent: bytes
    library: tuple[Path, Manifest]
    provider: Provider | None = None
    provider_id: str = ""
    hours_until: datetime | None = None
    index: int = 0
    mirrors: tuple[Mirror, ...] = ()
    given: tuple[Mirror, ...] = ()
    start: Source | None = None

    @property
    def phase(self) -> PhasePlan:
        return self.plan.phases[self.index]

    def held(self, digest: str, *more: Mirror) -> tuple[Mirror, Path] | None:
        """Where a checkpoint of this run is published, or of those in the mirrors `more`."""
        for mirror in (self.mirror, *self.mirrors, *more):
            place = mirror.holds(digest)
            if place is not None:
                return mirror, place
        return None

    @property
    def login(self) -> str:
        """What comes before a command that needs the surroundings of a login."""
        return outfit.login(self.provider.capabilities.login_file if self.provider else "")

    def shell(self, context: TaskContext) -> Shell:
        shell = self.boxes.shell(self.endpoint, self.run)
        context.on_cancel(shell.close)
        return shell

    def stream(self, context: TaskContext) -> Stream:
        cap = self.phase.checkpoints.transfer
        stream = self.boxes.stream(self.endpoint, self.run, cap)
        context.on_cancel(stream.close)
        return stream


@dataclass(frozen=True)
class Looked:
    """What was found intact in the mirror and its box was told of, and what was not found."""

    held: tuple[Seal, ...]
    gone: tuple[Seal, ...]


def endpoint_of(instance: Instance) -> Endpoint:
    if instance.host is None or instance.port is None or instance.user is None:
        raise ValueError(f"{instance.id} has no endpoint yet")
    return Endpoint(instance.id, instance.host, instance.port, instance.user)


def start(context: TaskContext, kit: Kit, attempt: Attempt) -> Mapping[str, Any]:
    """Put the checkpoint in place and start the trainer; for one that was started, its agent.
    Raises Wiped when what `prepare` put on the box is gone.

    What a trainer that runs has resumed from is left alone: it may have moved on since."""
    if attempt.started_at is None:
        if kit.start:
            _place(context, kit, kit.start, start_place(kit.phase))
        if attempt.resume:
            _place(context, kit, attempt.resume, resume_place(kit.phase, attempt.resume))
    shell = kit.shell(context)
    try:
        root = agent_root(kit.run)
        spec = json.dumps(_spec(kit, attempt)).encode()
        shell.run(f"umask 077; mkdir -p {root}/attempts/{attempt.number}")
        shell.put(spec, f"{root}/attempts/{attempt.number}/spec.json")
        words = ("--instance", kit.endpoint.instance, "--attempt", str(attempt.number))
        return _agent(shell, kit, "start", *words, login=kit.login)
    finally:
        shell.close()


def stop(context: TaskContext, kit: Kit, attempt: int, signal: str) -> None:
    """Signal the trainer; one that has ended is success."""
    shell = kit.shell(context)
    try:
        _agent(shell, kit, "stop", "--attempt", str(attempt), "--signal", signal)
    finally:
        shell.close()


def dump(context: TaskContext, kit: Kit, attempt: int) -> str:
    """Have it taken down what a trainer that hangs is doing, in words. What was taken down comes
    with what the agent sees."""
    shell = kit.shell(context)
    try:
        said = _agent(shell, kit, "dump", "--attempt", str(attempt))
    finally:
        shell.close()
    files = said.get("files")
    names = ", ".join(map(str, files)) if isinstance(files, list) else "nothing"
    return f"{said.get('processes')} processes, by {said.get('how')}: {names}"


def follow(
    context: TaskContext, kit: Kit, events: int, log: int, metrics: int, sights: int
) -> None:
    """Report whatever the agent says, until the link dies or the task is cancelled."""
    offsets = {"events": events, "log": log, "metrics": metrics, "sights": sights}
    follower = kit.boxes.follow(kit.endpoint, kit.run, **offsets)
    context.on_cancel(follower.close)
    try:
        for said in follower:
            context.report(said)
    finally:
        follower.close()


def fetch(context: TaskContext, kit: Kit, seal: Seal) -> str:
    """Mirror one sealed checkpoint and return the folder it is published in."""
    held = kit.mirror.holds(seal.digest)
    if held:
        return str(held)
    stream = kit.stream(context)
    try:
        manifest = stream.manifest(seal.name, seal.generation, seal.size_bytes)
        if manifest.digest != seal.digest:
            raise IntegrityError(f"the manifest of {seal.name} is not the one that was sealed")
        told = telling(context, seal.digest)
        with kit.mirror.partial(manifest) as partial:
            stream.pull(seal.name, seal.generation, partial, manifest, told)
            return str(kit.mirror.publish(seal.name, seal.generation, manifest))
    finally:
        stream.close()


def acknowledge(context: TaskContext, kit: Kit, seals: tuple[Seal, ...]) -> Looked:
    """Look through what is on record as held here, and tell the box of what is. What the mirror
    has lost since, the box may have the only copy of."""
    held = [seal for seal in seals if kit.held(seal.digest)]
    stream = kit.stream(context)
    try:
        for seal in held:
            # What it does not know it has nothing to forget of.
            with suppress(NotFound):
                stream.ack(seal.name, seal.generation)
        return Looked(tuple(held), tuple(seal for seal in seals if seal not in held))
    finally:
        stream.close()


def telling(context: TaskContext, what: str) -> Progress:
    """Reports (what, bytes verified so far): a stall is when the most of it no longer grows."""
    return lambda size_bytes: context.report((what, size_bytes))


def _place(context: TaskContext, kit: Kit, source: Source, place: str) -> None:
    """Put a checkpoint where the trainer will look, below the work folder. Raises IntegrityError,
    which says of which one, when nobody has it as it was sealed."""
    try:
        _bring(context, kit, source, place)
    except IntegrityError as error:
        error.digest = source.digest
        raise


def _bring(context: TaskContext, kit: Kit, source: Source, place: str) -> None:
    """From the box's own seal when it has one, else from a mirror, else from S3."""
    dest = f"{work_folder(kit.run)}/{place}"
    stream = kit.stream(context)
    try:
        with suppress(NotFound):
            told = telling(context, source.digest)
            stream.restore(source.name, source.digest, dest, told)
            return
        held = kit.held(source.digest, *kit.given)
        if held is not None:
            mirror, folder = held
            manifest = mirror.manifest(source.digest)
            stream.push(folder, manifest, dest, "folder", telling(context, manifest.digest))
            return
    finally:
        stream.close()
    if kit.phase.checkpoints.also is None:
        raise IntegrityError(
            f"{source.name} is neither on the box nor in the mirror as it was verified"
        )
    shell = kit.shell(context)
    try:
        stores.restore(context, shell, kit.run, source, dest)
    finally:
        shell.close()


def _spec(kit: Kit, attempt: Attempt) -> dict[str, Any]:
    phase = kit.phase
    return {
        "v": 1,
        "instance": kit.endpoint.instance,
        "attempt": attempt.number,
        "workdir": work_folder(kit.run),
        "command": trainer_command(phase, kit.run, attempt, kit.world_size),
        "env": {
            **outfit.volume_env(phase.rental),
            **trainer_env(phase, kit.run, attempt, kit.world_size),
            "GPUJOB_START_STEP": str(kit.start.step) if kit.start else "",
        },
        "secrets": bool(kit.phase.secrets),
        "checkpoints": phase.checkpoints.path,
        "layout": phase.checkpoints.rule or phase.checkpoints.layout,
        "world_size": kit.world_size,
        "resume_step": attempt.resume.step if attempt.resume else None,
        "resume_at": resume_place(phase, attempt.resume) if attempt.resume else None,
        "deadman": _deadman(kit),
        "look_s": min(LOOK_S, max(LEAST_LOOK_S, phase.hang_s / 8)),
        "watched": _watched(kit.plan),
    }


def _watched(plan: Plan) -> list[str]:
    """The evaluations that any gate asks after: one phase may be compared with another's."""
    asked = [each.gate.evaluation for each in plan.phases if each.gate and each.gate.evaluation]
    return sorted({name for each in asked for name in (each.file, each.baseline)})


def _deadman(kit: Kit) -> dict[str, Any] | None:
    """What the box does once nobody asks after it (formats.md §7)."""
    if not kit.phase.orphan_s:
        return None
    rented = kit.provider if kit.provider_id else None
    stop = rented.self_stop(kit.provider_id) if rented else None
    return {
        "orphan_s": kit.phase.orphan_s,
        "hours_until": kit.hours_until.isoformat() if kit.hours_until else None,
        "keeps_seals": bool(kit.phase.rental.volume),
        "stop": None if stop is None else {**stop.__dict__, "body": dict(stop.body)},
    }


def _agent(shell: Shell, kit: Kit, *words: str, login: str = "") -> Mapping[str, Any]:
    root = agent_root(kit.run)
    command = shell_words(["python3", f"{root}/agent.pyz", *words, "--root", root])
    done = shell.run(login + command, check=False)
    if done.rc != 0 and shell.run(f"test -e {root}/agent.pyz", check=False).rc == 1:
        raise Wiped("the agent is not on the box any more: its disk was emptied")
    try:
        said = json.loads(done.stdout.strip().split("\n")[-1])
    except ValueError:
        said = {}
    if done.rc != 0 or not isinstance(said, dict):
        what = said.get("error") if isinstance(said, dict) else None
        raise CommandFailed(
            f"the agent refused to {words[0]}: {what or done.stderr.strip()[-500:]}", done.rc
        )
    return said
