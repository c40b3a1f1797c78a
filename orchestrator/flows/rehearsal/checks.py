"""Mistakes that the user's own files tell before anything runs."""

from __future__ import annotations

import difflib
import json
import posixpath
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from orchestrator.core.rehearsal import edits, families, sources
from orchestrator.core.rehearsal.report import Mistake
from orchestrator.core.spec import Job
from orchestrator.core.spec.tokens import names_secret
from orchestrator.flows.rehearsal.code import Code, all_settings, is_there, models_of, read_text
from orchestrator.flows.rehearsal.columns import unknown_columns
from orchestrator.flows.rehearsal.crash import NOT_READ
from orchestrator.flows.rehearsal.intervals import found_in_intervals

# What a project's own file installs is not read.
_BY_PROJECT = re.compile(r"install\s+(?:-e|\.|--editable)|uv sync|poetry|conda|pdm ")
_READ = re.compile(r"""(?:environ(?:\.get\(|\[)|getenv\()\s*['"](\w+)['"]""")
# How many processes a launcher starts, where that is written as a number.
_PROCESSES = re.compile(
    r"(?:--num_gpus|--nproc[_-]per[_-]node|--num_processes|trainer\.n_gpus_per_node)[= ]+(\d+)\b"
)
# Bytes a parameter in a checkpoint of all weights, at the least; of verl's two models 12 each.
LEAST_BYTES = {"verl": 24.0}


def found_in_files(job: Job, code: Code) -> Iterator[Mistake]:
    """Keys are those of the job as this phase has it."""
    for name, words in code.unreadable.items():
        yield Mistake(name, f"it cannot be read: {words}", "correct the file", NOT_READ)
    yield from _requirements(job, code)
    yield from _resume_flag(job, code)
    yield from _processes(job)
    yield from found_in_intervals(job, code)
    yield from unknown_columns(job, code)
    yield from _disk(job, code)


def unset_secrets(job: Job, known: Mapping[str, str], code: Code) -> Iterator[Mistake]:
    """A secret that nothing sets, where a name that the environment or the code has and this one
    resembles is what was meant; and one that the code cannot do without and nobody names."""
    needed = {name for each in code.entries for name in sources.variables(each, code.texts)}
    used = set(_READ.findall(" ".join(code.texts.values())))
    told: set[str] = set()
    for index, name in enumerate(job.secrets):
        if known.get(name):
            continue
        candidates = sorted((used | {each for each in known if known[each]}) - {name})
        close = difflib.get_close_matches(name, candidates, n=1, cutoff=0.8)
        advice = f"write {close[0]}" if close else f"export {name}=…, or correct the name"
        about = close[0] if close else name
        told.add(about)
        yield Mistake(f"secrets[{index}]", f"nothing sets {name}", advice, about)
    for name in sorted(needed - {*told, *job.secrets, *job.env}):
        if names_secret(name):
            words = f"the code reads {name} from its environment, and the job does not bring it"
            yield Mistake("secrets", words, f"add {name}", name)


def _requirements(job: Job, code: Code) -> Iterator[Mistake]:
    if job.setup is None or _BY_PROJECT.search(job.setup):
        return
    files, packages = sources.installs(job.setup)
    listed = list(packages)
    for name in files:
        path = _find(name, job, code)
        if path is None:
            yield Mistake(
                "setup",
                f"it installs from {name}, which is not among the files of the code",
                "name the requirements file by its path in the code folder",
            )
            return
        listed += sources.requirements(read_text(path))
    if listed:
        where = files[0] if files else "setup"
        yield from (_not_installed(module, where) for module in _missing(listed, code))


def _missing(listed: list[str], code: Code) -> tuple[str, ...]:
    mine = [each for each in code.entries if is_there(each, code)]
    needed = {module for each in mine for module in sources.outside(each, code.texts)}
    return sources.missing(needed, listed)


def _not_installed(module: str, where: str) -> Mistake:
    return Mistake(
        "setup" if where == "setup" else f"setup ({where})",
        f"the code imports {module}, and nothing that is installed brings it",
        f"add {sources.package_of(module)} to {where}",
        module,
    )


def _find(name: str, job: Job, code: Code) -> Path | None:
    """The file here that will be `name` in the work folder."""
    place = posixpath.normpath(name)
    if place in code.files and (code.folder / place).is_file():
        return code.folder / place
    for item in job.data:
        source, dest = job.local(item.source), posixpath.normpath(item.to)
        below = source / posixpath.relpath(place, dest)
        if source.is_dir() and place.startswith(f"{dest}/") and below.is_file():
            return below
        if source.is_file() and place in (f"{dest}/{source.name}", dest):
            return source
    return None


def _resume_flag(job: Job, code: Code) -> Iterator[Mistake]:
    for flag in sources.flags(job.checkpoints.resume.args):
        for entry in code.entries[-1:]:
            if is_there(entry, code) and not sources.knows_flag(flag, entry, code.texts):
                yield Mistake(
                    "checkpoints.resume.args",
                    f"{entry} does not know {flag}: a lost box would begin from the start",
                    "write the flag that the script reads, or teach it this one",
                )


def _processes(job: Job) -> Iterator[Mistake]:
    """Of a command that starts several, the largest number counts: others may prepare."""
    said = max(map(int, _PROCESSES.findall(job.run or "")), default=None)
    counts = {need.count for need in job.resources.needs}
    if said is not None and job.resources.nodes == 1 and said not in counts:
        have = " or ".join(map(str, sorted(counts)))
        words = f"it starts {said} processes, and resources.gpu has {have}"
        yield Mistake("run", words, "write {gpus} in place of the number")


def _disk(job: Job, code: Code) -> Iterator[Mistake]:
    """A floor from the model's name alone: its weights, and what is saved of them at once."""
    disk_gb = job.resources.disk_gb
    sizes = [found for each in models_of(job, code) if (found := edits.billions(each))]
    if disk_gb is None or not sizes or job.resources.volume:
        return
    need_gb, words = _least_gb(job, all_settings(job, code), max(sizes))
    if need_gb > disk_gb:
        yield Mistake(
            "resources.disk_gb",
            f"it is {disk_gb}, and {words} need at least {need_gb:.0f} GB",
            f"set resources.disk_gb: {round(need_gb * 1.2 / 10 + 0.5) * 10}",
        )


def _least_gb(job: Job, tree: Mapping[str, Any], billion: float) -> tuple[float, str]:
    weights_gb = 2 * billion
    adapters = "lora" in json.dumps(tree, default=str).lower()
    adapters |= bool(job.train and job.train.adapters)
    size_gb = job.checkpoints.size_gb
    if adapters and size_gb is None:
        return weights_gb, f"the weights of {billion:g} billion parameters"
    layout = families.expected(job.run or "", job.checkpoints.layout)
    limits = [value for _, value in edits.named(tree, edits.LIMIT) if edits.is_count(value)]
    at_once = min(limits, default=1)
    each_gb = size_gb or LEAST_BYTES.get(layout, 6.0) * billion
    words = f"{billion:g} billion parameters and {at_once} checkpoint{'s' * (at_once > 1)} of them"
    return weights_gb + at_once * each_gb, words
