"""Bytes to lines: whatever the pieces, whatever is sent twice, lost or torn."""

from __future__ import annotations

import random

import pytest

from orchestrator.core.signatures.reader import LONGEST, Line, Reader

LOG = (
    "first\n  5%|\u258c | 1/20 [00:01<00:19, 1.0s/it]\r 10%|\u2588 | 2/20 [00:02<00:18]\r"
    "\x1b[32mgreen\x1b[0m end\r\n\n  \nlast"
).encode()
TEXTS = [
    "first",
    "  5%|\u258c | 1/20 [00:01<00:19, 1.0s/it]",
    " 10%|\u2588 | 2/20 [00:02<00:18]",
    "green end",
]


def read(*pieces: bytes, reader: Reader | None = None) -> list[Line]:
    reader = reader or Reader()
    return [line for piece in pieces for line in reader.feed(piece)]


@pytest.mark.parametrize("seed", range(20))
def test_the_pieces_make_no_difference(seed: int) -> None:
    dice, reader, at, lines = random.Random(seed), Reader(), 0, []
    while at < len(LOG):
        size = dice.randint(1, 9)
        lines += reader.feed(LOG[at : at + size])
        at += size
    assert [line.text for line in lines] == TEXTS
    assert [line.text for line in reader.end()] == ["last"]


def test_an_offset_is_where_the_line_begins() -> None:
    for line in read(LOG):
        assert LOG[line.offset :].decode().lstrip("\x1b[32m").startswith(line.text[:4])


def test_a_torn_last_line_waits_for_its_end() -> None:
    reader = Reader()
    assert read(b"loss: 1.", reader=reader) == []
    assert read(b"25\n", reader=reader) == [Line("loss: 1.25", 0)]
    assert reader.end() == []


def test_what_a_new_connection_sends_again_counts_once() -> None:
    reader = Reader()
    assert reader.feed(b"one\ntw", offset=0) == [Line("one", 0)]
    assert reader.feed(b"one\ntwo\nthr", offset=0) == [Line("two", 4)]
    assert reader.offset == 11
    assert reader.feed(b"two\n", offset=4) == []
    assert reader.feed(b"three\n", offset=8) == [Line("three", 8)]


def test_around_a_gap_no_line_is_put_together() -> None:
    reader = Reader()
    assert reader.feed(b"one\nloss: 1", offset=0) == [Line("one", 0)]
    assert reader.feed(b"9\nnext\n", offset=100) == [Line("next", 102)]


def test_a_reader_may_begin_in_the_middle() -> None:
    reader = Reader(offset=50)
    assert reader.feed(b"x\n", offset=50) == [Line("x", 50)]


def test_bytes_that_are_no_text_are_replaced() -> None:
    assert read(b"a\xff\xfeb\n") == [Line("a\ufffd\ufffdb", 0)]


def test_a_line_is_bounded_and_the_next_one_is_whole() -> None:
    lines = read(b"x" * 50_000, b"y" * 50_000 + b"\nnext\n")
    assert [len(line.text) for line in lines] == [LONGEST, 4]
    assert lines[1] == Line("next", 100_001)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"\x1b[1;31mred\x1b[0m\n", "red"),
        (b"\x1b[Aup\x1b[2K\n", "up"),
        (b"\x1b]0;title\x07body\n", "body"),
        (b"\x1b[?25lhidden\n", "hidden"),
    ],
    ids=["colour", "cursor", "title", "private"],
)
def test_what_a_terminal_understands_is_stripped(raw: bytes, text: str) -> None:
    assert read(raw) == [Line(text, 0)]
