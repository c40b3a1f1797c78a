"""The user's own code of a phase: what it holds, what it starts, and whether that can run here."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from orchestrator.core.patching import patched
from orchestrator.core.rehearsal import edits, families, sources
from orchestrator.core.spec import Job
from orchestrator.errors import BadJobFile
from orchestrator.ports import Trees

MOST_SOURCE_BYTES = 2**20
MOST_SOURCES = 1000
_SETTINGS = re.compile(r"[\w./-]+\.(?:json|ya?ml)\b")
_PLAIN_SETUP = re.compile(
    r"^$|^#|^set |^echo |^(?:python3? -m )?(?:uv )?pip3? |^uv |^apt(?:-get)? |^sudo "
)
_SHELL_SCRIPT = re.compile(r"(?:^|[\s;&|])(?:\./|bash |sh )\S*\.sh\b")


@dataclass(frozen=True)
class Code:
    """The user's own files of one phase: Python by path, settings files that its command names as
    they are after the job's `patch`, which of those nobody can read and why, and which scripts it
    starts."""

    folder: Path
    files: frozenset[str]
    texts: Mapping[str, str] = field(repr=False)
    settings: Mapping[str, Any] = field(repr=False)
    entries: tuple[str, ...]
    unreadable: Mapping[str, str] = field(default_factory=dict)


def read_code(job: Job, trees: Trees) -> Code:
    """Raises BadJobFile when the folder of the code is not there."""
    folder = job.local(job.code.path).resolve()
    if not folder.is_dir():
        raise BadJobFile(f"code.path: {folder} is not a folder", hint="correct `code: {path: …}`")
    paths = trees.scan(folder, job.code.exclude, ignore_files=True).paths
    texts = {path: read_text(folder / path) for path in paths if path.endswith(".py")}
    texts |= {place: read_text(path) for place, path in _brought(job) if place.endswith(".py")}
    named = {path for path in _SETTINGS.findall(job.run or "") if path in paths}
    settings, unreadable = {}, {}
    for path in sorted(named):
        try:
            settings[path] = _settings(folder / path, path, job)
        except ValueError as error:
            settings[path], unreadable[path] = {}, str(error)
    entries = sources.entries(job.run or "")
    return Code(folder, frozenset([*paths, *texts]), texts, settings, entries, unreadable)


def all_settings(job: Job, code: Code) -> dict[str, Any]:
    """What the settings files say, and what the command says itself, as `run`."""
    return {**code.settings, "run": edits.settings_in(job.run or "")}


def models_of(job: Job, code: Code) -> tuple[str, ...]:
    """The models that settings, command and `train` name."""
    found = [value for _, value in edits.named(all_settings(job, code), edits.MODEL)]
    if job.train:
        found.append(job.train.model)
    return tuple(dict.fromkeys(value for value in found if isinstance(value, str)))


def runs_here(code: Code, command: str, setup: str, importable: Callable[[str], bool]) -> str:
    """Why the user's own trainer cannot run on this machine; empty when it can."""
    if "-m remote.trainer evaluate" in command:
        return "an evaluation with a model of a few words tells nothing"
    if _brings_files(setup):
        return "setup brings files that are not here"
    if _SHELL_SCRIPT.search(command):
        return "it is started by a shell script"
    mine = [each for each in code.entries if is_there(each, code)]
    if not mine or len(mine) < len(code.entries):
        absent = next((each for each in code.entries if not is_there(each, code)), "its program")
        return f"{absent} is not in the code folder"
    if families.started_by(command) in ("verl", "torchtune", "dcp"):
        return "its framework needs GPUs"
    needed = {name for each in mine for name in sources.outside(each, code.texts)}
    absent_here = sorted(name for name in needed if not importable(name))
    return f"{', '.join(absent_here[:4])} is not installed here" if absent_here else ""


def real_scripts(code: Code, importable: Callable[[str], bool]) -> tuple[str, ...]:
    """Scripts beside the trainer that run here as they are."""
    return tuple(
        each
        for each in code.entries
        if each in code.texts
        and not families.TRAINS.search(each.rsplit("/", 1)[-1])
        and all(importable(name) for name in sources.outside(each, code.texts))
    )


def knows_ranks(code: Code) -> bool:
    """Whether the trainer is one of several processes: all libraries for that import torch."""
    needed = {name for each in code.entries for name in sources.outside(each, code.texts)}
    return not needed.isdisjoint({"torch", "accelerate", "deepspeed", "transformers", "trl"})


def is_there(entry: str, code: Code) -> bool:
    stem = entry.removesuffix(".py")
    return any(
        path in code.files
        for path in (entry, f"{stem}/__main__.py", f"src/{entry}", f"src/{stem}/__main__.py")
    )


def _brings_files(setup: str) -> bool:
    """Whether it does more than to install and to look around."""
    lines = (line.strip() for line in re.split(r"[\n;]|&&", setup))
    return any(not _PLAIN_SETUP.match(line) for line in lines)


def _brought(job: Job) -> Iterator[tuple[str, Path]]:
    """Python that travels as data, by its place on the box."""
    for item in job.data:
        source = job.local(item.source)
        if source.is_dir():
            for path in islice(sorted(source.rglob("*.py")), MOST_SOURCES):
                yield posixpath.normpath(f"{item.to}/{path.relative_to(source).as_posix()}"), path
        elif source.suffix == ".py":
            yield posixpath.normpath(f"{item.to}/{source.name}"), source


def _settings(path: Path, name: str, job: Job) -> Any:
    """Raises ValueError where the text is neither JSON nor YAML; a value of a kind that only the
    trainer knows is no mistake."""
    changes = {
        key: value
        for key, value in job.patch.get(name, {}).items()
        if not (isinstance(value, str) and "{" in value)
    }
    try:
        data = path.read_bytes()[:MOST_SOURCE_BYTES]
        text = patched(data, name, changes)[0] if changes else data.decode(errors="replace")
        return json.loads(text) if name.endswith(".json") else yaml.safe_load(text)
    except (yaml.scanner.ScannerError, yaml.parser.ParserError) as error:
        raise ValueError(f"{error.problem} {error.problem_mark}".strip()) from error
    except (OSError, yaml.YAMLError, RecursionError, BadJobFile):
        return {}


def read_text(path: Path) -> str:
    try:
        return path.read_bytes()[:MOST_SOURCE_BYTES].decode(errors="replace")
    except OSError:
        return ""
