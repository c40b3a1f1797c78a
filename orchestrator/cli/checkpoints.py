"""`gpujob checkpoints`: each one, and where it is."""

from __future__ import annotations

import click

from orchestrator.cli.home import choose_run, emit, json_option, settings
from orchestrator.views.runs import checkpoint_record, checkpoints_table
from orchestrator.wiring import open_ledger


@click.command()
@click.argument("run", required=False)
@json_option
def command(run: str | None, as_json: bool) -> None:
    """List the checkpoints of RUN (default: this folder's newest) and where each one is."""
    found = choose_run(open_ledger(settings()), run)
    records = (checkpoint_record(found, seal) for seal in found.seals)
    emit(as_json, checkpoints_table(found), records)
