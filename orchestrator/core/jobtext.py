"""A job file as text, from what a script says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from orchestrator.core.scripts import Script


def job_text(script: Script, name: str, source: str) -> str:
    """A whole job file, to be read by a person: what is guessed says so."""
    return "\n".join(_lines(script, name, source)) + "\n"


def job_name(words: str) -> str:
    """A name that a job may have, from a file's or folder's."""
    plain = re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")
    return plain[:40].strip("-") or "job"


def _lines(script: Script, name: str, source: str) -> Iterator[str]:
    count = script.gpus or 1
    yield f"# From {source} ({script.launcher}). `gpujob rehearse` tries it here for nothing."
    yield from (f"# Look at this: {note}" for note in script.notes)
    yield f"name: {name}"
    yield f"resources: {{providers: [runpod, thunder], gpu: [A100-80GB:{count}, H100:{count}]}}"
    yield "budget: {usd: 50}   # correct this"
    yield "code: {path: .}"
    if script.secrets:
        yield f"secrets: [{', '.join(script.secrets)}]   # names; the values stay on this machine"
    if script.env:
        yield "env:"
        yield from (f"  {key}: {json.dumps(value)}" for key, value in script.env.items())
    if script.setup:
        yield "setup: |"
        yield from (f"  {line}" for line in script.setup)
    yield "run: |"
    yield f"  {script.command}"
    yield "checkpoints:"
    yield f"  path: {json.dumps(script.output)}"
    yield f"  layout: {script.layout}"
    if script.resume:
        yield f"  resume: {{args: {json.dumps(script.resume)}}}"
