"""What others say, made fit for a terminal: a box or a vendor must not move its cursor."""

from __future__ import annotations


def printable(text: str) -> str:
    """One line of printable characters; what is none of them is a space."""
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())
