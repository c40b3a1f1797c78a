"""`gpujob cost`: what a run costs, from the ledger alone."""

from __future__ import annotations

import click

from orchestrator.cli.home import choose_run, emit, json_option, settings
from orchestrator.views.cost import cost_record, cost_text
from orchestrator.wiring.ledger import make_clock, open_ledger


@click.command()
@click.argument("run", required=False)
@json_option
def command(run: str | None, as_json: bool) -> None:
    """Show what RUN (default: this folder's newest) costs, by instance and by attempt.

    From the intent to rent each instance to the proof that it is gone, at the prices that its
    provider told.
    """
    found, now = choose_run(open_ledger(settings()), run), make_clock().now()
    emit(as_json, cost_text(found, now), [cost_record(found, now)])
