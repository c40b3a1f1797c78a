"""What a phase of a job runs: its code, data and settings, and the key of a verdict on them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.core.codec import from_json
from orchestrator.core.commands import own_trainer_command
from orchestrator.core.gate import Gate, verdict_key
from orchestrator.core.patching import patched
from orchestrator.core.placeholders import fill_all
from orchestrator.core.plan import PatchedFile, StartPlan, Upload
from orchestrator.core.spec import DataItem, Git, Job, Phase
from orchestrator.core.spec.training import record_of
from orchestrator.errors import BadJobFile
from orchestrator.ports import Checkout, Trees

TRAINER_CACHE = ".trainer-cache/"
MOST_PATCHED_BYTES = 2**20
START_FOLDER = "gpujob_start"


@dataclass(frozen=True)
class Part:
    """A phase as the job file writes it and the whole job that it is; `before` is the name of the
    phase before it, `alone` is true for the only one of its job."""

    phase: Phase
    job: Job
    before: str = ""
    alone: bool = True


@dataclass(frozen=True)
class Work:
    """`key` is what a verdict on it holds for: command, settings, gate, code, data and image."""

    command: str
    start: StartPlan | None
    uploads: tuple[Upload, ...]
    patch: tuple[PatchedFile, ...]
    train: Mapping[str, Any] | None
    gate: Gate | None
    key: str


def work_of(part: Part, trees: Trees) -> Work:
    """Raises BadJobFile for what the file asks and this machine lacks."""
    phase, job = part.phase, part.job
    start = _start(part)
    uploads = _uploads(job, trees)
    patch = tuple(_patched(job, uploads, phase.name, start))
    command, train = job.run or own_trainer_command(), _train(job, start)
    asked = phase.gate.model_dump(mode="json") if phase.gate else None
    config = {
        "command": command,
        "train": train,
        "env": dict(job.env),
        "setup": job.setup or "",
        "patch": {each.path: each.text for each in patch},
        "resume": job.checkpoints.resume.model_dump(mode="json"),
        "stop_after_steps": phase.stop_after_steps,
        "gate": asked,
    }
    code = next(upload.digest for upload in uploads if upload.what == "code")
    data = sorted((upload.dest, upload.digest) for upload in uploads if upload.what == "data")
    key = verdict_key(config, code=code, image=job.resources.image, data=str(data))
    gate = from_json(Gate, asked) if asked else None
    return Work(command, start, uploads, patch, train, gate, key)


def check_checkout(wanted: Git, phase: str, folder: Path, found: Checkout | None) -> None:
    """Raises BadJobFile unless `folder` is checked out (`found`) as the phase wants it."""
    if found is None:
        raise BadJobFile(
            f"phase {phase} asks for a branch or commit, and {folder} is in no git repository; "
            "nothing was rented",
            hint="remove `git:` from the phase, or let `code.path` name a repository",
        )
    if wanted.branch and found.branch != wanted.branch:
        at = f"branch {found.branch}" if found.branch else f"commit {found.commit[:12]}, no branch"
        raise BadJobFile(
            f"phase {phase} runs the code of branch {wanted.branch}, and {folder} is at {at}; "
            "nothing was rented",
            hint=f"git -C {folder} switch {wanted.branch}",
        )
    if wanted.commit and not found.commit.startswith(wanted.commit):
        raise BadJobFile(
            f"phase {phase} runs the code of commit {wanted.commit}, and {folder} is at "
            f"{found.commit[:12]}; nothing was rented",
            hint=f"git -C {folder} switch --detach {wanted.commit}",
        )


def _start(part: Part) -> StartPlan | None:
    wanted = part.phase.start_from
    if wanted is None:
        return None
    name = wanted.phase or part.before
    return StartPlan(name, wanted.checkpoint, wanted.how, f"{START_FOLDER}/{name}")


def _given_values(job: Job, phase: str, start: StartPlan | None) -> dict[str, str]:
    """The placeholders that are known before anything is rented."""
    place = start.place if start and start.how == "path" else ""
    return {"start": place, "phase": phase, "checkpoints.path": job.checkpoints.path}


def _train(job: Job, start: StartPlan | None) -> Mapping[str, Any] | None:
    if job.train is None:
        return None
    told = record_of(job.train)
    filled: Mapping[str, Any] = fill_all(told, {"start": start.place}) if start else told
    return filled


def _patched(
    job: Job, uploads: Sequence[Upload], phase: str, start: StartPlan | None
) -> list[PatchedFile]:
    code = next(upload for upload in uploads if upload.what == "code")
    travels = {entry.path for entry in code.tree.files} if job.patch else set()
    values, found = _given_values(job, phase, start), []
    for name, changes in job.patch.items():
        path = Path(code.source) / name
        if name not in travels:
            raise BadJobFile(
                f"patch: {name} is not among the files of the code; nothing was rented",
                hint=f"name a file below {code.source} that travels, by its path from there",
            )
        if path.stat().st_size > MOST_PATCHED_BYTES:
            raise BadJobFile(f"patch: {name} is larger than 1 MiB; is it a settings file?")
        text, keys = patched(path.read_bytes(), name, fill_all(changes, values))
        found.append(PatchedFile(name, keys, text))
    return found


def _uploads(job: Job, trees: Trees) -> tuple[Upload, ...]:
    code = job.local(job.code.path).resolve()
    if not code.is_dir():
        raise BadJobFile(f"code.path: {code} is not a folder", hint="correct `code: {path: …}`")
    kept_out = [*job.code.exclude, *_own_output(job, code), TRAINER_CACHE]
    uploads = [_upload(trees, "code", code, "", kept_out)]
    return (*uploads, *(_data(job, item, trees) for item in job.data))


def _own_output(job: Job, code: Path) -> list[str]:
    """What runs wrote into the code folder is no code."""
    mirror = re.sub(r"\{[^{}]*\}", "*", job.checkpoints.mirror or "checkpoints")
    places = [job.local(mirror).resolve(), (code / job.checkpoints.path).resolve()]
    return [
        f"/{place.relative_to(code).as_posix()}/"
        for place in places
        if place != code and place.is_relative_to(code)
    ]


def _data(job: Job, item: DataItem, trees: Trees) -> Upload:
    source = job.local(item.source)
    if not source.exists():
        raise BadJobFile(
            f"data: {item.source} does not exist ({source}); nothing was rented",
            hint="correct `from:` in the job file; paths are relative to the file",
        )
    return _upload(trees, "data", source.resolve(), item.to, (), ignore_files=False)


def _upload(
    trees: Trees,
    what: str,
    source: Path,
    dest: str,
    exclude: Sequence[str],
    *,
    ignore_files: bool = True,
) -> Upload:
    scan = trees.scan(source, exclude, ignore_files=ignore_files)
    manifest = trees.manifest(source, scan)
    folder, root = dest, source
    if source.is_file():
        # A file is a tree of one: `to:` names the file, or a folder when it ends with a slash.
        renamed = dest if dest.endswith("/") or not dest else str(Path(dest).parent)
        folder, root = renamed, source.parent
        if dest and not dest.endswith("/") and Path(dest).name != source.name:
            raise BadJobFile(
                f"data: {source.name} cannot be renamed to {dest} on the way",
                hint=f"write `to: {Path(dest).parent}/` or rename the file",
            )
    return Upload(
        what="code" if what == "code" else "data",
        source=str(root),
        dest=folder.strip("/") or ".",
        files=len(manifest.files),
        size_bytes=manifest.size_bytes,
        digest=manifest.digest,
        manifest=manifest.to_json(),
        skipped=scan.skipped,
    )
