"""The keeper over every layout: what is written is sealed, what retention takes is kept, what is
strange is told of once and harms nothing else."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kit.keeping import Keeping
from kit.writers_of_layouts import WRITERS, Save, apply, torch_file

from remote.agent import candidates, scan
from remote.agent.seal import Seal
from remote.agent.sealer import SHARED_S
from remote.agent.sealing import COPY_BYTES

STEP, WORLD = 30, 2
every_layout = pytest.mark.parametrize("writer", WRITERS)
Open = Callable[..., Keeping]


@pytest.fixture(autouse=True)
def broken_leases() -> Iterator[None]:
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGIO, before)


@pytest.fixture
def keep(tmp_path: Path) -> Iterator[Open]:
    made: list[Keeping] = []

    def start(layout: Any, **said: Any) -> Keeping:
        made.append(Keeping(tmp_path, layout, **{"world_size": WORLD, **said}))
        return made[-1]

    yield start
    for each in made:
        each.close()


def write(keeping: Keeping, save: Save, *, looking: bool = True) -> None:
    for op in save.ops:
        apply(keeping.out, op)
        if looking:
            keeping.look()


def names(keeping: Keeping, kind: str = "checkpoint.sealed") -> list[tuple[str, int]]:
    return [(each["name"], each["generation"]) for each in keeping.told(kind)]


@every_layout
@pytest.mark.parametrize("said", ["named", "auto"])
def test_each_layout_is_sealed_while_the_trainer_runs(writer: str, said: str, keep: Open) -> None:
    save = WRITERS[writer](STEP, WORLD)
    keeping = keep(save.layout if said == "named" else "auto")
    write(keeping, save)
    keeping.look(40)
    keeping.await_sealed(save.name)
    manifest = keeping.sealed(save.name)
    assert save.needed <= {entry.path for entry in manifest.files}
    assert manifest.meta["step"] == STEP
    assert keeping.told("agent.error") == []


@every_layout
def test_what_retention_deletes_file_by_file_is_kept(writer: str, keep: Open) -> None:
    """The agent saw it whole and had no time to judge it."""
    save = WRITERS[writer](STEP, WORLD)
    keeping = keep(save.layout)
    write(keeping, save, looking=False)
    for _ in range(5):
        keeping.look(tick_s=0.01)
        time.sleep(0.01)  # a copy is made in a thread of its own
    for op in itertools.chain(*save.forget):
        apply(keeping.out, op)
        keeping.look(tick_s=0.01)
    shutil.rmtree(keeping.out / save.name, ignore_errors=True)
    keeping.look(3)
    keeping.end(rc=1)
    assert (save.name, 1) in names(keeping)
    assert save.needed <= {entry.path for entry in keeping.sealed(save.name).files}


@every_layout
def test_a_save_that_is_cut_short_is_dropped(writer: str, keep: Open) -> None:
    save = WRITERS[writer](STEP, WORLD)
    keeping = keep(save.layout)
    first = [
        op for op in save.ops if getattr(op, "path", "").rpartition("/")[2] in CUT[save.layout]
    ]
    for op in first:
        apply(keeping.out, op)
    keeping.look(30)
    keeping.end(rc=1)
    assert names(keeping) == []
    dropped = keeping.told("checkpoint.dropped")
    assert all("incomplete: no" in each["why"] for each in dropped)


CUT = {
    "huggingface": ("config.json", "model.safetensors", "latest"),
    "deepspeed": ("latest", "zero_pp_rank_1_mp_rank_00_optim_states.pt"),
    "accelerate": ("model.safetensors", "random_states_0.pkl"),
    "open-instruct": ("COMPLETED", "model.safetensors"),
    "verl": ("model_world_size_2_rank_0.pt", "data.pt"),
    "dcp": ("__0_0.distcp",),
    "lightning": (".tmpabc",),
    "torchllms": ("train_args.json",),
    "torchtune": ("recipe_state.pt",),
    "nanochat": ("model_000030.pt",),
}  # fmt: skip


def test_a_shell_that_retention_left_is_no_checkpoint(keep: Open) -> None:
    """verl removes `actor` and `critic`, and leaves the folder with `data.pt`."""
    keeping = keep("verl")
    save = WRITERS["verl, critic"](STEP, WORLD)
    write(keeping, save)
    keeping.settle()
    for role in ("actor", "critic"):
        shutil.rmtree(keeping.out / save.name / role)
    keeping.look(20)
    assert names(keeping) == [(save.name, 1)] and keeping.keeper.pinning == []
    shell = keeping.out / "global_step_20"
    shell.mkdir()
    (shell / "data.pt").write_bytes(torch_file())
    keeping.look(20)
    keeping.end(rc=1)
    assert names(keeping) == [(save.name, 1)]
    assert names(keeping, "checkpoint.dropped") == [("global_step_20", 1)]


@pytest.mark.parametrize(
    ("writer", "ends_with"),
    [
        ("deepspeed, zero 2", "final"),
        ("verl", "final"),
        ("nanochat", "final"),
        ("lightning", "final"),
        ("dcp", "final"),
        ("torchtune", "final"),
        ("accelerate", "final"),
        ("huggingface", None),
        ("open-instruct", None),
    ],
)
def test_what_a_trainer_ends_with(writer: str, ends_with: str | None, keep: Open) -> None:
    """Where no weights are left at the root, the last checkpoint is what was made."""
    keeping = keep(WRITERS[writer](1, 1).layout)
    for step in (10, 20):
        write(keeping, WRITERS[writer](step, WORLD))
        keeping.settle()
    keeping.end(rc=0)
    finals = [each for each in keeping.told("checkpoint.sealed") if each["final"]]
    assert [each["name"] for each in finals] == ([ends_with] if ends_with else [])
    if ends_with:
        last = WRITERS[writer](20, WORLD).name
        assert keeping.sealed("final").files == keeping.sealed(last).files
        assert finals[0]["step"] == 20


def test_nothing_new_is_no_end(keep: Open) -> None:
    """A trainer that exits with 0 and did nothing has not made what it resumed from."""
    keeping = keep("deepspeed")
    write(keeping, WRITERS["deepspeed, zero 2"](10, WORLD))
    keeping.settle()
    keeping.end(rc=0)
    again = keep("deepspeed", attempt=2, resume_step=10, resume_at="out/global_step10")
    again.end(rc=0)
    assert [each["attempt"] for each in again.told("checkpoint.sealed") if each["final"]] == [1]


def test_weights_alone_are_what_torchtune_and_nanochat_end_with(keep: Open) -> None:
    """Their last save has no state to resume from."""
    keeping = keep("torchtune")
    write(keeping, WRITERS["torchtune"](1, 1))
    keeping.settle()
    last = WRITERS["torchtune"](2, 1)
    apply(keeping.out, last.ops[0])
    keeping.look(20)
    assert names(keeping) == [("epoch_1", 1)]
    keeping.end(rc=0)
    assert [(each["name"], each["final"]) for each in keeping.told("checkpoint.sealed")] == [
        ("epoch_1", False),
        ("epoch_2", True),
    ]


def test_the_file_that_torchtune_rewrites_stays_as_it_was(keep: Open) -> None:
    keeping = keep("torchtune")
    for epoch in (0, 1):
        write(keeping, WRITERS["torchtune"](epoch, 1))
        keeping.settle()
    entries = [
        next(each for each in keeping.sealed(f"epoch_{epoch}").files if "recipe" in each.path)
        for epoch in (0, 1)
    ]
    assert entries[0].sha256 != entries[1].sha256
    for epoch, entry in enumerate(entries):
        path = keeping.root.seals / f"epoch_{epoch}.1/tree" / entry.path
        assert path.stat().st_nlink == 1, "shared with a file that is written again"


@pytest.mark.parametrize(
    ("acked", "parted"),
    [pytest.param(False, True, id="fetched-slowly"), pytest.param(True, False, id="held-already")],
)
def test_a_large_file_is_parted_from_the_trainers_unless_it_is_held(
    acked: bool, parted: bool, keep: Open, tmp_path: Path
) -> None:
    """At once, the copy would take the disk and the processor from the fetch."""
    keeping = keep("huggingface")
    save = WRITERS["huggingface"](STEP, WORLD)
    write(keeping, save)
    large = keeping.out / save.name / "large.bin"
    large.write_bytes(bytes(COPY_BYTES + 1))
    keeping.settle()
    seal = keeping.root.seals / f"{save.name}.1"
    keeping.keeper.tidy()
    keeping.succeed()  # waits for what is under way
    assert (seal / "tree/large.bin").samefile(large)
    if acked:
        loaded = Seal.load(seal)
        assert loaded
        loaded.acknowledge()
    keeping.now += SHARED_S
    keeping.keeper.tidy()
    keeping.succeed()
    assert (seal / "tree/large.bin").samefile(large) is not parted


def test_model_final_is_the_final_weights_of_torchllms(keep: Open) -> None:
    keeping = keep("torchllms")
    write(keeping, WRITERS["torchllms"](10, 1))
    keeping.settle()
    (keeping.out / "model_final.pth").write_bytes(torch_file())
    keeping.look(3)
    keeping.end(rc=0)
    told = [(each["name"], each["final"]) for each in keeping.told("checkpoint.sealed")]
    assert told == [("model_0000010.pth", False), ("model_final.pth", True)]


def test_a_new_train_args_makes_no_new_checkpoints(keep: Open) -> None:
    """It is written at each start, and belongs to all of them."""
    keeping = keep("torchllms")
    write(keeping, WRITERS["torchllms"](10, 1))
    keeping.settle()
    (keeping.out / "train_args.json").write_bytes(b'{"again": 1}')
    keeping.look(20)
    assert names(keeping) == [("model_0000010.pth", 1)]
    (keeping.out / "model_0000010.pth").write_bytes(torch_file(size=300))
    keeping.look(5)
    keeping.settle()
    assert names(keeping)[1:] == [("model_0000010.pth", 2)]


def test_strange_things_are_told_of_once_and_the_rest_is_sealed(keep: Open) -> None:
    keeping = keep("deepspeed")
    save = WRITERS["deepspeed, zero 2"](STEP, WORLD)
    write(keeping, save, looking=False)
    folder = keeping.out / save.name
    os.mkfifo(folder / "pipe")
    (folder / "out").symlink_to("/etc")
    (folder / "in").symlink_to("mp_rank_00_model_states.pt")
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(folder)
        listener.bind("talk")
        os.chdir(here)
    (keeping.out / "a b").mkdir()
    (keeping.out / "a b/mp_rank_00_model_states.pt").write_bytes(torch_file())
    keeping.look(10)
    keeping.settle()
    assert names(keeping) == [(save.name, 1)]
    assert save.needed == {entry.path for entry in keeping.sealed(save.name).files}
    errors = [each["message"] for each in keeping.told("agent.error")]
    assert len(errors) == 2 and "'a b' is not mirrored" in errors[0]
    for words in ("'pipe' (a pipe)", "'out' (a link)", "'in' (a link)", "'talk' (a socket)"):
        assert words in errors[1]


def test_a_folder_with_too_many_files_harms_no_other(
    keep: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "MAX_FILES", 50)
    keeping = keep("huggingface")
    crowd = keeping.out / "checkpoint-10"
    crowd.mkdir()
    for number in range(60):
        (crowd / str(number)).touch()
    save = WRITERS["huggingface"](STEP, WORLD)
    write(keeping, save)
    keeping.look(20)
    keeping.settle()
    assert names(keeping) == [(save.name, 1)]
    errors = [each["message"] for each in keeping.told("agent.error")]
    assert len(errors) == 1 and "checkpoint-10: ContractError" in errors[0]


def test_too_many_checkpoints_end_nothing(keep: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "MAX_CANDIDATES", 5)
    keeping = keep("huggingface")
    save = WRITERS["huggingface"](STEP, WORLD)
    write(keeping, save)
    for number in range(40, 50):
        (keeping.out / f"checkpoint-{number}").mkdir()
    keeping.look(10)
    keeping.settle()
    assert names(keeping) == [(save.name, 1)]
    assert "more than 5 checkpoints" in keeping.told("agent.error")[0]["message"]


def test_a_checkpoint_that_never_completes_is_told_of_once(keep: Open) -> None:
    keeping = keep("verl")
    good, bad = WRITERS["verl"](10, WORLD), WRITERS["verl"](20, WORLD)
    write(keeping, good)
    keeping.settle()
    for op in bad.ops[:-2]:
        apply(keeping.out, op)
    keeping.look(10)
    assert keeping.told("agent.error") == []
    keeping.look(5, tick_s=100)
    errors = [each["message"] for each in keeping.told("agent.error")]
    assert len(errors) == 1 and "global_step_20" in errors[0] and "no data.pt" in errors[0]
    assert keeping.keeper.pinning == ["global_step_20"]
    seal = Seal.load(keeping.root.seals / "global_step_10.1")
    assert seal is not None and seal.is_held


def test_what_a_killed_agent_had_pinned_is_sealed_by_the_next(keep: Open) -> None:
    """Whatever the layout: the pin tells whose it was by its name."""
    keeping = keep("auto")
    saves = [WRITERS[each](STEP, WORLD) for each in ("verl", "lightning", "nanochat", "accelerate")]
    for save in saves:
        write(keeping, save, looking=False)
    keeping.look()
    keeping.succeed()
    for save in saves:
        for op in itertools.chain(*save.forget):
            apply(keeping.out, op)
        shutil.rmtree(keeping.out / save.name, ignore_errors=True)
    keeping.look(3)
    keeping.end(rc=1)
    assert {name for name, _ in names(keeping)} == {save.name for save in saves}


@pytest.mark.parametrize(
    ("file", "content", "why"),
    [
        ("manifest.json", '{"v": 99, "digest": "", "files": []}', "version 99"),
        ("manifest.json", "", "not a manifest"),
        ("seal.json", '{"v": 99}', "seal.json"),
    ],
    ids=["of another version", "cut short", "without its record"],
)
def test_a_seal_that_the_next_agent_cannot_read_stays(
    keep: Open, file: str, content: str, why: str
) -> None:
    """Its pin is gone: it may be the only copy."""
    keeping = keep("huggingface")
    write(keeping, WRITERS["huggingface"](STEP, WORLD))
    keeping.settle()
    ((name, _),) = names(keeping)
    folder = keeping.root.seals / f"{name}.1"
    before = sorted(path.name for path in (folder / "tree").iterdir())
    (folder / file).write_text(content)
    keeping.succeed()
    keeping.look(3)
    assert sorted(path.name for path in (folder / "tree").iterdir()) == before
    (told,) = keeping.told("agent.error")
    assert f"{name}.1" in told["message"] and why in told["message"]
    keeping.await_sealed(name)
    keeping.settle()
    assert keeping.sealed(name, 2).size_bytes > 0, "what the trainer still has is sealed anew"
    assert sorted(path.name for path in (folder / "tree").iterdir()) == before


def test_what_pins_and_seals_hold_beyond_the_trainer_s_files_is_weighed(keep: Open) -> None:
    keeping = keep("lightning")
    size = 9 * 1024 * 1024  # larger than what is copied at once
    (keeping.out / "step=10.ckpt").write_bytes(torch_file({"global_step": 10}, size=size))
    keeping.look(2)
    assert keeping.keeper.held_bytes < size, "a link costs nothing"
    (keeping.out / "step=10.ckpt").unlink()
    keeping.look(1, tick_s=20)
    assert keeping.keeper.held_bytes >= size
