"""Checkpoints that come home without a box: pushed to S3, or on a volume that answers S3."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from orchestrator.core.commands import agent_root
from orchestrator.core.facts import Told, to_event
from orchestrator.core.plan import PushPlan
from orchestrator.core.run import Instance, Run, Seal, Source
from orchestrator.errors import CommandFailed, IntegrityError, Missing, Transient
from orchestrator.flows.launch import PUSH_KEYS, VOLUME_KEYS
from orchestrator.ports import Mirror, Provider, Shell, Store, StorePlace, TaskContext
from remote.contract import Fact, Manifest, pushed_uri, shell_words, split_uri

RESTORE_TIMEOUT_S = 120.0
NOWHERE = "https://volume.invalid"
OpenStore = Callable[[StorePlace], Store]


def no_store(place: StorePlace) -> Store:
    """What a world without S3 opens."""
    raise Missing(f"{place.bucket} cannot be opened: this program was started without S3")


def place_of(
    run: Run, also: PushPlan | None, seal: Seal, folder: Path, provider: Provider
) -> tuple[StorePlace, str]:
    """The bucket that holds a seal and its key there; `is_stored` has to be true of it. `folder`
    is the run's, `provider` the one of the seal's box."""
    if seal.digest in run.pushed and also:
        bucket, base = split_uri(run.pushed[seal.digest])
        return StorePlace(bucket, also.endpoint_url, also.region, folder / PUSH_KEYS), base
    place = _volume_place(run, run.find_instance(seal.instance), folder, provider)
    return place, f"gpujob/{run.id}/seals/{seal.name}.{seal.generation}"


def _volume_place(run: Run, instance: Instance, folder: Path, provider: Provider) -> StorePlace:
    region = instance.region
    url = provider.capabilities.volume_s3.format(region=region.lower())
    # Empty would mean Amazon, to whom a volume's keys are nobody's.
    return StorePlace(run.volume, url or NOWHERE, region, folder / VOLUME_KEYS)


def places_of(
    run: Run, also: PushPlan | None, instance: Instance, folder: Path, provider: Provider
) -> list[tuple[StorePlace, str]]:
    """The buckets in which a lost box may have left checkpoints, and below which key."""
    places = []
    if also:
        bucket, key = split_uri(f"{also.uri}/{run.id}")
        places.append((StorePlace(bucket, also.endpoint_url, also.region, folder / PUSH_KEYS), key))
    if run.volume and run.volume_store:
        place = _volume_place(run, instance, folder, provider)
        places.append((place, f"gpujob/{run.id}/seals"))
    return places


def look(
    context: TaskContext, store: OpenStore, places: Sequence[tuple[StorePlace, str]]
) -> list[tuple[str, Manifest]]:
    """What lies there, as (s3://bucket/key, manifest)."""
    found = []
    for place, prefix in places:
        opened = store(place)
        context.on_cancel(opened.close)
        try:
            for base, manifest in opened.found(prefix):
                found.append((f"s3://{place.bucket}/{base}", manifest))
        finally:
            opened.close()
    return found


def told_by(run: Run, instance: str, uri: str, manifest: Manifest) -> list[Told]:
    """The events that a checkpoint found in a store stands for, had its box been heard.

    Raises ContractError when no honest box wrote it."""
    meta, name = manifest.meta, str(manifest.meta.get("name"))
    told = []
    sealed = {
        **{key: meta.get(key) for key in ("attempt", "generation", "step", "max_steps", "final")},
        "resumes": meta.get("resumes"),
        "name": name,
        "size_bytes": manifest.size_bytes,
        "digest": manifest.digest,
    }
    if not any((seal.name, seal.digest) == (name, manifest.digest) for seal in run.seals):
        told.append(to_event(run, _fact(instance, "checkpoint.sealed", sealed)))
    is_pushed = run.also and uri == pushed_uri(run.also, run.id, name, manifest.digest)
    if is_pushed and manifest.digest not in run.pushed:
        event = {"instance": instance, "name": name, "generation": sealed["generation"]}
        told.append(("checkpoint.pushed", {**event, "digest": manifest.digest, "uri": uri}))
    return [each for each in told if each]


def _fact(instance: str, kind: str, data: dict[str, Any]) -> Fact:
    return Fact(instance, "store", 1, "", kind, data)


def fetch(
    context: TaskContext, mirror: Mirror, store: OpenStore, place: StorePlace, base: str, seal: Seal
) -> str:
    """Mirror one stored checkpoint and return the folder it is published in. A volume is a live
    view: every byte is held against the manifest that the box told the digest of."""
    held = mirror.holds(seal.digest)
    if held:
        return str(held)
    opened = store(place)
    context.on_cancel(opened.close)
    try:
        manifest = opened.manifest(base)
        if manifest.digest != seal.digest:
            raise IntegrityError(f"another checkpoint than {seal.name} lies at {base}")
        with mirror.partial(manifest) as partial:
            opened.pull(base, partial, manifest, lambda size: context.report((seal.digest, size)))
            return str(mirror.publish(seal.name, seal.generation, manifest))
    finally:
        opened.close()


def restore(context: TaskContext, shell: Shell, run: str, source: Source, dest: str) -> None:
    """Let the box fetch a pushed checkpoint itself and put it at `dest`, where the trainer will
    look.

    The box works on when we lose it, and tells each time how far it is. Raises Transient when it
    may work later, IntegrityError when this checkpoint cannot be had."""
    root, python = agent_root(run), _python(shell, run)
    words = ["--name", source.name, "--digest", source.digest, "--dest", dest, "--root", root]
    command = shell_words([python, "-m", "remote.push", "restore", *words])
    while not context.cancelled():
        line = f"PYTHONPATH={shell_words([f'{root}/agent.pyz'])} {command}"
        said = _last_object(shell.run(line, timeout_s=RESTORE_TIMEOUT_S).stdout)
        if said.get("state") == "done":
            return
        if said.get("state") != "running":
            raise _failure(source, said)
        context.report((source.digest, int(said.get("bytes", 0))))
    raise Transient(f"{source.name} was no longer wanted")


def _python(shell: Shell, run: str) -> str:
    said = _last_object(shell.run(f"cat {shell_words([f'{agent_root(run)}/push.json'])}").stdout)
    return str(said.get("python") or "python3")


def _last_object(text: str) -> dict[str, Any]:
    try:
        said = json.loads(text.strip().split("\n")[-1])
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise CommandFailed("the box's program for S3 said nothing that can be read", 1)
    return said


def _failure(source: Source, said: dict[str, Any]) -> Exception:
    kind, message = str(said.get("kind")), str(said.get("message", ""))[:500]
    what = f"{source.name} could not be fetched from S3 by the box: {message}"
    if kind in ("Denied", "Absent", "Corrupt", "ContractError"):
        return IntegrityError(what)
    return Transient(what)
