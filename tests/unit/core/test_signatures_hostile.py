"""Whatever a box prints: read in bounded time and memory, and nothing raises."""

from __future__ import annotations

import time

import pytest

from orchestrator.core.signatures.console import Console
from orchestrator.core.signatures.errors import classify, seen_in
from orchestrator.core.signatures.lifecycle import Doing, Life, follow
from orchestrator.core.signatures.reader import LONGEST, Line, Reader, plain

# Each of these is worst for another pattern.
PIECES = [
    *("=", "1", "a", " ", "Error", "a.", "1,111,", "\x1b", "\x1b[1;", "\x1b]a", "1%|", "it/s"),
    *(
        "OVERFLOW! ",
        "{'loss': ",
        "step: 1 loss: 1 ",
        "[global step 1/1] loss=1 ",
        "step 1/1 | loss:",
    ),
    *("Step 1 | ", " step:1 - a:1", "Step: 1, LR: 1, Loss: 1 ", "step=1, skipped=1, lr=["),
    *(
        "2026-01-01 00:00:00 ",
        "Instantiating a",
        "Running tokenizer on ",
        "checkpoint a",
        "Killed ",
    ),
    *(
        "Starting from epoch 1 and step",
        "Total training steps ",
        "DistributedType.A",
        "step 1 loss",
    ),
]
HEADS = ["", "Total training steps: ", "[global step 1/1] loss=1 ", "Step: 1, LR: ", "epoch "]
MOST_S = 1.5  # of a processor; a pattern that is quadratic takes ten


@pytest.mark.parametrize("piece", PIECES)
def test_a_line_that_repeats_itself_is_read_in_no_time(piece: str) -> None:
    began = time.process_time()
    for head in HEADS:
        _read((head + piece * (LONGEST // len(piece)))[:LONGEST])
        assert time.process_time() - began < MOST_S * len(HEADS)
    assert time.process_time() - began < MOST_S


def _read(text: str) -> None:
    line = Line(plain(text), 0)
    Console().feed([line])
    for doing in (Doing.BOOT, Doing.TRAIN):
        follow(Life(doing), [line])
    seen_in(text)
    classify(1, text)


@pytest.mark.parametrize(
    "piece", [b"x", b"\r", b"\r\n", b"\x00", b"\xff\xfe", b"x\n", b"\x1b[0m\r"]
)
def test_megabytes_of_anything_are_read_in_bounded_memory(piece: bytes) -> None:
    reader, console, life = Reader(), Console(), Life()
    block, began = piece * (65_536 // len(piece)), time.process_time()
    for _ in range(4 if b"x\n" in piece else 64):
        lines = reader.feed(block)
        life = follow(life, lines)
        console.feed(lines)
    assert len(reader._held) <= LONGEST
    assert time.process_time() - began < 10


@pytest.mark.parametrize(
    "text",
    [
        "Total training steps: " + "9" * 5000,
        "Step: " + "9" * 5000 + ", LR: 1, Loss: 1",
        "Step: 1, LR: 1, Loss: " + "9" * 5000,
        " 1%| | 1/" + "9" * 5000 + " [00:01<00:01, 1it/s]",
        "Setting global step to " + "9" * 5000,
        "Num processes: " + "9" * 5000,
        "Root Cause (first observed failure)\n  rank  : " + "9" * 5000,
        "9999-99-99 99:99:99 Step: 1, LR: 1, Loss: 1",
    ],
)
def test_a_number_that_is_none_raises_nothing(text: str) -> None:
    _read(text)
