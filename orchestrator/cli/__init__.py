"""The command line. Each verb is a module that loads when it is called and not before."""

from __future__ import annotations

import sys

import click

from orchestrator.cli.lazy import LazyGroup
from orchestrator.errors import GpujobError
from orchestrator.version import VERSION

VERBS = {
    "launch": "Plan a job, show what it costs, and run it.",
    "plan": "Show what a job would do and cost; works without a network.",
    "rehearse": "The whole job on this machine, small and for nothing; says what it proved.",
    "init": "Write a job file from a template or from a script of yours.",
    "watch": "Show a run live; starts the daemon if none runs.",
    "pull": "Put a checkpoint, verified, where you want it.",
    "teardown": "Bring home what is missing, end everything the run rents, and prove it.",
    "approve": "Let a run go on that waits for a person, or end it.",
    "ps": "List the runs.",
    "checkpoints": "List a run's checkpoints and where each one is.",
    "events": "Print what happened in a run.",
    "logs": "Print what the trainer printed.",
    "cost": "Show what a run costs, by instance and by attempt.",
    "attach": "Look at the trainer in its tmux on the box.",
    "offers": "List what there is to rent, cheapest first.",
    "doctor": "Say what is missing on this machine or account, and what to do.",
    "gc": "Find instances that bill and should not; --yes ends them.",
    "schema": "Print the JSON Schema of the job file.",
    "daemon": "Run the daemon in the foreground (it starts by itself when needed).",
}
ALIASES = {"down": "teardown"}


@click.group(cls=LazyGroup, verbs=VERBS, aliases=ALIASES)
@click.version_option(VERSION, prog_name="gpujob")
def cli() -> None:
    """Run GPU training jobs on rented instances; never lose a checkpoint or leak a dollar.

    \b
    gpujob launch full.yaml        gpujob watch
    gpujob pull checkpoint-500     gpujob teardown
    """


def main() -> None:
    """The one door out: every error becomes a message, a hint and an exit code."""
    try:
        code = cli.main(prog_name="gpujob", standalone_mode=False)
    except click.exceptions.Exit as error:
        code = error.exit_code
    except click.ClickException as error:
        error.show()
        code = 2
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted; nothing was changed", err=True)
        code = 130
    except BrokenPipeError:
        # The reader of a pipe has seen enough; Python would complain at exit.
        sys.stderr.close()
        code = 0
    except GpujobError as error:
        click.echo(f"error: {error.message}", err=True)
        if error.hint:
            click.echo(f"\nhint: {error.hint}", err=True)
        code = error.exit_code
    sys.exit(code if isinstance(code, int) else 0)
