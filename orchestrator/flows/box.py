"""What is done on a box: each function is the body of one task and may be repeated."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from orchestrator.core.commands import (
    agent_root,
    resume_place,
    trainer_command,
    trainer_env,
    work_folder,
)
from orchestrator.core.packages import packages_for
from orchestrator.core.plan import Plan, PushPlan, Upload
from orchestrator.core.run import Attempt, Instance, Seal, Source
from orchestrator.errors import CommandFailed, IntegrityError, Locked, NotFound, Wiped
from orchestrator.flows import outfit, stores
from orchestrator.flows.launch import PUSH_KEYS
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

SETUP_TIMEOUT_S = 3600.0
REQUIREMENTS = "remote/trainer/requirements.txt"
REACHED = ("reached", 0)


@dataclass(frozen=True)
class Kit:
    """What a task needs to work on one box of one run. `hours_until` is when the budget's hours
    will be over, if nobody is there to see it."""

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

    @property
    def login(self) -> str:
        """What comes before a command that needs the surroundings of a login."""
        return outfit.login(self.provider.capabilities.login_file if self.provider else "")

    def shell(self, context: TaskContext) -> Shell:
        shell = self.boxes.shell(self.endpoint, self.run)
        context.on_cancel(shell.close)
        return shell

    def stream(self, context: TaskContext) -> Stream:
        cap = self.plan.checkpoints.transfer
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


def prepare(context: TaskContext, kit: Kit, provider: Provider, instance: Instance) -> None:
    """Make the box able to run the trainer: agent, code, data, secrets, setup, packages.

    Reports REACHED once the box let us in. Raises Locked when it does not, after its provider was
    told our key, which takes effect some seconds later; Unusable when it is not what was rented."""
    kit = replace(kit, provider=provider, provider_id=instance.provider_id or "")
    where = kit.endpoint
    keys = provider.host_keys(instance.provider_id or "")
    kit.boxes.pin(where.instance, kit.run, keys, where.host, where.port)
    shell = kit.shell(context)
    try:
        _enter(context, kit, provider, shell)
        if _is_gpu(kit, instance):
            outfit.check_gpus(shell, kit.login, kit.world_size)
        outfit.check_tools(shell, kit.login)
        root = agent_root(kit.run)
        if kit.plan.rental.volume:
            outfit.link_volume(shell, kit.run, kit.plan.rental)
        shell.run(f"umask 077; mkdir -p {root} && mkdir -p {work_folder(kit.run)}")
        shell.put(kit.agent, f"{root}/agent.pyz")
        _upload(context, kit)
        if kit.plan.train is not None:
            shell.put(json.dumps(dict(kit.plan.train)).encode(), f"{root}/train.json")
        if kit.plan.secrets:
            shell.put((kit.folder / "secrets.env").read_bytes(), f"{root}/secrets.env")
        if kit.plan.setup:
            _setup(shell, kit)
        if kit.plan.train is not None:
            text = (kit.library[0] / REQUIREMENTS).read_text()
            needed = outfit.requirements("\n".join([text, *packages_for(kit.plan.train)]))
            outfit.add_packages(shell, kit.login, needed, root)
        if kit.plan.checkpoints.also is not None:
            _let_push(shell, kit, kit.plan.checkpoints.also)
    finally:
        shell.close()


def start(context: TaskContext, kit: Kit, attempt: Attempt) -> Mapping[str, Any]:
    """Put the checkpoint in place and start the trainer; for one that was started, its agent.
    Raises Wiped when what `prepare` put on the box is gone.

    What a trainer that runs has resumed from is left alone: it may have moved on since."""
    if attempt.resume and attempt.started_at is None:
        _place(context, kit, attempt.resume)
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


def follow(context: TaskContext, kit: Kit, events: int, log: int, metrics: int) -> None:
    """Report whatever the agent says, until the link dies or the task is cancelled."""
    follower = kit.boxes.follow(kit.endpoint, kit.run, events=events, log=log, metrics=metrics)
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
        told = _telling(context, seal.digest)
        with kit.mirror.partial(manifest) as partial:
            stream.pull(seal.name, seal.generation, partial, manifest, told)
            return str(kit.mirror.publish(seal.name, seal.generation, manifest))
    finally:
        stream.close()


def acknowledge(context: TaskContext, kit: Kit, seals: tuple[Seal, ...]) -> Looked:
    """Look through what is on record as held here, and tell the box of what is. What the mirror
    has lost since, the box may have the only copy of."""
    held = [seal for seal in seals if kit.mirror.holds(seal.digest)]
    stream = kit.stream(context)
    try:
        for seal in held:
            # What it does not know it has nothing to forget of.
            with suppress(NotFound):
                stream.ack(seal.name, seal.generation)
        return Looked(tuple(held), tuple(seal for seal in seals if seal not in held))
    finally:
        stream.close()


def _telling(context: TaskContext, what: str) -> Progress:
    """Reports (what, bytes verified so far): a stall is when the most of it no longer grows."""
    return lambda size_bytes: context.report((what, size_bytes))


def _enter(context: TaskContext, kit: Kit, provider: Provider, shell: Shell) -> None:
    try:
        shell.run("true")
    except Locked:
        provider.ensure_access(kit.provider_id, kit.boxes.public_key())
        raise
    context.report(REACHED)


def _is_gpu(kit: Kit, instance: Instance) -> bool:
    rented = (instance.provider, instance.offer)
    return any(
        offer.gpu != "cpu" for offer in kit.plan.offers if (offer.provider, offer.id) == rented
    )


def _upload(context: TaskContext, kit: Kit) -> None:
    stream = kit.stream(context)
    try:
        for upload in kit.plan.uploads:
            dest = f"{work_folder(kit.run)}/{upload.dest}".rstrip("/.")
            told = _telling(context, upload.digest)
            stream.push(_source(kit, upload), upload.tree, dest, "merge", told)
        if kit.plan.train is not None:
            source, manifest = kit.library
            dest = f"{agent_root(kit.run)}/lib"
            stream.push(source, manifest, dest, "merge", _telling(context, manifest.digest))
    finally:
        stream.close()


def _let_push(shell: Shell, kit: Kit, also: PushPlan) -> None:
    """What the agent needs to have checkpoints pushed; `push.json` last, for it turns that on."""
    root = agent_root(kit.run)
    shell.put((kit.folder / PUSH_KEYS).read_bytes(), f"{root}/s3.env")
    python = outfit.push_python(shell, kit.login, root)
    record = {
        "v": 1,
        "also": also.uri,
        "run": kit.run,
        "endpoint_url": also.endpoint_url,
        "region": also.region,
        "python": python,
    }
    shell.put(json.dumps(record).encode(), f"{root}/push.json")


def _source(kit: Kit, upload: Upload) -> Path:
    return kit.folder / "code" if upload.what == "code" else Path(upload.source)


def _setup(shell: Shell, kit: Kit) -> None:
    """The job's own setup command, with its environment and secrets, in the work folder."""
    root, work = agent_root(kit.run), work_folder(kit.run)
    env = {**outfit.volume_env(kit.plan.rental), **kit.plan.env}
    exports = "".join(f"export {name}={shell_words([text])}; " for name, text in env.items())
    load = f'while IFS= read -r pair; do export "$pair"; done < "$HOME/{root}/secrets.env"; '
    given = f"{load if kit.plan.secrets else ''}{exports}"
    script = f"{kit.login}cd {work} && {{ {given}\n{kit.plan.setup}\n}}"
    done = shell.run("bash -s", stdin=script.encode(), timeout_s=SETUP_TIMEOUT_S, check=False)
    if done.rc != 0:
        last = (done.stderr or done.stdout).strip()
        raise CommandFailed(f"setup ended with {done.rc}: {last}", done.rc, last)


