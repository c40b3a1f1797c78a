"""`gpujob logs`: what the trainer printed, as far as it is here."""

from __future__ import annotations

import shutil
import sys

import click

from orchestrator.cli.home import choose_run, settings
from orchestrator.errors import NotFound
from orchestrator.wiring.ledger import open_ledger


@click.command()
@click.argument("run", required=False)
def command(run: str | None) -> None:
    """Print what the trainer of RUN printed, on every instance, oldest first."""
    config = settings()
    found = choose_run(open_ledger(config), run)
    logs = [config.state / "runs" / found.id / each.id / "log" for each in found.instances]
    there = [path for path in logs if path.exists()]
    if not there:
        raise NotFound(
            f"{found.id} has printed nothing yet", hint=f"`gpujob watch {found.id}` shows it live"
        )
    for path in there:
        with path.open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
