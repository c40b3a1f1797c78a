"""Before a trainer starts: nothing may be mistaken for its work, by it or by us, and what it
resumes from lies where it looks."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List, Optional

from remote.agent.aside import SUPERSEDED, set_aside
from remote.agent.attempt import Attempt
from remote.agent.candidates import FINAL, Candidate, find, staged
from remote.agent.durable import fsync_folder, write_bytes, write_json
from remote.agent.layouts import Layout, Pointer
from remote.agent.layouts.model import ANY, FOLDER
from remote.agent.machine import oom_kills
from remote.agent.scan import Listing, list_files, to_json
from remote.agent.spec import Spec
from remote.contract import PROTOCOL


def supersede(spec: Spec) -> List[str]:
    """Move checkpoints that are younger than the resume point out of the trainer's sight;
    complete or not, nothing is deleted. Returns their names."""
    if not spec.checkpoints.is_dir():
        return []
    found = find(spec.layouts, spec.checkpoints).candidates.values()
    aside = _aside(spec, alone=any(each.layout.alone for each in found))
    young = {each.name: each.entries for each in found if _is_younger(each, spec)}
    young.update((path.name, [path]) for path in staged(spec.layouts, spec.checkpoints))
    for path in [path for entries in young.values() for path in entries]:
        set_aside(path, aside / str(spec.attempt))
    within = spec.checkpoints / SUPERSEDED  # an upload may have set something aside there
    if within != aside and within.is_dir():
        set_aside(within, aside)
    return sorted(young)


def place(spec: Spec) -> None:
    """Put the files of the checkpoint to resume from where the trainer expects them, and let the
    framework's pointer name it; a pointer to what is not there any more is set aside.

    It was uploaded as a folder of its name. What is a file, or lies beside, is moved out of it."""
    layout = _resumed_layout(spec)
    if spec.resume_at and layout:
        _unpack(spec.resume_at, layout)
        if layout.pointer:
            _point(spec.resume_at, layout.pointer, spec.resume_step or 0)
    for each in spec.layouts if spec.resume_step is None else ():
        if each.pointer and (spec.checkpoints / each.pointer.name).is_file():
            aside = _aside(spec, alone=False) / str(spec.attempt)
            set_aside(spec.checkpoints / each.pointer.name, aside)


def write_baseline(attempt: Attempt, spec: Spec) -> None:
    """Remember what is there before the trainer writes: the checkpoint it resumes from, weights
    that an earlier attempt left. Only what differs from this is new."""
    write_json(
        attempt.folder / "baseline.json",
        {
            "v": PROTOCOL,
            "log": attempt.root.log.stat().st_size if attempt.root.log.exists() else 0,
            "oom_kills": oom_kills(),
            "known": {name: to_json(listing) for name, listing in _present(spec).items()},
        },
    )


def _present(spec: Spec) -> Dict[str, Listing]:
    if not spec.checkpoints.is_dir():
        return {}
    found = find(spec.layouts, spec.checkpoints).candidates
    known = {name: each.own() for name, each in found.items()}
    known[FINAL] = list_files(spec.checkpoints)
    return known


def _is_younger(candidate: Candidate, spec: Spec) -> bool:
    """Whether the trainer might take it for the newest, or we for its work: so is what tells no
    step of its own."""
    resumed = spec.resume_at.name if spec.resume_at else None
    if spec.resume_step is None:
        return True
    if candidate.name == resumed:
        return False
    layout = candidate.layout
    if resumed and layout.outranks and layout.outranks(candidate.name, resumed):
        return True
    named = layout.step_of(resumed) if resumed and layout.match(resumed) else None
    limit = spec.resume_step if named is None else named
    return candidate.step is None or candidate.step > limit


def _resumed_layout(spec: Spec) -> Optional[Layout]:
    """By what is there; a file still lies in a folder of its name, and then by that alone."""
    if spec.resume_at is None or spec.resume_step is None:
        return None
    name = spec.resume_at.name
    found = find(spec.layouts, spec.resume_at.parent).candidates.get(name)
    fitting = [layout for layout in spec.layouts if layout.match(name) is not None]
    return found.layout if found else next(iter([*fitting, *spec.layouts[:1]]), None)


def _unpack(folder: Path, layout: Layout) -> None:
    """Repeatable, also after a crash within."""
    room = folder.with_name(".gpujob-%s" % folder.name)
    if folder.is_dir() and _is_packed(folder, layout):
        folder.rename(room)  # a file inside may have its name
    source = room if room.is_dir() else folder
    names = [path.name for path in room.iterdir()] if room.is_dir() else layout.shared
    for name in names:
        target = folder.parent / name
        if (source / name).exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            (source / name).replace(target)
    if room.is_dir():
        room.rmdir()
    fsync_folder(folder.parent)


def _is_packed(folder: Path, layout: Layout) -> bool:
    """Whether it is no folder of the trainer's, but the files of a checkpoint in one of ours."""
    if layout.kind == ANY:
        return (folder / folder.name).exists()
    return layout.kind != FOLDER


def _point(placed: Path, pointer: Pointer, step: int) -> None:
    path = placed.parent / pointer.name
    write_bytes(path, pointer.text(placed.name, step).encode())
    path.chmod(0o644)


def _aside(spec: Spec, *, alone: bool) -> Path:
    """Beside the checkpoint folder when nothing else may lie in it."""
    if alone or all(layout.alone for layout in spec.layouts):
        return spec.checkpoints.with_name(spec.checkpoints.name + SUPERSEDED)
    return spec.checkpoints / SUPERSEDED
