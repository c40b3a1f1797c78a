"""A whole job on this machine for nothing: planned, recorded and driven as the real one is, with a
box that is lost in each phase, and judged by what came of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from orchestrator.core.rehearsal.keys import refused
from orchestrator.core.rehearsal.report import Mistake, Report
from orchestrator.core.spec import Job
from orchestrator.errors import BadJobFile, GpujobError
from orchestrator.flows.rehearsal.bench import Bench
from orchestrator.flows.rehearsal.drive import Drive
from orchestrator.flows.rehearsal.judge import report_of
from orchestrator.flows.rehearsal.props import Props
from orchestrator.flows.rehearsal.scene import Scene
from orchestrator.flows.rehearsal.stage import Stage


def rehearse(job: Job, bench: Bench) -> Report:
    """Raises BadJobFile for a job that cannot be made small at all; whatever else is wrong is in
    the report."""
    began_s = bench.clock.monotonic()
    report = _report(job, bench)
    took_s = bench.clock.monotonic() - began_s
    return replace(report, mistakes=_once(report.mistakes), took_s=took_s, folder=str(bench.folder))


def _report(job: Job, bench: Bench) -> Report:
    props = Props(bench.folder, bench.makers, bench.standin, bench.python)
    stage = Stage(job, bench, props)
    mistakes = [*_planned(job, bench)]
    if job.refuse:
        return Report(mistakes=tuple(mistakes))
    mistakes += stage.look()
    if len(stage.parts) < len(job.parts):
        return Report(mistakes=tuple(mistakes))
    try:
        run_id = stage.record()
    except GpujobError as error:
        return Report(mistakes=(*mistakes, refused(error, job)))
    drive = Drive(run_id, bench)
    drive.play()
    scene = Scene(
        job=job,
        parts=tuple(stage.parts),
        run=bench.ledger.run(run_id),
        folder=bench.state / "runs" / run_id,
        uploaded=tuple(stage.uploaded),
        why_stand_in=stage.why_stand_in,
        late=drive.late,
        left_out=tuple(props.left_out),
    )
    report = report_of(scene)
    return replace(report, mistakes=(*mistakes, *report.mistakes))


def _planned(job: Job, bench: Bench) -> Iterator[Mistake]:
    """What the plan of the real job refuses; a provider that cannot be asked is no mistake."""
    try:
        bench.plan(job)
    except BadJobFile as error:
        yield refused(error, job)
    except GpujobError:
        return


def _once(mistakes: tuple[Mistake, ...]) -> tuple[Mistake, ...]:
    """One for a key, and one for what was read and then seen: what is told first is told best."""
    found: dict[str, Mistake] = {}
    for each in mistakes:
        if not each.about or each.about not in {told.about for told in found.values()}:
            found.setdefault(each.key, each)
    return tuple(found.values())
