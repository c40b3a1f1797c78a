"""`gpujob ps`: the runs, from the ledger alone."""

from __future__ import annotations

import click

from orchestrator.cli.home import emit, json_option, settings
from orchestrator.views.runs import run_record, runs_table
from orchestrator.wiring.ledger import make_clock, open_ledger


@click.command()
@json_option
def command(as_json: bool) -> None:
    """List the runs, newest first; what may still bill says so."""
    now = make_clock().now()
    runs = open_ledger(settings()).runs()
    text = runs_table(runs, now) if runs else "no runs yet; `gpujob launch JOB.yaml` starts one"
    emit(as_json, text, (run_record(run, now) for run in runs))
