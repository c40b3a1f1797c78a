"""Whether somebody has a file open for writing, asked of the real kernel."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from remote.agent import writers


@pytest.mark.parametrize("way", ["lease", "descriptors"])
@pytest.mark.parametrize(
    ("mode", "expected"),
    [(None, writers.FREE), ("rb", writers.FREE), ("r+b", writers.BUSY), ("ab", writers.BUSY)],
)
def test_open_files(tmp_path: Path, way: str, mode: str | None, expected: str) -> None:
    path, link = tmp_path / "shard", tmp_path / "link"
    path.write_bytes(b"x")
    os.link(path, link)
    holder = path.open(mode) if mode else None
    try:
        assert _ask(way, link) == expected
    finally:
        if holder:
            holder.close()
    assert _ask(way, link) == writers.FREE


def test_a_file_without_a_name_is_still_seen(tmp_path: Path) -> None:
    path, link = tmp_path / "shard", tmp_path / "link"
    with path.open("wb"):
        os.link(path, link)
        path.unlink()
        assert writers.state_of([link]) == writers.BUSY
    assert writers.state_of([link]) == writers.FREE


def test_what_cannot_be_opened_is_not_called_free(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert writers._by_lease(tmp_path / "loop") == writers.UNKNOWN


def _ask(way: str, path: Path) -> str:
    found = path.stat()
    if way == "lease":
        return writers._by_lease(path)
    state = writers._by_descriptors({(found.st_dev, found.st_ino)})
    # Without root, other users' processes may not be looked at: then it stays unknown.
    return writers.FREE if state == writers.UNKNOWN and os.geteuid() else state
