"""The oracle of the real-saves campaign sees what it is there to see; and a short campaign."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from kit.agentbox import build_agent

from sim.saves import watch
from sim.saves_judge import Save, Sealed, judge
from sim.saves_table import ROOT, read_runs, saves_table

FILES = {"checkpoint-1/a": (3, "aa"), "checkpoint-1/b/c": (4, "bb")}
SAVE = Save(1, "checkpoint-1", FILES, complete_at=100.0, deleted_at=102.0)
TREE = {"a": (3, "aa"), "b/c": (4, "bb")}
SEAL = Sealed("checkpoint-1", 1, TREE, TREE, sealed_at=101.0)
FLAT = Save(
    2,
    "step_2",
    {"model_2.pt": (9, "cc"), "meta_2.json": (2, "dd")},
    complete_at=100.0,
    deleted_at=None,
)


@pytest.mark.parametrize(
    ("save", "seals", "violations"),
    [
        pytest.param(SAVE, [SEAL], [], id="sealed as saved"),
        pytest.param(SAVE, [replace(SEAL, found=None)], [], id="bytes let go of"),
        pytest.param(replace(SAVE, deleted_at=100.9), [], [], id="missed, gone within a second"),
        pytest.param(SAVE, [], ["missed"], id="missed after two seconds"),
        pytest.param(replace(SAVE, deleted_at=None), [], ["missed"], id="missed, never deleted"),
        pytest.param(
            SAVE,
            [replace(SEAL, told={"a": (3, "aa")}, found=None)],
            ["lacks ['b/c']", "missed"],
            id="sealed before the last file",
        ),
        pytest.param(
            SAVE,
            [replace(SEAL, told={**TREE, "a": (2, "xx")}, found=None)],
            ["differs in ['a']", "missed"],
            id="sealed half written",
        ),
        pytest.param(
            SAVE,
            [replace(SEAL, told={**TREE, "tmp": (2, "xx")}, found=None)],
            ["has besides ['tmp']", "missed"],
            id="sealed with a stranger",
        ),
        pytest.param(SAVE, [replace(SEAL, found={"a": (3, "aa")})], ["torn"], id="torn"),
        pytest.param(SAVE, [SEAL, replace(SEAL, generation=2)], ["twice"], id="sealed twice"),
        pytest.param(
            SAVE, [SEAL, replace(SEAL, name="final", final=True)], [], id="the last is the final"
        ),
        pytest.param(
            SAVE,
            [SEAL, replace(SEAL, name="final", told={"a": (3, "aa")}, found=None, final=True)],
            ["final is not the last save: lacks ['b/c']"],
            id="a final that is not the last",
        ),
        pytest.param(
            FLAT, [Sealed("step_2", 1, FLAT.files, None, 101.0)], [], id="files side by side"
        ),
        pytest.param(
            FLAT,
            [Sealed("step_3", 1, FLAT.files, None, 101.0)],
            ["never saved so", "missed"],
            id="under another name",
        ),
    ],
)
def test_the_oracle(save: Save, seals: list[Sealed], violations: list[str]) -> None:
    told = judge([save], seals)
    assert len(told.violations) == len(violations)
    for said, expected in zip(sorted(told.violations), sorted(violations), strict=True):
        assert expected in said


def test_lives_are_counted() -> None:
    saves = [
        replace(
            SAVE,
            number=number,
            name=f"checkpoint-{number}",
            files={f"checkpoint-{number}/a": (1, "a")},
            deleted_at=100 + s,
        )
        for number, s in enumerate((0.05, 0.15, 0.15, 0.7, 1.0, 30.0))
    ]
    told = judge(saves, [])
    assert told.lives == {
        0.0: [1, 1],
        0.1: [2, 2],
        0.2: [0, 0],
        0.3: [0, 0],
        0.5: [1, 1],
        1.0: [2, 2],
    }
    assert len(told.violations) == 2


@pytest.mark.e2e
@pytest.mark.trainer
def test_the_trainer_saves_six_times(tmp_path: Path) -> None:
    """The campaign in small: its last save but one is two seconds late."""
    pytest.importorskip("transformers")
    archive = build_agent(tmp_path / "agent.pyz")
    told = watch("trainer", 6, tmp_path, archive, late_every=5, late_s=2.0, fetch_every=2)
    assert told["violations"] == []
    assert told["late"] == 1
    assert told["sealed"] >= 3
    assert told["mirrored"] >= 1


def test_the_table_of_the_docs_is_the_campaign_s() -> None:
    table = saves_table(read_runs("real-saves"))
    assert table in (ROOT / "docs/guarantees.md").read_text(), "python -m sim.saves_table"
