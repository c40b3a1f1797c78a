"""What a layout is: data that the agent's one notion of a checkpoint (a name, a step, files by
relative path) is read off, and a pure rule that says when it is complete."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, FrozenSet, Mapping, Optional, Tuple

from remote.agent.layouts.tree import Tree

FOLDER, FILE, GROUP, ANY = "folder", "file", "group", "any"
_NUMBER_AT_THE_END = re.compile(r"(\d{1,15})(?:\.[a-z]+)?$")


@dataclass(frozen=True)
class Context:
    """What a rule may know besides the checkpoint's own files. `world_size`: how many ranks
    write; `at_least`: so many wrote an earlier checkpoint of the attempt. `beside`: the pointer
    files of the checkpoint folder. `newest`: the highest step that has begun to be saved.
    `usual`: the files of the attempt's newest seal, None before the first. `ended`: no trainer
    runs, so nothing more comes."""

    world_size: int = 1
    at_least: int = 1
    beside: Mapping[str, bytes] = field(default_factory=dict)
    newest: Optional[int] = None
    usual: Optional[FrozenSet[str]] = None
    ended: bool = False

    @property
    def ranks(self) -> int:
        return max(self.world_size, self.at_least)


@dataclass(frozen=True)
class Verdict:
    """`missing` says what a complete checkpoint would have besides; None when it is complete.
    `step`, `max_steps`: as its own content tells. `world_size`: the ranks whose files are there.
    `doubtful`: complete as far as can be told, so it shall lie still for longer. `weights`: what
    is missing is needed to resume only, the model itself is whole."""

    missing: Optional[str]
    step: Optional[int] = None
    max_steps: Optional[int] = None
    world_size: Optional[int] = None
    doubtful: bool = False
    weights: bool = False


Rule = Callable[[str, Tree, Context], Verdict]


@dataclass(frozen=True)
class Pointer:
    """A file beside the checkpoints that tells the framework which one to load. `text` makes its
    content from the checkpoint's name and step."""

    name: str
    text: Callable[[str, int], str]


@dataclass(frozen=True)
class Layout:
    """One family of trainers. `docs/layouts.md` gives the source of each row.

    `entry`: names of checkpoints; its first group, or that of `step`, is the step. `kind`: a
    folder, a single file, or a `group` of files that belong together by that number, under the
    name that `group` makes of it, which `entry` fits too; `any` is a folder or a file. `below`:
    globs of the folders between the checkpoint folder and its checkpoints. `sign`: a folder of
    any name is a checkpoint when it holds such a file. `staging`: what is renamed when it is
    whole, and is not looked at before. `shared`: files beside the checkpoints that belong to
    each of them (of kind `any`: to the single files). `rewritten`: of those, the ones written
    again in place after each checkpoint: they belong to the newest one once they are younger
    than it, and are copied, not linked. `pointer`: written before a resume. `final`: a
    checkpoint of such a name is the final weights. `ends_at_root`: the trainer leaves final
    weights in the checkpoint folder itself; where it does not, its last checkpoint is what it
    ends with. `alone`: nothing else may lie in the checkpoint folder. `outranks`: the framework
    prefers the first name to the second, whatever their steps. `resumes` is False
    where a checkpoint is good for a warm start alone."""

    name: str
    entry: str
    rule: Rule
    kind: str = FOLDER
    group: str = "{step}"
    step: Optional[str] = None
    below: Tuple[str, ...] = ()
    sign: Optional[str] = None
    staging: Optional[str] = None
    shared: Tuple[str, ...] = ()
    rewritten: Tuple[str, ...] = ()
    pointer: Optional[Pointer] = None
    final: Optional[str] = None
    ends_at_root: bool = False
    alone: bool = False
    outranks: Optional[Callable[[str, str], bool]] = None
    resumes: bool = True

    def match(self, name: str) -> Optional[str]:
        """The checkpoint's name that an entry of the checkpoint folder belongs to, if any."""
        found = re.search(self.entry, name)
        if not found or (self.step and not re.search(self.step, name)):
            return None
        return self.group.format(step=found[1]) if self.kind == GROUP else name

    def step_of(self, name: str) -> Optional[int]:
        """The step as the checkpoint's name tells it; the number it ends with, for a free name."""
        found = None if self.kind == GROUP else re.search(self.step or self.entry, name)
        if found is None or not found.re.groups:
            found = _NUMBER_AT_THE_END.search(name)
        digits = found[1] if found else None
        return int(digits) if digits and digits.isdigit() and len(digits) <= 15 else None

    def is_final(self, name: str) -> bool:
        return self.final is not None and re.search(self.final, name) is not None


def number(value: Any) -> Optional[int]:
    """A count in somebody's JSON, or None."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def gaps(have: Dict[int, str], ranks: int) -> Optional[int]:
    """The first of the ranks 0 to `ranks` - 1, or below the highest there, that has no file."""
    expected = range(max(ranks, max(have, default=-1) + 1))
    return next((rank for rank in expected if rank not in have), None)
