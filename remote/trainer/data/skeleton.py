"""What a chat template writes around messages, found by rendering stand-ins for them.

For one sequence of roles a template nearly always writes the same around the contents. That is
looked for once; each conversation is still rendered by the template itself and compared, so that
one where the template does something else is noticed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from remote.trainer.data.draft import Span

_OPEN, _CLOSE = "\ufdd4", "\ufdd5"
_SPACE = "\u2003"  # white space that no template writes by itself
_SLOT = re.compile(f"({_SPACE}?){_OPEN}([0-9]+){_CLOSE}({_SPACE}?)")


class Slot(NamedTuple):
    """The place of message `number`'s content, after `before`, trimmed as the template does."""

    before: str
    number: int
    trim: Callable[[str], str]


class Turn(NamedTuple):
    """How many characters before a content, and after it, are learned. `given` is what the
    generation prompt holds beyond where the content begins: with that it is not learned."""

    before: int
    after: int
    given: str


class Skeleton(NamedTuple):
    """`turns` by message; `controls` is how many control tokens the whole has."""

    slots: tuple[Slot, ...]
    after: str
    turns: dict[int, Turn]
    controls: int

    def spans(self, text: str, where: dict[int, Span], learned_from: int) -> list[Span]:
        """What is learned of a text that was filled in, with the contents where `fill` said."""
        found = []
        for number, (before, after, given) in self.turns.items():
            if number >= learned_from:
                begin, end = where[number]
                skipped = len(given) if given and text.startswith(given, begin, end) else 0
                found.append((begin - before + skipped, end + after))
        return found

    def fill(self, contents: Sequence[str]) -> tuple[str, dict[int, Span]]:
        """The whole text, and where in it each content is."""
        parts: list[str] = []
        at, where = 0, {}
        for before, number, trim in self.slots:
            content = trim(contents[number])
            parts += (before, content)
            begin = at + len(before)
            at = begin + len(content)
            where[number] = (begin, at)
        parts.append(self.after)
        return "".join(parts), where


def stand_in(number: int) -> str:
    """A content to be found again; the white space shows whether the template trims."""
    return f"{_SPACE}{_OPEN}{number}{_CLOSE}{_SPACE}"


def slots(text: str) -> tuple[tuple[Slot, ...], str]:
    """Where stand-ins are in a rendered text, and what follows the last."""
    found: list[Slot] = []
    at = 0
    for match in _SLOT.finditer(text):
        trim = _TRIMS[bool(match[1]), bool(match[3])]
        found.append(Slot(text[at : match.start()], int(match[2]), trim))
        at = match.end()
    return tuple(found), text[at:]


_TRIMS: dict[tuple[bool, bool], Callable[[str], str]] = {
    (True, True): str,
    (True, False): str.rstrip,
    (False, True): str.lstrip,
    (False, False): str.strip,
}
