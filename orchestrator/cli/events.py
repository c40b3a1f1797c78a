"""`gpujob events`: what happened in a run."""

from __future__ import annotations

import click

from orchestrator.cli.home import choose_run, emit, json_option, settings
from orchestrator.views.event import event_line
from orchestrator.wiring.ledger import open_ledger


@click.command()
@click.argument("run", required=False)
@json_option
def command(run: str | None, as_json: bool) -> None:
    """Print what happened in RUN (default: this folder's newest), oldest first."""
    ledger = open_ledger(settings())
    events = ledger.events(choose_run(ledger, run).id)
    emit(as_json, "\n".join(event_line(event) for event in events), events)
