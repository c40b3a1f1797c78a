"""A transfer that was broken off goes on, whoever we are: what it made read-only is no obstacle."""

from __future__ import annotations

from pathlib import Path

import pytest
from kit.agent import tree_manifest, write_tree
from kit.nobody import as_nobody, folder_of_nobody

from orchestrator.adapters.partial import Partial
from orchestrator.adapters.whole import Wholes

FILES = {"empty": b"", "deep__empty": b"", "weights": b"w" * 5000}


def receive(home: Path) -> None:
    """Everything again, as after a loss just before the end."""
    manifest = write_tree(home / "box", **FILES)
    partial = Partial(home / "checkpoint-10.partial", manifest)
    held = partial.resume()
    for entry in manifest.files:
        for index in range(len(entry.chunks)):
            if (entry.path, index) not in held:
                partial.write(entry, index, (home / "box" / entry.path).read_bytes())
    with Wholes(
        partial, {(e.path, i) for e in manifest.files for i in range(len(e.chunks))}, safe=""
    ) as wholes:
        wholes.begin()
        wholes.finish()
    assert tree_manifest(partial.root).digest == manifest.digest
    modes = {path.stat().st_mode & 0o777 for path in partial.root.rglob("*") if path.is_file()}
    assert modes == {0o444}


@pytest.mark.parametrize("times", [1, 3])
def test_read_only_files_are_no_obstacle_to_a_user_that_is_not_root(times: int) -> None:
    with folder_of_nobody() as home:
        for _ in range(times):
            as_nobody(lambda: receive(home))


def test_what_lost_its_journal_is_received_again() -> None:
    with folder_of_nobody() as home:
        as_nobody(lambda: receive(home))
        for journal in home.glob("*.journal"):
            journal.unlink()
        as_nobody(lambda: receive(home))
