"""Before a box can train in a phase: what its trainer needs is looked for, and put there."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchestrator.core.commands import agent_root, work_folder
from orchestrator.core.packages import packages_for
from orchestrator.core.plan import PushPlan, Upload
from orchestrator.core.run import Instance
from orchestrator.errors import CommandFailed, Locked
from orchestrator.flows import outfit
from orchestrator.flows.box import Kit, telling
from orchestrator.flows.launch import PUSH_KEYS, SECRETS
from orchestrator.ports import Provider, Shell, TaskContext
from remote.contract import shell_words

SETUP_TIMEOUT_S = 3600.0
REQUIREMENTS = "remote/trainer/requirements.txt"
REACHED = ("reached", 0)


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
        if kit.phase.rental.volume:
            outfit.link_volume(shell, kit.run, kit.phase.rental)
        shell.run(f"umask 077; mkdir -p {root} && mkdir -p {work_folder(kit.run)}")
        shell.put(kit.agent, f"{root}/agent.pyz")
        _upload(context, kit)
        _clear(shell, kit)
        _patch(shell, kit)
        _put_secrets(shell, kit)
        if kit.phase.setup:
            _setup(shell, kit)
        if kit.phase.train is not None:
            _fit_trainer(shell, kit, kit.phase.train)
        if kit.phase.checkpoints.also is not None:
            _let_push(shell, kit, kit.phase.checkpoints.also)
    finally:
        shell.close()


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
        offer.gpu != "cpu" for offer in kit.phase.offers if (offer.provider, offer.id) == rented
    )


def _upload(context: TaskContext, kit: Kit) -> None:
    stream = kit.stream(context)
    try:
        for upload in kit.phase.uploads:
            dest = f"{work_folder(kit.run)}/{upload.dest}".rstrip("/.")
            told = telling(context, upload.digest)
            stream.push(_source(kit, upload), upload.tree, dest, "merge", told)
        if kit.phase.train is not None:
            source, manifest = kit.library
            dest = f"{agent_root(kit.run)}/lib"
            stream.push(source, manifest, dest, "merge", telling(context, manifest.digest))
    finally:
        stream.close()


def _source(kit: Kit, upload: Upload) -> Path:
    if upload.what == "code":
        return kit.folder / kit.plan.code_folder(upload)
    return Path(upload.source)


def _clear(shell: Shell, kit: Kit) -> None:
    """One code laid over another's would leave modules that the second has not: a box that is kept
    for this phase may hold that of an earlier one."""
    mine = {upload.digest for upload in kit.phase.uploads}
    others = {
        upload.digest: upload
        for phase in kit.plan.phases
        for upload in phase.uploads
        if upload.what == "code" and upload.digest not in mine
    }
    stale = sorted(set(_paths(others.values())) - set(_paths(kit.phase.uploads)) if others else ())
    if stale:
        words = "\0".join(stale).encode()
        shell.run(f"cd {work_folder(kit.run)} && xargs -0 rm -f --", stdin=words)


def _paths(uploads: Iterable[Upload]) -> Iterator[str]:
    """Where they are put, below the work folder."""
    for upload in uploads:
        folder = "" if upload.dest == "." else f"{upload.dest}/"
        yield from (f"{folder}{entry.path}" for entry in upload.tree.files)


def _patch(shell: Shell, kit: Kit) -> None:
    for patched in kit.phase.patch:
        data = patched.place(kit.folder, kit.index).read_bytes()
        shell.put(data, f"{work_folder(kit.run)}/{patched.path}", mode=0o644)


def _put_secrets(shell: Shell, kit: Kit) -> None:
    """Those that this phase names; a box that is kept for it lets go of an earlier one's."""
    place = f"{agent_root(kit.run)}/{SECRETS}"
    if kit.phase.secrets:
        lines = (kit.folder / SECRETS).read_text().splitlines(keepends=True)
        mine = [line for line in lines if line.partition("=")[0] in kit.phase.secrets]
        shell.put("".join(mine).encode(), place)
    elif kit.plan.secrets:
        shell.run(f"rm -f {place}")


def _setup(shell: Shell, kit: Kit) -> None:
    """The job's own setup command, with its environment and secrets, in the work folder."""
    root, work = agent_root(kit.run), work_folder(kit.run)
    env = {**outfit.volume_env(kit.phase.rental), **kit.phase.env}
    exports = "".join(f"export {name}={shell_words([text])}; " for name, text in env.items())
    load = f'while IFS= read -r pair; do export "$pair"; done < "$HOME/{root}/secrets.env"; '
    given = f"{load if kit.phase.secrets else ''}{exports}"
    script = f"{kit.login}cd {work} && {{ {given}\n{kit.phase.setup}\n}}"
    done = shell.run("bash -s", stdin=script.encode(), timeout_s=SETUP_TIMEOUT_S, check=False)
    if done.rc != 0:
        last = (done.stderr or done.stdout).strip()
        raise CommandFailed(f"setup ended with {done.rc}: {last}", done.rc, last)


def _fit_trainer(shell: Shell, kit: Kit, train: Mapping[str, Any]) -> None:
    """What our own trainer is told, and the packages that it needs."""
    root = agent_root(kit.run)
    shell.put(json.dumps(dict(train)).encode(), f"{root}/train.json")
    text = (kit.library[0] / REQUIREMENTS).read_text()
    needed = outfit.requirements("\n".join([text, *packages_for(train)]))
    outfit.add_packages(shell, kit.login, needed, root)


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
