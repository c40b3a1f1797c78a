"""`gpujob rehearse`: the whole job on this machine, small, for nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import click

from orchestrator.cli.home import json_option, settings, tell
from orchestrator.core.rehearsal.report import Report
from orchestrator.core.spec import load_job
from orchestrator.daemon import Scheduler
from orchestrator.errors import RunEnded
from orchestrator.flows.launch import read_dotenv
from orchestrator.flows.rehearsal.bench import LIMIT_S, STEPS, Bench
from orchestrator.flows.rehearsal.crash import OURS
from orchestrator.flows.rehearse import rehearse
from orchestrator.settings import Settings
from orchestrator.views.rehearsal import rehearsal_json, rehearsal_text
from orchestrator.wiring.worlds import make_bench, rehearsal_folder

LOG_LINES = 12


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key.")
@click.option("--steps", default=STEPS, show_default=True, help="Steps of each phase.")
@click.option("--limit-s", default=LIMIT_S, show_default=True, help="Seconds a phase may take.")
@click.option("--keep", is_flag=True, help="Keep its folder: logs, checkpoints, the small job.")
@json_option
def command(
    file: Path,
    overrides: tuple[str, ...],
    steps: int,
    limit_s: float,
    keep: bool,
    as_json: bool,
) -> None:
    """Run the job in FILE on this machine, made small: the same phases, gates, layouts and
    uploads, with a box lost in each phase and everything ended after it.

    The data are the first rows of yours. Your own trainer runs where this machine can run it, with
    a tiny model; else a stand-in reads your command and writes what it would write. Nothing is
    rented, nothing is installed, and no secret is given away. Exit code 2 when a mistake is found.
    """
    config = settings()
    job = load_job(file, overrides)
    environ = {**read_dotenv(job.base / ".env"), **os.environ}
    with _bench(config, job.name, environ, keep=keep) as bench:
        report = rehearse(job, replace(bench, steps=steps, limit_s=limit_s))
        click.echo(rehearsal_json(report) if as_json else rehearsal_text(report))
        if not report.passed:
            _show_log(bench, report)
    if keep:
        tell(f"hint: all of it is in {report.folder}")
    if not report.passed:
        keys = ", ".join(each.key for each in report.mistakes)
        raise RunEnded(
            f"the rehearsal found mistakes; nothing was rented: {keys}",
            2,
            hint=f"correct them and type `gpujob rehearse {file}` again",
        )


@contextmanager
def _bench(config: Settings, name: str, environ: dict[str, str], *, keep: bool) -> Iterator[Bench]:
    """Whatever happens, a Ctrl-C or a closed terminal too, no box is left, and without `keep` no
    file. A second Ctrl-C waits for that: it takes a few seconds."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    with rehearsal_folder(config, name, keep=keep) as folder:
        bench, world = make_bench(config, folder, environ, tell)
        scheduler = Scheduler(world)
        try:
            yield replace(bench, turn=lambda run: scheduler.turn(only=run))
        finally:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            scheduler.close()


def _show_log(bench: Bench, report: Report) -> None:
    """The last words of the trainer, where there was one."""
    logs = sorted((bench.state / "runs" / report.run).glob("*/log")) if report.run else []
    lines = logs[-1].read_text(errors="replace").splitlines() if logs else []
    shown = [line for line in lines if not line.startswith(OURS)][-LOG_LINES:]
    if shown:
        tell("\nWhat the trainer said last:")
    for line in shown:
        tell(f"  {line[:300]}")
