"""The bytes of a trainer's log, in whatever pieces they come, as lines with their place in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

LONGEST = 65_536  # a line's first bytes: the rest of a longer one is no metric
_BREAK = re.compile(rb"[\r\n]+")
_ANSI = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|\][^\x07\x1b]{0,512}(?:\x07|\x1b\\)|[()][A-Z0-9])")


@dataclass(frozen=True, slots=True)
class Line:
    """One line without its break and without colours; `offset` is its first byte in the log."""

    text: str
    offset: int


def plain(text: str) -> str:
    """`text` without what moves a cursor or colours a word."""
    return _ANSI.sub("", text) if "\x1b" in text else text


class Reader:
    """Splits at LF and at CR (progress bars end with one), and keeps a torn last line back until
    its end comes. A piece may be sent twice, or overlap what was read: each byte counts once."""

    def __init__(self, *, offset: int = 0) -> None:
        self._next = offset
        self._held = b""
        self._start = offset
        self._skipping = False

    @property
    def offset(self) -> int:
        """The first byte that was not read yet: from here a new connection goes on."""
        return self._next

    def feed(self, data: bytes, *, offset: int | None = None) -> list[Line]:
        """The lines that `data` completes; `offset` says where in the log it begins."""
        at = self._next if offset is None else offset
        if at > self._next:
            self._leave_gap(at)
        data = data[self._next - at :]
        self._next += len(data)
        return [line for line in self._split(data) if line.text.strip()]

    def end(self) -> list[Line]:
        """What was kept back, once the trainer has ended and nothing can be added to it."""
        text, start, skipping = self._held, self._start, self._skipping
        self._hold(b"", self._next)
        self._skipping = False
        return [] if skipping or not text.strip() else [_line(text, start)]

    def _leave_gap(self, at: int) -> None:
        """Bytes were lost: neither the end of the held line nor the next one's head is known."""
        self._next = at
        self._hold(b"", at)
        self._skipping = True

    def _split(self, data: bytes) -> Iterator[Line]:
        at = 0
        for found in _BREAK.finditer(data):
            begin = self._start
            text = self._held + data[at : min(found.start(), at + LONGEST)]
            at = found.end()
            self._hold(b"", self._next - len(data) + at)
            if not self._skipping:
                yield _line(text, begin)
            self._skipping = False
        self._hold((self._held + data[at : at + LONGEST])[:LONGEST], self._start)

    def _hold(self, text: bytes, start: int) -> None:
        self._held, self._start = text, start


def _line(text: bytes, offset: int) -> Line:
    return Line(plain(text[:LONGEST].decode("utf-8", errors="replace")), offset)
