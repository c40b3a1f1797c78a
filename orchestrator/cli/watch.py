"""`gpujob watch`: make sure the daemon runs, and show the run."""

from __future__ import annotations

import click

from orchestrator.cli.background import ensure_daemon
from orchestrator.cli.follow import detach_words, finish, follow
from orchestrator.cli.home import choose_run, is_interactive, settings
from orchestrator.wiring.ledger import open_ledger


@click.command()
@click.argument("run", required=False)
@click.option("--plain", is_flag=True, help="Lines only, no live screen.")
def command(run: str | None, plain: bool) -> None:
    """Show RUN live; default is this folder's newest. Ctrl-C leaves it running."""
    config = settings()
    ledger = open_ledger(config)
    found = choose_run(ledger, run)
    if not found.terminal:
        ensure_daemon(config)
    try:
        finish(follow(config, ledger, found.id, live=is_interactive() and not plain))
    except KeyboardInterrupt:
        click.echo(detach_words(found.id), err=True)
        raise click.exceptions.Exit(130) from None
