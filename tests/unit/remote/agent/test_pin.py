"""Pins: what the trainer deletes, replaces or still writes is held as it is."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from remote.agent.copies import Copies
from remote.agent.pin import Pin
from remote.agent.scan import list_tree


@pytest.fixture
def copies(tmp_path: Path) -> Iterator[Copies]:
    made = Copies(tmp_path / "copying")
    yield made
    made.close()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint-10"
    (folder / "deep").mkdir(parents=True)
    (folder / "a").write_bytes(b"first")
    (folder / "deep/b").write_bytes(b"second")
    return folder


def look(pin: Pin, source: Path, now: float = 0.0) -> None:
    pin.update(source.joinpath, list_tree(source), now)


def held(pin: Pin) -> dict[str, bytes]:
    return {path: (pin.folder / path).read_bytes() for path in pin.current}


@pytest.fixture
def pin(tmp_path: Path, copies: Copies, source: Path) -> Pin:
    made = Pin.open(tmp_path / "pins", "checkpoint-10", 1, copies, 0.0)
    look(made, source)
    return made


def test_links_share_the_inode_and_survive_the_deletion(pin: Pin, source: Path) -> None:
    assert (pin.folder / "a").stat().st_ino == (source / "a").stat().st_ino
    shutil.rmtree(source)
    look(pin, source)
    assert pin.gone
    assert held(pin) == {"a": b"first", "deep/b": b"second"}


def test_what_is_deleted_is_held_while_the_rest_is_still_there(pin: Pin, source: Path) -> None:
    """It may be the first of all: half a checkpoint must not be taken for a whole one."""
    (source / "a").unlink()
    look(pin, source)
    assert held(pin) == {"a": b"first", "deep/b": b"second"}


@pytest.mark.parametrize("name", ["deep/c.tmp", ".lock", "c.incomplete"])
def test_a_temporary_file_that_is_deleted_is_forgotten(pin: Pin, source: Path, name: str) -> None:
    (source / name).write_bytes(b"scratch")
    look(pin, source)
    (source / name).unlink()
    look(pin, source)
    assert set(held(pin)) == {"a", "deep/b"}


def test_writing_goes_on_under_the_link(pin: Pin, source: Path) -> None:
    with (source / "a").open("ab") as file:
        file.write(b" and more")
    look(pin, source, now=5.0)
    assert held(pin)["a"] == b"first and more"
    assert pin.changed_at == 5.0 and pin.is_whole


def test_a_replaced_file_is_linked_again(pin: Pin, source: Path) -> None:
    (source / "new").write_bytes(b"other")
    (source / "new").replace(source / "a")
    look(pin, source)
    assert held(pin)["a"] == b"other"


def test_a_temporary_name_is_forgotten(pin: Pin, source: Path) -> None:
    (source / ".c.tmp").write_bytes(b"third")
    look(pin, source)
    (source / ".c.tmp").rename(source / "c")
    look(pin, source)
    assert "c" in pin.files and ".c.tmp" not in pin.files


def test_links_to_elsewhere_and_pipes_are_left_alone(pin: Pin, source: Path) -> None:
    (source / "secret").symlink_to("/etc/hostname")
    (source / "way").symlink_to("/etc")
    os.mkfifo(source / "pipe")
    look(pin, source)
    assert set(pin.files) == {"a", "deep/b"}


def test_stillness_counts_looks_at_the_same_picture(pin: Pin, source: Path) -> None:
    look(pin, source, 1.0)
    look(pin, source, 2.0)
    assert (pin.changed_at, pin.looks) == (0.0, 3)
    (source / "d").touch()
    look(pin, source, 3.0)
    assert (pin.changed_at, pin.looks) == (3.0, 1)


def test_a_new_supervisor_takes_the_pin_over(pin: Pin, source: Path, copies: Copies) -> None:
    again = Pin.open(pin.folder.parent, "checkpoint-10", 1, copies, 9.0)
    look(again, source, 9.0)
    assert again.files == pin.files and again.is_whole and not again.copied


SHM = Path("/dev/shm")


@pytest.mark.skipif(
    not SHM.is_dir() or SHM.stat().st_dev == Path("/tmp").stat().st_dev,
    reason="needs a second file system, where links fail",
)
def test_where_links_fail_it_copies(tmp_path: Path, copies: Copies) -> None:
    source = SHM / f"gpujob-{os.getpid()}-{tmp_path.name}"
    source.mkdir()
    try:
        (source / "a").write_bytes(b"first")
        pin = Pin.open(tmp_path / "pins", "checkpoint-10", 1, copies, 0.0)
        _settle(pin, source)
        assert held(pin) == {"a": b"first"} and pin.copied == {"a"}
        (source / "a").write_bytes(b"second, longer")
        look(pin, source)
        assert not pin.is_whole
        _settle(pin, source)
        assert held(pin) == {"a": b"second, longer"}
    finally:
        (source / "a").unlink()
        source.rmdir()
    look(pin, source)
    assert held(pin) == {"a": b"second, longer"}


def _settle(pin: Pin, source: Path) -> None:
    for _ in range(1000):
        look(pin, source)
        if pin.is_whole:
            return
    raise AssertionError(f"never whole: {pin}")


def test_what_was_finished_and_deleted_between_two_looks(pin: Pin, source: Path) -> None:
    """Half written at the last look; the rest of the checkpoint is still there, as verl's shell."""
    with (source / "c").open("wb") as file:
        file.write(b"half")
        file.flush()
        look(pin, source)
        file.write(b" and the rest")
    (source / "c").unlink()
    look(pin, source, 1.0)
    assert not pin.gone and pin.changed_at == 1.0
    assert pin.files["c"].size == len(b"half and the rest")
    assert held(pin)["c"] == b"half and the rest"


