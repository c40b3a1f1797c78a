"""Which checkpoint a person means."""

from __future__ import annotations

import pytest
from kit.history import TRAINING, mirrored, run_of, sealed

from orchestrator.core.choose import choose_checkpoint, split_wanted
from orchestrator.errors import Ambiguous, NotFound

RUN = run_of(*TRAINING, sealed(10), mirrored(10), sealed(20), sealed(60, final=True))


@pytest.mark.parametrize(
    ("wanted", "name"),
    [("10", "checkpoint-10"), ("checkpoint-20", "checkpoint-20"), ("latest", "checkpoint-20"),
     ("final", "final")],
)  # fmt: skip
def test_choose(wanted: str, name: str) -> None:
    assert choose_checkpoint(RUN, wanted).name == name


@pytest.mark.parametrize("wanted", ["30", "checkpoint-1", "best", ""])
def test_what_is_not_there_names_what_is(wanted: str) -> None:
    with pytest.raises(NotFound) as error:
        choose_checkpoint(RUN, wanted)
    assert error.value.hint and "checkpoint-10" in error.value.hint


def test_a_name_that_was_written_twice_is_ambiguous() -> None:
    other = sealed(10)[1] | {"digest": "f" * 64, "generation": 2}
    came = mirrored(10)[1] | {
        "digest": "f" * 64,
        "generation": 2,
        "path": "/mirror/checkpoint-10~2",
    }
    run = run_of(
        *TRAINING, sealed(10), mirrored(10), ("checkpoint.sealed", other),
        ("checkpoint.mirrored", came),
    )  # fmt: skip
    with pytest.raises(Ambiguous, match="checkpoint-10~2"):
        choose_checkpoint(run, "10")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("500", (None, "", "500")),
        ("demo-1:500", ("demo-1", "", "500")),
        ("demo-1:main/500", ("demo-1", "main", "500")),
    ],
)
def test_split(text: str, parts: tuple[str | None, str, str]) -> None:
    assert split_wanted(text) == parts
