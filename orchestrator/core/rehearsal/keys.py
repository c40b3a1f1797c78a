"""Which key of the job file a mistake is about."""

from __future__ import annotations

import re

from orchestrator.core.rehearsal.report import Mistake
from orchestrator.core.spec import Job, Phase
from orchestrator.errors import GpujobError

_KEY = re.compile(r"^([a-z]\w*(?:\.[a-z]\w*|\[\d+\])*): ")
_KEYS_BY_WORDS = {
    "refuse": r"must not be run",
    "phases[].git.branch": r"code of branch",
    "phases[].git.commit": r"code of commit",
    "phases[].git": r"branch or commit",
    "resources.disk_gb": r"resources\.disk_gb",
    "checkpoints.mirror": r"can be used there|holds the checkpoints of",
    "resources.gpu": r"no offer of",
    "phases[].start_from": r"starts from the checkpoint",
}


def refused(error: GpujobError, job: Job) -> Mistake:
    """A refusal of the plan as a mistake: its first words, or its hint, name the key."""
    found = _KEY.match(error.message)
    words = error.message.replace("; nothing was rented", "")
    if found:
        return Mistake(found[1], words[found.end() :], error.hint or "")
    for key, sign in _KEYS_BY_WORDS.items():
        if re.search(sign, error.message):
            return Mistake(key.replace("[]", _place(words, job)), words, error.hint or "")
    return Mistake("the job file", words, error.hint or "")


def key_of(key: str, phase: Phase, index: int) -> str:
    """The key as the job file has it: one that the phase brings itself stands below it."""
    brought = phase.model_extra or {}
    top = re.split(r"[.\[: (]", key, maxsplit=1)[0]
    return f"phases[{index}].{key}" if top in brought else key


def _place(words: str, job: Job) -> str:
    """The index of the phase that a refusal begins with."""
    found = re.match(r"phase (\S+) ", words)
    names = [phase.name for phase, _ in job.parts]
    return f"[{names.index(found[1])}]" if found and found[1] in names else "[]"