def _place(context: TaskContext, kit: Kit, source: Source) -> None:
    """Put the checkpoint to resume from where the trainer will look: from the box's own seal
    when it has one, else from the mirror, else from S3."""
    dest = f"{work_folder(kit.run)}/{resume_place(kit.plan, source)}"
    stream = kit.stream(context)
    try:
        with suppress(NotFound):
            told = _telling(context, source.digest)
            stream.restore(source.name, source.digest, dest, told)
            return
        held = kit.mirror.holds(source.digest)
        if held is not None:
            manifest = kit.mirror.manifest(source.digest)
            stream.push(held, manifest, dest, "folder", _telling(context, manifest.digest))
            return
    finally:
        stream.close()
    if kit.plan.checkpoints.also is None:
        raise IntegrityError(
            f"{source.name} is neither on the box nor in the mirror as it was verified"
        )
    shell = kit.shell(context)
    try:
        stores.restore(context, shell, kit.run, kit.plan, source)
    finally:
        shell.close()


def _spec(kit: Kit, attempt: Attempt) -> dict[str, Any]:
    plan = kit.plan
    return {
        "v": 1,
        "instance": kit.endpoint.instance,
        "attempt": attempt.number,
        "workdir": work_folder(kit.run),
        "command": trainer_command(plan, kit.run, attempt, kit.world_size),
        "env": {
            **outfit.volume_env(plan.rental),
            **trainer_env(plan, kit.run, attempt, kit.world_size),
        },
        "secrets": bool(plan.secrets),
        "checkpoints": plan.checkpoints.path,
        "layout": plan.checkpoints.rule or plan.checkpoints.layout,
        "world_size": kit.world_size,
        "resume_step": attempt.resume.step if attempt.resume else None,
        "resume_at": resume_place(plan, attempt.resume) if attempt.resume else None,
        "deadman": _deadman(kit),
    }


def _deadman(kit: Kit) -> dict[str, Any] | None:
    """What the box does once nobody asks after it (formats.md §7)."""
    if not kit.plan.orphan_s:
        return None
    rented = kit.provider if kit.provider_id else None
    stop = rented.self_stop(kit.provider_id) if rented else None
    return {
        "orphan_s": kit.plan.orphan_s,
        "hours_until": kit.hours_until.isoformat() if kit.hours_until else None,
        "keeps_seals": bool(kit.plan.rental.volume),
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
