"""The job taken apart, held against the user's own files, and made small."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

from orchestrator.core.patching import patched
from orchestrator.core.rehearsal import edits, families
from orchestrator.core.rehearsal.keys import key_of, refused
from orchestrator.core.rehearsal.report import Mistake
from orchestrator.core.rehearsal.small import MODEL, Part, offset_of, small_tree
from orchestrator.core.spec import Job, parse_job
from orchestrator.errors import BadJobFile, GpujobError
from orchestrator.flows.launch import SECRETS, make_plan, record
from orchestrator.flows.rehearsal.bench import Bench
from orchestrator.flows.rehearsal.checks import found_in_files, unset_secrets
from orchestrator.flows.rehearsal.code import (
    Code,
    all_settings,
    knows_ranks,
    models_of,
    read_code,
    real_scripts,
    runs_here,
)
from orchestrator.flows.rehearsal.props import Props
from orchestrator.flows.rehearsal.rows import absent_data

EVERY = 10
STEP_S = 0.2
# What the trainer gets for each secret; it is redacted from the log wherever it stands.
PLACEHOLDER = "gpujob-placeholder-for-a-secret"


class Stage:
    """`look` fills `parts`, which `record` makes the small run of."""

    def __init__(self, job: Job, bench: Bench, props: Props) -> None:
        self._job, self._bench, self._props = job, bench, props
        self.parts: list[Part] = []
        self.uploaded: list[str] = []
        self.why_stand_in: dict[str, str] = {}

    def look(self) -> Iterator[Mistake]:
        """Reads each phase's code, says what is wrong with it, and decides who trains."""
        for index, (phase, job) in enumerate(self._job.parts):
            whole = job.at(self._job.base)
            try:
                code = read_code(whole, self._bench.shop.trees)
            except BadJobFile as error:
                yield refused(error, self._job)
                continue
            found = [
                *unset_secrets(whole, self._bench.environ, code),
                *found_in_files(whole, code),
            ]
            yield from (replace(each, key=key_of(each.key, phase, index)) for each in found)
            try:
                self.parts.append(self._part(index, whole, code))
            except (GpujobError, OSError, ValueError) as error:
                yield Mistake(
                    key_of("data", phase, index), str(error), "correct the files it names"
                )
            self.uploaded += code.files

    def record(self) -> str:
        """Raises BadJobFile and whatever planning raises."""
        bench = self._bench
        tree = small_tree(self._job.name, tuple(self.parts), str(bench.folder))
        name = bench.folder / "job.json"
        name.write_text(json.dumps(tree, indent=2))
        small = parse_job(name.read_bytes(), file=str(name), base=self._job.base)
        plan = make_plan(small, bench.shop)
        values = dict.fromkeys(plan.secrets, PLACEHOLDER)
        ledger, state = bench.ledger, bench.state
        return record(plan, {SECRETS: values}, ledger=ledger, shop=bench.shop, state=state)[0]

    def _part(self, index: int, job: Job, code: Code) -> Part:
        phase, bench = self._job.parts[index][0], self._bench
        run = job.run or ""
        why = runs_here(code, run, job.setup or "", bench.importable) if job.train is None else ""
        if why:
            self.why_stand_in[phase.name] = why
        offset = offset_of(self._job.parts, index)
        steps = bench.steps * (1 + offset)
        models = models_of(job, code)
        can_load = job.train is not None or (not why and knows_ranks(code))
        needs_model = can_load and any(map(edits.is_hub_id, models))
        model = MODEL if needs_model else ""
        wish = edits.Wish(steps, EVERY, model, short=not why)
        ends = bool(why) or job.train is not None or _is_limited(job, code)
        part = Part(phase, job, wish, python=bench.python, stand_in=bool(why), ends=ends)
        small = {name: edits.edits(tree, wish) for name, tree in code.settings.items()}
        data = self._props.data(job)
        spec = _spec(part, job, code, real_scripts(code, bench.importable))
        part = replace(part, absent=absent_data(job, code))
        has = {"stand_in": bool(why), "model": needs_model, "rows": bool(part.absent)}
        tools = self._props.tools(phase.name, spec, **has)
        patch = {name: found for name, found in small.items() if found and _fits(code, name)}
        elsewhere = tuple(name for name in models if not (code.folder / name).exists())
        return replace(part, patch=patch, data=data, tools=str(tools), models=elsewhere)


def _fits(code: Code, name: str) -> bool:
    """A settings file that can be patched at all."""
    try:
        patched((code.folder / name).read_bytes(), name, {})
    except (OSError, BadJobFile):
        return False
    return True


def _is_limited(job: Job, code: Code) -> bool:
    """Whether a number of steps is set anywhere, so that it can be made small."""
    numbers = (value for _, value in edits.named(all_settings(job, code), edits.STEPS))
    return any(isinstance(value, int) for value in numbers)


def _spec(part: Part, job: Job, code: Code, real: tuple[str, ...]) -> dict[str, object]:
    """What our stand-in has to know beside the user's command."""
    layout = job.checkpoints.layout
    gate = part.phase.gate.evaluation if part.phase.gate else None
    return {
        "v": 1,
        "layout": families.expected(job.run or "", layout),
        "rule": None if isinstance(layout, str) else layout.model_dump(mode="json"),
        "path": job.checkpoints.path,
        "steps": part.wish.steps,
        "every": part.wish.every,
        "step_s": STEP_S,
        "world": part.ranks,
        "real": list(real),
        "knows_ranks": knows_ranks(code),
        "resume_env": list(job.checkpoints.resume.env),
        "setup": job.setup or "",
        "evaluations": [gate.file, gate.baseline] if gate else [],
        "metric": gate.metric if gate else "",
    }
