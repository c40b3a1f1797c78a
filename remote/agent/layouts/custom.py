"""A layout that the job file describes itself."""

from __future__ import annotations

import fnmatch
import re
from typing import Any, Dict, List, Optional

from remote.agent.layouts.model import ANY, Context, Layout, Rule, Verdict, gaps
from remote.agent.layouts.tree import Tree


def custom(record: Dict[str, Any]) -> Layout:
    """`record` is the mapping of the job file: glob, step, required, markers, rank.

    Raises ValueError for one that cannot be followed."""
    *below, last = _words(record["glob"]).split("/")
    if not last or any(part in ("", ".", "..", "**") for part in (*below, last)):
        raise ValueError("not a glob of checkpoints: %r" % record["glob"])
    needed = _texts(record.get("required")) + _texts(record.get("markers"))
    rank = _pattern(record["rank"]) if record.get("rank") else None
    return Layout(
        name="custom",
        entry=fnmatch.translate(last),
        step=_pattern(record["step"]).pattern,
        rule=_rule(needed, rank),
        kind=ANY,
        shared=tuple(each for each in needed if not re.search(r"[*?\[]", each)),
        below=tuple(below),
    )


def _rule(needed: List[str], rank: "Optional[re.Pattern[str]]") -> Rule:
    """Every required file and marker is there (a glob: one that fits), and one file a rank.
    Where neither is asked for, only stillness tells."""

    def rule(name: str, tree: Tree, context: Context) -> Verdict:
        absent = (glob for glob in needed if not any(map(_fits(glob), tree)))
        missing = next(absent, None)
        have = _ranks(tree, rank)
        gap = gaps(have, context.ranks) if rank else None
        if missing is None and gap is not None:
            missing = "file of rank %d" % gap
        return Verdict(missing, None, None, len(have) or None, not needed and not rank)

    return rule


def _fits(glob: str) -> "Any":
    return re.compile(fnmatch.translate(glob)).match


def _ranks(tree: Tree, rank: "Optional[re.Pattern[str]]") -> Dict[int, str]:
    if rank is None:
        return {}
    found = ((rank.search(path), path) for path in tree)
    return {int(match[1]): path for match, path in found if match and match[1].isdigit()}


def _pattern(value: Any) -> "re.Pattern[str]":
    try:
        pattern = re.compile(_words(value))
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError("not a regular expression: %r" % (value,)) from error
    if pattern.groups < 1:
        raise ValueError("the pattern needs a group around the number: %r" % (value,))
    return pattern


def _texts(value: Any) -> List[str]:
    return [_words(each) for each in value or ()]


def _words(value: Any) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("%r is not text" % (value,))
    return value
