"""What a rehearsal proved, what it found wrong, and what it cannot tell."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.core.rehearsal import curve, edits
from orchestrator.core.rehearsal.report import Mistake, Report
from orchestrator.core.rehearsal.small import MOST_RANKS
from orchestrator.flows.rehearsal.faults import faults_of
from orchestrator.flows.rehearsal.rows import ROWS
from orchestrator.flows.rehearsal.scene import Played, Scene


def report_of(scene: Scene) -> Report:
    played = tuple(scene.played())
    proven = [each for phase in played for each in _proven(phase)]
    mistakes = [each for phase in played for each in faults_of(phase)]
    unproven = [each for phase in played for each in _unproven(phase)]
    written = {name for phase in played for name in phase.metrics}
    unproven += curve.unheard((part.job for part in scene.parts), written)
    unproven += [f"{name}: all of it; the rehearsal ended before" for name in scene.never_begun]
    if scene.late:
        mistakes.append(_too_late(scene))
    elif scene.run.outcome and scene.run.outcome.code != "done" and not mistakes:
        mistakes.append(Mistake("run", scene.run.reason, "see the log below"))
    if scene.run.terminal and not scene.run.still_billing:
        proven.append("everything that was rented was ended and proven gone")
    return Report(
        proven=tuple(dict.fromkeys(proven)),
        mistakes=tuple(mistakes),
        unproven=tuple(dict.fromkeys([*unproven, *_always(scene)])),
        own=tuple(p.phase.name for p in scene.parts if p.phase.name not in scene.why_stand_in),
        stand_ins=tuple(scene.why_stand_in),
        run=scene.run.id,
    )


def _proven(played: Played) -> Iterator[str]:
    name, part = played.phase.name, played.part
    who = "gpujob's trainer" if part.job.train else "your trainer"
    who = who if played.is_own else "a stand-in for your trainer"
    if played.attempts:
        yield f"{name}: rented, uploaded, started by your command ({who}, ranks: {part.ranks})"
    if played.here:
        steps = sorted({seal.step for seal in played.seals if seal.step is not None})
        yield (
            f"{name}: {len(played.here)} checkpoints written, sealed, brought home and verified"
            f" (steps {', '.join(map(str, steps[:6]))})"
        )
    if not played.began_again():
        for before, after in played.resumed():
            if after.resume:
                yield (
                    f"{name}: its box was lost, and attempt {after.number} went on on another one"
                    f" from {after.resume.name} (attempt {before.number} had ended)"
                )
    yield from _proven_between(played)


def _proven_between(played: Played) -> Iterator[str]:
    name, begun = played.phase.name, played.begun
    if begun.start:
        yield f"{name}: {begun.start.name} was handed over ({begun.how})"
    if any(each.stopping_for == "steps" for each in played.attempts):
        yield f"{name}: it was stopped at its step, and that step's checkpoint is here"
    if begun.approved:
        yield f"{name}: it waited for its gate, and went on when it was told to"
    asked = {metric for _, metric in curve.asked_metrics(played.phase, played.index)}
    if played.metrics and (played.is_own or asked & set(played.metrics)):
        yield f"{name}: its metrics can be read ({', '.join(played.metrics[:8])})"


def _unproven(played: Played) -> Iterator[str]:
    name, job = played.phase.name, played.part.job
    why = played.scene.why_stand_in.get(name)
    if why:
        yield (
            f"{name}: your own trainer did not run: {why}; that it reads its files, honours its"
            " resume flag and writes this layout"
        )
        for key, metric in curve.asked_metrics(played.phase, played.index):
            if metric not in played.metrics:
                yield f"{name}: that `{metric}` is written ({key})"
    if played.phase.gate:
        yield f"{name}: whether its gate says GO (a tiny model proves nothing about that)"
    resume = job.checkpoints.resume
    can_resume = bool(resume.args or resume.env or resume.place or job.train)
    if can_resume and played.seals and len(played.attempts) < 2:
        yield f"{name}: a resume; it had ended before its box could be lost"
    elif any(after.resume is None for _, after in played.resumed()):
        yield f"{name}: a resume; nothing can be resumed, so a lost box costs the whole phase"
    for data in played.part.absent:
        yield f"{name}: that `setup` brings {data}, in rows that can be read (here it had ours)"
    ranks = max(need.count for need in job.resources.needs)
    if ranks > MOST_RANKS:
        yield f"{name}: {ranks} ranks, and checkpoints of as many (here there were {MOST_RANKS})"


def _always(scene: Scene) -> Iterator[str]:
    """What no rehearsal on this machine can tell."""
    if any(job.setup for _, job in scene.job.parts):
        yield "that `setup` installs on the image of the box: it was not run here, only read"
    if scene.job.secrets:
        yield "that the secrets are accepted: the trainer got placeholders"
    for model in _models_of_the_hub(scene)[:3]:
        yield f"that the hub has {model} and lets your token read it"
    for name in scene.left_out[:3]:
        yield f"that the trainer reads {name}: it is too large to travel here"
    if any(job.data for _, job in scene.job.parts):
        yield f"the rows of your data behind the first {ROWS}"
    yield "memory: whether model, batch and sequence fit on the GPU"
    yield "speed, and so the hours and dollars of the real run"
    yield "checkpoints of real size: how long they take to write and to come home"
    yield "learning: whether the loss of the real model falls"
    yield "NCCL between GPUs, drivers, kernels (flash attention, 8 bit, bf16)"
    yield "stock and prices at the moment of the launch"


def _models_of_the_hub(scene: Scene) -> list[str]:
    found = [name for part in scene.parts for name in part.models]
    return list(dict.fromkeys(name for name in found if edits.is_hub_id(name)))


def _too_late(scene: Scene) -> Mistake:
    return Mistake(
        "run",
        f"phase {scene.late} did not end in the time of a rehearsal",
        "let a setting that the command names limit its steps (max_steps, save_steps), or give the"
        " phase `stop_after_steps`",
    )
