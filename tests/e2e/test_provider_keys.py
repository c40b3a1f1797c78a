"""A provider's key opens the account: it is in one 0600 file and in the header of its requests, and
nowhere else, whatever goes wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.cloud import Cloud
from kit.rented import Story

pytestmark = pytest.mark.e2e

KEY = "canary4711KEYcanary4711KEYcanary"


@pytest.fixture(params=["runpod", "thunder"])
def story(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Story]:
    story = Story(tmp_path, request.param, key=KEY)
    yield story
    story.close()


def holders(folder: Path) -> list[str]:
    """Files below `folder` that hold the key."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return sorted(path.name for path in files if KEY.encode() in content(path))


def content(path: Path) -> bytes:
    """A file that was there a moment ago and is not now holds nothing."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def speakers() -> list[str]:
    """Processes that carry the key in their command line or environment, the emulator aside: it is
    the account."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            said = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
        except OSError:
            continue
        if KEY.encode() in said and b"clouds" not in said:
            found.append(said[:200].replace(b"\0", b" ").decode(errors="replace"))
    return found


def boxes(cloud: Cloud) -> list[Path]:
    return [Path(each["folder"]) for each in cloud.instances()]


def test_the_key_is_where_it_has_to_be_and_nowhere_else(story: Story) -> None:
    run = story.launch()
    story.place.wait_for(run, "checkpoint.mirrored", 1)
    assert boxes(story.cloud), "nothing to look into"
    assert [holders(folder) for folder in boxes(story.cloud)] == [[]] * len(boxes(story.cloud))
    assert speakers() == []
    assert story.watch(run) == 0
    assert holders(story.place.folder) == ["keys.toml"]
    kept = story.place.state / "keys.toml"
    assert kept.stat().st_mode & 0o777 == 0o600
    said = [story.place.run(*words).stdout for words in (("events", run), ("ps",), ("cost", run))]
    assert not any(KEY in each for each in said)
    assert not any(KEY in str(each) for each in story.cloud.audit())


def test_no_error_shows_it(story: Story) -> None:
    wrong = {"runpod": "unauthorized", "thunder": "token-revoked"}[story.kind]
    story.cloud.fault(wrong, times="always")
    env = story.cloud.env()
    said = [
        story.place.run("launch", str(story.job()), "--yes", check=None, **env),
        story.place.run("offers", "A40", "A6000", check=None, **env),
        story.place.run("doctor", check=None, **env),
        story.place.run("gc", check=None, **env),
    ]
    assert any(each.returncode for each in said)
    for each in said:
        assert KEY not in each.stdout + each.stderr
    assert set(holders(story.place.folder)) <= {"keys.toml"}
