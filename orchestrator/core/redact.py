"""Known secrets become asterisks in whatever is shown or stored, byte for byte, so that offsets
into a file that is mirrored stay true."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

# Shorter values stand in too many places by chance: a password of "a" would blank every log.
LEAST = 4
# What people and programs say; everything else in an event is a name or a number that the run lives
# by, and a secret that happens to be one of them must not break it.
FREE_TEXT = frozenset({"reason", "message", "what", "detail", "tail"})


class Redactor:
    """Replaces each value, the longest first, by as many asterisks."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        found = {value for value in values if len(value) >= LEAST}
        self._values = sorted(found, key=len, reverse=True)
        self._bytes = [value.encode() for value in self._values]

    @property
    def longest(self) -> int:
        """Length of the longest value in bytes; 0 without any."""
        return max(map(len, self._bytes), default=0)

    def data(self, data: bytes) -> bytes:
        for value in self._bytes:
            data = data.replace(value, b"*" * len(value))
        return data

    def any(self, value: Any) -> Any:
        """JSON values: texts within lists and objects too; keys stay."""
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, Mapping):
            return {key: self.any(each) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [self.any(each) for each in value]
        return value

    def words(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """An event's data with what is free text in it redacted."""
        return {key: self.any(each) if key in FREE_TEXT else each for key, each in data.items()}

    def _text(self, text: str) -> str:
        for value in self._values:
            text = text.replace(value, "*" * len(value))
        return text


def secret_values(lines: str) -> list[str]:
    """The values of NAME=value lines."""
    pairs = (line.partition("=") for line in lines.splitlines())
    return [value for _, sign, value in pairs if sign]
