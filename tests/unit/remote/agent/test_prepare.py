"""Before a relaunch: what is too young is out of the trainer's sight, and what it resumes from lies
where it looks, under the name that its pointer says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kit.keeping import Keeping
from kit.writers_of_layouts import WRITERS, Save, apply, torch_file

from remote.agent.prepare import place

LATEST, TRACKER = "latest", "latest_checkpointed_iteration.txt"
ROWS = {
    "huggingface": "checkpoint-20",
    "deepspeed, zero 2": "global_step20",
    "open-instruct": "step_20",
    "accelerate": "checkpoint_20",
    "verl": "global_step_20",
    "dcp": "step-20",
    "lightning": "epoch=0-step=20.ckpt",
    "torchllms": "model_0000020.pth",
    "torchtune": "epoch_20",
    "nanochat": "model_000020",
}


def relaunch(home: Path, layout: Any, name: str | None, step: int | None = 20) -> Keeping:
    at = f"out/{name}" if name else None
    return Keeping(home, layout, attempt=2, resume_step=step if name else None, resume_at=at)


def write(home: Path, writer: str, *steps: int) -> list[Save]:
    saves = [WRITERS[writer](step, 1) for step in steps]
    for save in saves:
        for op in save.ops:
            apply(home / "work/out", op)
    return saves


@pytest.fixture
def relaunched() -> Iterator[list[Keeping]]:
    made: list[Keeping] = []
    yield made
    for each in made:
        each.close()


@pytest.mark.parametrize("said", ["named", "auto"])
@pytest.mark.parametrize("writer", ROWS)
def test_younger_ones_are_set_aside(
    writer: str, said: str, tmp_path: Path, relaunched: list[Keeping]
) -> None:
    saves = write(tmp_path, writer, 10, 20, 30)
    assert saves[1].name == ROWS[writer]
    layout = saves[0].layout if said == "named" else "auto"
    keeping = relaunch(tmp_path, layout, ROWS[writer])
    relaunched.append(keeping)
    assert keeping.superseded == [saves[2].name]
    out = keeping.out
    aside = out.with_name("out_superseded") if writer == "accelerate" else out / "_superseded"
    for path in saves[2].forget[0]:
        assert not (out / path.path).exists() and (aside / "2" / path.path).is_file()
    for save in saves[:2]:
        assert all((out / path.path).is_file() for group in save.forget for path in group)
    assert (out / "_superseded").exists() is (writer != "accelerate")


@pytest.mark.parametrize("writer", ROWS)
def test_from_scratch_nothing_is_left_to_be_found(
    writer: str, tmp_path: Path, relaunched: list[Keeping]
) -> None:
    saves = write(tmp_path, writer, 10, 20)
    keeping = relaunch(tmp_path, saves[0].layout, None)
    relaunched.append(keeping)
    assert keeping.superseded == sorted(save.name for save in saves)
    left = {path.name for path in keeping.out.iterdir()} - {"_superseded"}
    assert left <= {"train_args.json", "recipe_state"}


@pytest.mark.parametrize("said", ["named", "auto"])
@pytest.mark.parametrize(
    ("writer", "pointer", "text"),
    [
        ("deepspeed, zero 2", LATEST, "global_step20"),
        ("verl", TRACKER, "20"),
    ],
)
def test_the_pointer_names_what_is_resumed(
    writer: str, pointer: str, text: str, said: str, tmp_path: Path, relaunched: list[Keeping]
) -> None:
    saves = write(tmp_path, writer, 20, 30)
    keeping = relaunch(tmp_path, saves[0].layout if said == "named" else "auto", saves[0].name)
    relaunched.append(keeping)
    assert (keeping.out / pointer).read_text() == text


@pytest.mark.parametrize("writer", ["huggingface", "accelerate", "dcp", "lightning", "nanochat"])
def test_no_pointer_where_none_is_read(
    writer: str, tmp_path: Path, relaunched: list[Keeping]
) -> None:
    saves = write(tmp_path, writer, 20)
    relaunched.append(relaunch(tmp_path, "auto", saves[0].name))
    assert not {LATEST, TRACKER} & {path.name for path in (tmp_path / "work/out").iterdir()}


def test_a_free_tag_is_pointed_at(tmp_path: Path, relaunched: list[Keeping]) -> None:
    folder = tmp_path / "work/out/best"
    folder.mkdir(parents=True)
    (folder / "mp_rank_00_model_states.pt").write_bytes(torch_file({"global_steps": 20}))
    relaunched.append(relaunch(tmp_path, "auto", "best"))
    assert (folder.parent / LATEST).read_text() == "best"


def test_open_instruct_prefers_steps_whatever_their_number(
    tmp_path: Path, relaunched: list[Keeping]
) -> None:
    write(tmp_path, "open-instruct", 5, 500)
    (epoch,) = write(tmp_path, "open-instruct, zero 3", 16)
    assert epoch.name == "epoch_2"
    keeping = relaunch(tmp_path, "open-instruct", "epoch_2", 16)
    relaunched.append(keeping)
    assert keeping.superseded == ["step_5", "step_500"]


def test_an_incomplete_younger_one_goes_too(tmp_path: Path, relaunched: list[Keeping]) -> None:
    write(tmp_path, "open-instruct", 20)
    (tmp_path / "work/out/step_30").mkdir()
    (tmp_path / "work/out/step_30/COMPLETED").write_text("COMPLETED")
    keeping = relaunch(tmp_path, "open-instruct", "step_20")
    relaunched.append(keeping)
    assert keeping.superseded == ["step_30"]


@pytest.mark.parametrize("said", ["named", "auto"])
@pytest.mark.parametrize("writer", ["lightning", "torchllms", "nanochat", "torchtune"])
def test_an_uploaded_folder_is_unpacked_to_where_its_files_belong(
    writer: str, said: str, tmp_path: Path, relaunched: list[Keeping]
) -> None:
    """The controller puts a checkpoint into a folder of its name, whatever it is."""
    save = WRITERS[writer](20, 1)
    write(tmp_path / "old", writer, 20)
    old, out = tmp_path / "old/work/out", tmp_path / "work/out"
    for path in save.needed:
        source = old / path if (old / path).exists() else old / save.name / path
        target = out / save.name / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
    keeping = relaunch(tmp_path, save.layout if said == "named" else "auto", save.name)
    relaunched.append(keeping)
    for group in save.forget:
        assert all((out / each.path).is_file() for each in group)
    shared = [each for each in save.needed if each.startswith(("train_args", "recipe_state"))]
    assert all((out / each).is_file() for each in shared)
    assert [path.name for path in out.iterdir() if path.name.startswith(".gpujob")] == []
    place(keeping.spec)
    keeping.look(20)
    keeping.end(rc=1)
    assert keeping.told("checkpoint.sealed") == [], "what was resumed from is not new"


def test_what_was_staged_when_the_trainer_died_goes(
    tmp_path: Path, relaunched: list[Keeping]
) -> None:
    write(tmp_path, "huggingface", 20)
    (tmp_path / "work/out/tmp-checkpoint-30").mkdir()
    keeping = relaunch(tmp_path, "auto", "checkpoint-20")
    relaunched.append(keeping)
    assert keeping.superseded == ["tmp-checkpoint-30"]


def test_an_older_controller_names_no_place(tmp_path: Path, relaunched: list[Keeping]) -> None:
    """Then the step alone says what is too young, and no pointer is touched."""
    write(tmp_path, "deepspeed, zero 2", 20, 30)
    keeping = Keeping(tmp_path, "deepspeed", attempt=2, resume_step=20)
    relaunched.append(keeping)
    assert keeping.superseded == ["global_step30"]
    assert (keeping.out / LATEST).read_text() == "global_step30"
