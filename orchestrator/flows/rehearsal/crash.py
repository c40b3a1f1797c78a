"""A trainer that ended in an error: which key of the job file its last words lead to."""

from __future__ import annotations

import re

from orchestrator.core.rehearsal.report import Mistake
from orchestrator.core.spec import Job
from orchestrator.flows.rehearsal.columns import missing_column

_OF_TRAINER = re.compile(r"^error: ([a-z_]+(?:\.[a-z_]+)*): (.+)$", re.MULTILINE)
_NO_MODULE = re.compile(r"No module named '([\w.]+)'")
_NO_COLUMN = re.compile(r"[Cc]olumns? ['\"](\w+)['\"]|KeyError: '(\w+)'")
_NO_VARIABLE = re.compile(r"<frozen os>[^\n]*\n(?:[^\n]*\n){0,3}KeyError: '(\w+)'")
_NO_FILE = re.compile(r"No such file or directory:? '?([^'\n]+)'?")
# What a shell says of a script or a program.
_NOT_FOUND = re.compile(
    r"^\S*sh: (?:line )?(?:\d+: )?(\S+): (?:No such file or directory|(?:command )?not found)$",
    re.M,
)
_NOT_READ = re.compile(r"(?:JSONDecodeError|yaml\.(?:scanner|parser)\.\w+): *([^\n]+)")
MOST_READ = 20_000
# What a rehearsal writes into the log itself.
OURS = "gpujob-rehearsal"
# What a mistake is about when a settings file is no JSON or YAML, whoever says so.
NOT_READ = "a settings file that cannot be read"


def why_it_crashed(log: bytes, words: str, job: Job) -> Mistake:
    """`words` say how it ended, for a crash that nothing here explains."""
    lines = log.decode(errors="replace").splitlines()
    text = "\n".join(line for line in lines if not line.startswith(OURS))[-MOST_READ:]
    if job.train and (found := _OF_TRAINER.search(text)):
        advice = "correct it; docs/trainer.md has each key"
        return Mistake(f"train.{found[1]}", found[2], advice)
    if found := _NO_MODULE.search(text):
        told = f"the trainer imports {found[1]}, which is not there"
        return Mistake("setup", told, f"add {found[1]} to what setup installs", found[1])
    if found := _NOT_FOUND.search(text) or _NO_FILE.search(text):
        told = f"it needs {found[1]}, which is not on the box"
        advice = "correct the path, or let `code` or `data: [{from: …, to: …}]` bring it"
        return Mistake("run", told, advice)
    if found := _NOT_READ.search(text):
        return Mistake("run", f"{NOT_READ}: {found[1]}", "correct the file", NOT_READ)
    if found := _NO_VARIABLE.search(text):
        told = f"the trainer reads {found[1]} from its environment, and nothing sets it"
        return Mistake("secrets", told, f"add {found[1]}, or set it in env", found[1])
    if found := _NO_COLUMN.search(text):
        mistake = missing_column(found[1] or found[2], job)
        # Any dictionary has keys: without a column of nearly that name it may be another one's.
        if found[1] or mistake.advice.startswith("write "):
            return mistake
    last = next((line for line in reversed(text.splitlines()) if line.strip()), "")
    words = f"{words.split(OURS)[0]}{last}" if OURS in words else words
    return Mistake("run", words, "correct the command, or the file that it names")