def test_the_last_copy_of_what_was_deleted(copies: Copies, source: Path, tmp_path: Path) -> None:
    """A copy was there already, of when it was half written."""
    pin = Pin.open(tmp_path / "pins", "checkpoint-10", 1, copies, 0.0)

    def look_and_copy(times: int) -> None:
        for _ in range(times):
            pin.update(source.joinpath, list_tree(source), 0.0, copy=("a",))
            time.sleep(0.05)

    look_and_copy(5)
    assert (pin.folder / "a").read_bytes() == b"first"
    (source / "a").write_bytes(b"first and last")
    pin.update(source.joinpath, list_tree(source), 0.0, copy=("a",))
    pin.update(source.joinpath, list_tree(source), 0.0, copy=("a",))  # starts the copy
    shutil.rmtree(source)
    look_and_copy(5)
    assert pin.gone and pin.is_whole and not pin.is_coming
    assert held(pin)["a"] == b"first and last"
    assert pin.files["a"].size == len(b"first and last")


@pytest.fixture
def no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on many network file systems. The kernel looks at the new name first."""

    def refused(source: Path, target: Path, **_: object) -> None:
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, "exists")
        raise PermissionError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refused)


def adopted(tmp_path: Path, copies: Copies) -> Pin:
    return Pin.open(tmp_path / "pins", "checkpoint-10", 1, copies, 9.0)


def test_finished_copies_outlive_their_agent(
    tmp_path: Path, copies: Copies, source: Path, no_links: None
) -> None:
    """What retention deletes right afterwards is nowhere else, and a second copy may not fit."""
    _settle(Pin.open(tmp_path / "pins", "checkpoint-10", 1, copies, 0.0), source)
    again = adopted(tmp_path, copies)
    inode = (again.folder / "a").stat().st_ino
    look(again, source, 9.0)
    assert again.is_whole and again.copied == {"a", "deep/b"}
    assert (again.folder / "a").stat().st_ino == inode, "it is not copied once more"
    shutil.rmtree(source)
    look(again, source, 9.1)
    assert held(again) == {"a": b"first", "deep/b": b"second"}


def test_an_older_copy_is_held_until_the_newer_one_is_there(
    tmp_path: Path, copies: Copies, source: Path, no_links: None
) -> None:
    _settle(Pin.open(tmp_path / "pins", "checkpoint-10", 1, copies, 0.0), source)
    (source / "a").write_bytes(b"first and last")
    again = adopted(tmp_path, copies)
    look(again, source, 9.0)
    assert held(again)["a"] == b"first" and not again.is_whole
    _settle(again, source)
    assert held(again)["a"] == b"first and last"


def test_an_adopted_copy_is_not_replaced_by_a_link_to_what_is_rewritten(
    copies: Copies, source: Path, tmp_path: Path
) -> None:
    """The file system links, but the trainer writes this file again in place."""
    pin = Pin.open(tmp_path / "pins", "checkpoint-10", 1, copies, 0.0)
    for _ in range(5):
        pin.update(source.joinpath, list_tree(source), 0.0, copy=("a",))
        time.sleep(0.05)
    again = adopted(tmp_path, copies)
    again.update(source.joinpath, list_tree(source), 9.0, copy=("a",))
    assert again.is_whole and again.copied == {"a"}
    (source / "a").write_bytes(b"of the next save")
    assert held(again)["a"] == b"first"


def test_a_source_that_was_replaced_meanwhile_is_linked_again(
    tmp_path: Path, copies: Copies, pin: Pin, source: Path
) -> None:
    (source / "new").write_bytes(b"other")
    (source / "new").replace(source / "a")
    again = adopted(tmp_path, copies)
    look(again, source, 9.0)
    assert held(again)["a"] == b"other" and not again.copied
    assert sorted(path.name for path in again.folder.iterdir()) == ["a", "deep"]
