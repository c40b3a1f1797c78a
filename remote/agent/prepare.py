"""Before a trainer starts: nothing may be mistaken for its work, by it or by us."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Dict, List, Optional

from remote.agent.attempt import Attempt
from remote.agent.durable import write_json
from remote.agent.scan import Listing, checkpoint_folders, list_files, list_tree, step_of, to_json
from remote.agent.spec import Spec
from remote.contract import PROTOCOL

FINAL = "final"
SUPERSEDED = "_superseded"
_STAGED = re.compile(r"^tmp-checkpoint-\d+$")  # transformers 4.36 to 4.38 saved there first


def supersede(spec: Spec) -> List[str]:
    """Rename checkpoint folders that are younger than the resume point out of the trainer's
    sight; complete or not, nothing is deleted. Returns their names."""
    if not spec.checkpoints.is_dir():
        return []
    young = [
        path
        for name, path in checkpoint_folders(spec.checkpoints).items()
        if _is_younger(name, spec.resume_step)
    ]
    young += [path for path in spec.checkpoints.iterdir() if _STAGED.match(path.name)]
    for path in young:
        set_aside(path, spec.checkpoints / SUPERSEDED / str(spec.attempt))
    return sorted(path.name for path in young)


def set_aside(path: Path, folder: Path) -> None:
    """Move `path` into `folder` under its name, or the first that is free after it."""
    folder.mkdir(parents=True, exist_ok=True)
    target, count = folder / path.name, 1
    while target.exists() or target.is_symlink():
        count += 1
        target = folder / ("%s~%d" % (path.name, count))
    path.rename(target)


def write_baseline(attempt: Attempt, spec: Spec) -> None:
    """Remember what is there before the trainer writes: the checkpoint it resumes from, weights
    that an earlier attempt left. Only what differs from this is new."""
    write_json(
        attempt.folder / "baseline.json",
        {
            "v": PROTOCOL,
            "log": attempt.root.log.stat().st_size if attempt.root.log.exists() else 0,
            "known": {name: to_json(listing) for name, listing in _present(spec).items()},
        },
    )


def _present(spec: Spec) -> Dict[str, Listing]:
    if not spec.checkpoints.is_dir():
        return {}
    folders = checkpoint_folders(spec.checkpoints)
    known = {name: list_tree(path) for name, path in folders.items()}
    known[FINAL] = list_files(spec.checkpoints)
    return known


def _is_younger(name: str, resume_step: Optional[int]) -> bool:
    return resume_step is None or step_of(name) > resume_step
