"""The docs say what is so: verbs, targets, links, tables, examples are held against the code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.cli import ALIASES, VERBS
from orchestrator.core.fold import _STEPS
from orchestrator.core.spec import load_job
from orchestrator.views.event import _WORDS

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_verbs_targets_and_links_exist(page: Path) -> None:
    text = page.read_text()
    # In a command that is shown, not in a sentence about gpujob.
    shown = re.findall(r"(?:^|`|\$ )gpujob ([a-z]+)", text, flags=re.MULTILINE)
    assert set(shown) <= {*VERBS, *ALIASES}
    targets = set(re.findall(r"(?:^|`)make ([a-z]+)", text, flags=re.MULTILINE))
    assert targets <= set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (page.parent / link).exists(), link


@pytest.mark.parametrize("name", ["README.md", "ARCHITECTURE.md"])
def test_a_page_stays_short(name: str) -> None:
    assert len((ROOT / name).read_text().splitlines()) <= 150


def test_every_event_is_documented_folded_and_worded() -> None:
    text = (ROOT / "docs" / "formats.md").read_text()
    table = text.split("### Events")[1].split("## 3.")[0]
    documented = set(re.findall(r"^\| `([a-z]+\.[a-z]+|planned)` \|", table, flags=re.MULTILINE))
    assert documented == set(_STEPS) == set(_WORDS)


def test_the_page_of_the_command_line_is_current() -> None:
    script = [sys.executable, str(ROOT / "scripts" / "write_cli_docs.py"), "--check"]
    subprocess.run(script, check=True)


def test_the_job_file_of_the_readme_is_one(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text()
    example = text.split("```yaml\n")[1].split("```")[0]
    (tmp_path / "job.yaml").write_text(example)
    assert load_job(tmp_path / "job.yaml").name == "my-sft"


@pytest.mark.parametrize("path", sorted((ROOT / "jobs").glob("*.yaml")), ids=lambda path: path.name)
def test_the_jobs_that_come_along_are_good(path: Path) -> None:
    assert load_job(path).name
