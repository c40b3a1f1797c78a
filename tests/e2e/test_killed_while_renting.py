"""SIGKILL of the real process before and after each ledger write between the intent to rent and a
box that runs: the next command adopts or ends what exists, and the account holds nothing twice."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from kit.gpujob import PROGRAMS
from kit.rented import Story

pytestmark = [pytest.mark.e2e, pytest.mark.rented]

ROOT = Path(__file__).parents[2]
# instance.intended, instance.created, instance.running
WRITES = (1, pytest.param(2, marks=pytest.mark.long), 3)


def launch_and_die(story: Story, at: int, when: str) -> str:
    """The run that was on record when its controller was killed."""
    place = story.place
    words = ["launch", str(story.job()), "--yes", "--foreground"]
    died = subprocess.run(
        [sys.executable, str(PROGRAMS / "doomed.py"), str(at), when, *words],
        env={**place.env, **story.cloud.env(), "PYTHONPATH": str(ROOT)},
        cwd=place.folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert died.returncode == -signal.SIGKILL, died.stdout + died.stderr
    lines = place.run("ps", "--json").stdout.splitlines()
    return str(json.loads(lines[0])["run"])


@pytest.mark.parametrize("kind", ["runpod", pytest.param("thunder", marks=pytest.mark.long)])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("at", WRITES)
def test_the_next_command_adopts_or_ends(tmp_path: Path, kind: str, when: str, at: int) -> None:
    story = Story(tmp_path, kind)
    try:
        run = launch_and_die(story, at, when)
        if at % 2:
            assert story.watch(run) == 0, story.history(run)
            story.check_checkpoints()
        else:
            story.place.run("teardown", run)
        assert story.place.record(run)["still_billing"] == []
        story.check_nothing_bills()
        story.check_one_at_a_time()
        billed = {each["instance"] for each in story.cloud.bill()["intervals"]}
        assert len(billed) <= 1, story.history(run)
    finally:
        story.close()
