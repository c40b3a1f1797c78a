"""`gpujob teardown`: ask for the end, and stay until it is proven."""

from __future__ import annotations

import click

from orchestrator.cli.background import ensure_daemon
from orchestrator.cli.follow import detach_words, follow
from orchestrator.cli.home import choose_live_run, is_interactive, settings
from orchestrator.errors import RunEnded
from orchestrator.views.cost import billing_words
from orchestrator.views.ending import ending_text
from orchestrator.wiring.ledger import make_clock, open_ledger

STILL_BILLING = 8


@click.command()
@click.argument("run", required=False)
@click.option("--reason", default="asked for", help="A word for the record.")
@click.option(
    "--wait", "wait_s", default=3600.0, show_default=True, help="Seconds to wait for the proof."
)
def command(run: str | None, reason: str, wait_s: float) -> None:
    """Bring home what is missing, end everything RUN rents, and prove that it is gone.

    Exit code 8 means that something may still bill; the daemon keeps trying.
    """
    config = settings()
    ledger = open_ledger(config)
    found = choose_live_run(ledger, run)
    if not found.terminal:
        ledger.append(found.id, "requested.teardown", {"reason": reason})
        ensure_daemon(config)
        try:
            found = follow(
                config,
                ledger,
                found.id,
                live=is_interactive(),
                after=found.seq,
                timeout_s=wait_s,
            )
        except KeyboardInterrupt:
            click.echo(detach_words(found.id), err=True)
            raise click.exceptions.Exit(130) from None
    click.echo(ending_text(found, make_clock().now()))
    if found.still_billing or not found.terminal:
        raise RunEnded(
            f"{found.id} has not ended yet, still billing: {billing_words(found)};"
            " the daemon keeps trying",
            STILL_BILLING,
            hint=f"`gpujob watch {found.id}` shows why, `gpujob teardown {found.id}` waits again",
        )
