"""`gpujob attach`: the trainer's own terminal, in tmux on the box."""

from __future__ import annotations

import os
import sys

import click

from orchestrator.cli.home import choose_run, settings
from orchestrator.errors import GpujobError, NotFound
from orchestrator.wiring.ledger import open_ledger
from orchestrator.wiring.worlds import attach_command


@click.command()
@click.argument("run", required=False)
@click.option("--keys", is_flag=True, help="Send keys too: Ctrl-C then reaches the trainer.")
def command(run: str | None, keys: bool) -> None:
    """Look at the trainer of RUN in its tmux; Ctrl-B D leaves, and the trainer goes on."""
    config = settings()
    found = choose_run(open_ledger(config), run)
    instance = found.instance
    if instance is None or instance.port is None:
        raise NotFound(f"{found.id} has no box to attach to now", hint=f"`gpujob watch {found.id}`")
    if not sys.stdin.isatty():
        raise GpujobError(
            "attach needs a terminal", hint=f"`gpujob logs {found.id}` prints the log"
        )
    words = attach_command(config, found.id, instance, keys=keys)
    os.execvp(words[0], words)
