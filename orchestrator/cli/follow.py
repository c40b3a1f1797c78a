"""Following a run: reads the ledger and the run's files, prints what is new, acts on nothing."""

from __future__ import annotations

from collections.abc import Callable

import click

from orchestrator.cli.background import ensure_daemon
from orchestrator.core.run import Run
from orchestrator.errors import RunEnded
from orchestrator.ports import Ledger
from orchestrator.settings import Settings
from orchestrator.views.ending import ending_text
from orchestrator.views.event import event_line
from orchestrator.views.progress import Progress
from orchestrator.views.screen import Screen
from orchestrator.wiring.ledger import make_clock

LOOK_S = 0.25
DAEMON_S = 5.0
EXIT_CODES = {
    "done": 0,
    "asked": 1,
    "capacity": 3,
    "budget": 4,
    "gate": 5,
    "red_flag": 6,
    "integrity": 7,
}


def follow(
    config: Settings,
    ledger: Ledger,
    run_id: str,
    *,
    until: Callable[[Run], bool] = lambda run: run.terminal,
    live: bool,
    keep_daemon: bool = True,
    after: int = 0,
    timeout_s: float | None = None,
) -> Run:
    """Show the run until `until` holds; the run as it is then. Ctrl-C stops the looking only."""
    clock = make_clock()
    progress = Progress(config.state / "runs" / run_id)
    checked = began = clock.monotonic()
    with Screen(live) as screen:
        while True:
            for event in ledger.events(run_id, after):
                after = event.seq
                screen.line(event_line(event))
            run = ledger.run(run_id)
            screen.show(run, progress.look(run), clock.now())
            if until(run) and run.seq == after:
                return run
            if timeout_s is not None and clock.monotonic() - began > timeout_s:
                return run
            if keep_daemon and clock.monotonic() - checked > DAEMON_S:
                ensure_daemon(config)
                checked = clock.monotonic()
            clock.wait(LOOK_S)


def detach_words(run_id: str) -> str:
    return (
        f"\ndetached; {run_id} goes on, and so does what it costs\n"
        f"hint: `gpujob watch {run_id}` shows it again, `gpujob teardown {run_id}` ends it"
    )


def finish(run: Run) -> None:
    """Say how the run ended. Raises RunEnded with its exit code unless it succeeded."""
    click.echo(ending_text(run, make_clock().now()))
    outcome = run.outcome
    if outcome and outcome.code != "done":
        raise RunEnded(
            f"{run.id} {run.state}: {outcome.reason}",
            EXIT_CODES.get(outcome.code, 1),
            hint=f"`gpujob logs {run.id}` shows what the trainer said, `gpujob checkpoints"
            f" {run.id}` what is here",
        )
