"""`gpujob approve`: a person's yes or no to what a run waits for."""

from __future__ import annotations

import getpass

import click

from orchestrator.cli.background import ensure_daemon
from orchestrator.cli.home import choose_waiting_run, settings
from orchestrator.core.run import Phase, Run, Waiting
from orchestrator.errors import NotFound
from orchestrator.wiring.ledger import open_ledger


@click.command()
@click.argument("run", required=False)
@click.option("--no", "no", is_flag=True, help="Say no: the run is cancelled.")
def command(run: str | None, no: bool) -> None:
    """Let RUN, which waits for a person, go on; with --no it ends.

    `gpujob watch` shows what it waits for: a gate that wants a person or could not decide, or a
    health rule whose answer is `ask`.
    """
    config = settings()
    ledger = open_ledger(config)
    found = choose_waiting_run(ledger, run)
    phase, waiting = _question(found)
    told = {"phase": phase.name, "yes": not no, "by": _who()}
    ledger.append(found.id, "requested.approve", told)
    ensure_daemon(config)
    said = "ends" if no else "goes on"
    click.echo(f"{found.id} {said}; it waited for: {waiting.reason}")
    click.echo(f"hint: `gpujob watch {found.id}` shows it")


def _question(run: Run) -> tuple[Phase, Waiting]:
    """Raises NotFound when nobody is asked."""
    phase = run.phase
    if phase and phase.waiting and run.is_asking:
        return phase, phase.waiting
    state = "has ended" if run.terminal else f"is {run.state.value}"
    if run.teardown and not run.terminal:
        state = "is being torn down"
    elif phase and phase.waiting and phase.approved is not None:
        state = "has been answered"
    raise NotFound(
        f"{run.id} waits for nobody: it {state}; nothing was changed",
        hint=f"`gpujob watch {run.id}` shows what it does",
    )


def _who() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""
