"""Every layout's rule against what its trainer does: never complete too early, whatever the ranks'
pace, always complete at the end, and never when retention has begun to delete."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kit.writers_of_layouts import WRITERS, Op, Save, apply, pieces

from remote.agent.candidates import find
from remote.agent.intact import is_container, is_intact
from remote.agent.layouts import Context, Tree, layouts_of

STEP = 30
FAST = settings(
    max_examples=int(os.environ.get("LAYOUT_EXAMPLES", "4")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
)
every_layout = pytest.mark.parametrize("writer", WRITERS)
how_said = st.sampled_from(["named", "auto"])


@contextmanager
def disk() -> Iterator[Path]:
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shm if shm.is_dir() else None) as folder:
        yield Path(folder)


def missing(root: Path, save: Save, said: str, *, ended: bool, world: int) -> str | None:
    """What the agent would say is missing, as if nothing had been written for hours."""
    found = find(layouts_of(save.layout if said == "named" else "auto"), root)
    candidate = found.candidates.get(save.name)
    own = candidate.own() if candidate else {}
    if candidate is None or not own:
        return "all of it"
    listing = {**own, **candidate.shared(own)}
    sizes = {path: identity.size for path, identity in listing.items()}
    tree = Tree(sizes, lambda path: candidate.locate(path).open("rb"))
    pointer = candidate.layout.pointer
    beside = root / pointer.name if pointer else root / "none"
    context = Context(
        world_size=world,
        beside={beside.name: beside.read_bytes() if beside.exists() else b""},
        newest=found.newest,
        ended=ended,
    )
    verdict = candidate.layout.rule(save.name, tree, context)
    torn = [
        path for path in listing if is_container(path) and not is_intact(candidate.locate(path))
    ]
    return verdict.missing or next(iter(torn), None)


def interleaved(data: Any, save: Save) -> Iterator[Op]:
    """The ranks in any order within a phase, each in its own order."""
    for phase in save.phases:
        left = [list(rank) for rank in phase if rank]
        while left:
            rank = data.draw(st.integers(0, len(left) - 1))
            yield left[rank].pop(0)
            left = [each for each in left if each]


def is_whole(root: Path, save: Save, whole: dict[str, bytes]) -> bool:
    return all((root / path).is_file() and (root / path).read_bytes() == data
               for path, data in whole.items())  # fmt: skip


def written(save: Save, said: str) -> dict[str, bytes]:
    """What is on the disk, of what a resume needs, when the save is over. A marker that nobody
    announced cannot be waited for."""
    needed = save.needed if said == "named" else save.needed - {"COMPLETED"}
    with disk() as root:
        for op in save.ops:
            apply(root, op)
        inside = {path: root / save.name / path for path in needed}
        places = [place if place.exists() else root / path for path, place in inside.items()]
        return {place.relative_to(root).as_posix(): place.read_bytes() for place in places}


@every_layout
@FAST
@given(said=how_said, data=st.data())
def test_never_complete_too_early(writer: str, said: str, data: Any) -> None:
    """After any prefix of any order, a write torn or not, the trainer alive or killed."""
    save = WRITERS[writer](STEP, data.draw(st.integers(1, 4), "ranks"))
    whole, ended = written(save, said), data.draw(st.booleans(), "killed")
    with disk() as root:
        for op in interleaved(data, save):
            for _ in pieces(root, op):
                if not is_whole(root, save, whole):
                    said_missing = missing(root, save, said, ended=ended, world=save.world)
                    assert said_missing is not None, f"complete before {op} was done"


@every_layout
@FAST
@given(said=how_said, data=st.data())
def test_always_complete_at_the_end(writer: str, said: str, data: Any) -> None:
    save = WRITERS[writer](STEP, data.draw(st.integers(1, 4), "ranks"))
    known = data.draw(st.integers(1, save.world), "ranks that are known of")
    with disk() as root:
        for op in interleaved(data, save):
            apply(root, op)
        assert missing(root, save, said, ended=False, world=known) is None


@every_layout
@FAST
@given(said=how_said, data=st.data())
def test_half_deleted_is_never_complete(writer: str, said: str, data: Any) -> None:
    """As first seen by an agent that held nothing of it before."""
    save = WRITERS[writer](STEP, data.draw(st.integers(1, 3), "ranks"))
    orders = [data.draw(st.permutations(group), "order of deletion") for group in save.forget]
    whole = written(save, said)
    with disk() as root:
        for op in save.ops:
            apply(root, op)
        for op in itertools.chain(*orders):
            apply(root, op)
            if not is_whole(root, save, whole):
                assert missing(root, save, said, ended=True, world=save.world) is not None


@pytest.mark.parametrize("world", [1, 3])
@every_layout
def test_the_step_is_told(writer: str, world: int) -> None:
    save = WRITERS[writer](STEP, world)
    (layout,) = layouts_of(save.layout)
    named = layout.step_of(save.name)
    assert named == STEP or save.name.startswith("epoch_")


CUSTOM = {
    "glob": "run_*/ckpt_*",
    "step": r"ckpt_(\d+)",
    "required": ["model*.pt", "config.json"],
    "markers": ["DONE"],
    "rank": r"rank(\d+)\.pt",
}
WHOLE = ("model-1.pt", "config.json", "rank0.pt", "rank1.pt", "DONE")


@pytest.mark.parametrize("absent", [None, *WHOLE])
def test_a_layout_of_the_job_s_own(tmp_path: Path, absent: str | None) -> None:
    folder = tmp_path / "run_a/ckpt_40"
    folder.mkdir(parents=True)
    for name in WHOLE:
        (folder / name).write_bytes(b"x")
    if absent:
        (folder / absent).unlink()
    (tmp_path / "ckpt_50").mkdir()
    found = find(layouts_of(CUSTOM), tmp_path).candidates
    assert [(each.name, each.step) for each in found.values()] == [("ckpt_40", 40)]
    sizes = dict.fromkeys(found["ckpt_40"].own(), 1)
    tree = Tree.below(folder, sizes)
    verdict = found["ckpt_40"].layout.rule("ckpt_40", tree, Context(world_size=2))
    assert (verdict.missing is None) is (absent is None)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"glob": "../x*"}, id="leaves the folder"),
        pytest.param({"glob": "**/x"}, id="any depth"),
        pytest.param({"step": "x"}, id="no group"),
        pytest.param({"step": "("}, id="no pattern"),
        pytest.param({"rank": "("}, id="rank is no pattern"),
        pytest.param({"required": [3]}, id="not text"),
    ],
)
def test_a_wrong_layout_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        layouts_of({**CUSTOM, **change})


@pytest.mark.parametrize("said", ["megatron", None, 3, ["verl"]])
def test_an_unknown_layout_is_refused(said: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        layouts_of(said)
