"""`gpujob pull`: one checkpoint, verified, in its place or where it is asked for."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.cli.background import ensure_daemon
from orchestrator.cli.follow import follow
from orchestrator.cli.home import choose_run, is_interactive, settings
from orchestrator.core.choose import choose_checkpoint, split_wanted
from orchestrator.core.run import Run, Seal
from orchestrator.errors import IntegrityError, NotFound
from orchestrator.ports import Ledger
from orchestrator.settings import Settings
from orchestrator.views.words import size
from orchestrator.wiring import copy_published, find_published, open_ledger, verify_published


@click.command()
@click.argument("checkpoint")
@click.option("--to", type=click.Path(path_type=Path), help="Put a copy here.")
def command(checkpoint: str, to: Path | None) -> None:
    """Put CHECKPOINT, verified, in the mirror folder or, with --to, where you want it.

    \b
    CHECKPOINT is [RUN:]checkpoint-500, 500, latest or final;
    the run is this folder's newest unless it is named.
    """
    config = settings()
    ledger = open_ledger(config)
    run_name, wanted = split_wanted(checkpoint)
    run = choose_run(ledger, run_name)
    seal = choose_checkpoint(run, wanted)
    if seal.digest not in run.mirrored:
        run = _wait_for(config, ledger, run, seal)
    held = find_published(Path(run.mirror), seal.digest)
    problems = verify_published(held) if held else [f"{run.mirrored[seal.digest]} is gone"]
    if held is None or problems:
        raise IntegrityError(
            f"{seal.name} is not what was verified: {problems[0]}",
            hint="restore the folder from a copy of yours; nothing else was changed",
        )
    if to is None:
        click.echo(f"{held.path}  ({size(seal.size_bytes)}, verified)")
        return
    fresh = copy_published(held, to)
    click.echo(f"{to}  ({size(seal.size_bytes)}, {'copied and ' if fresh else ''}verified)")


def _wait_for(config: Settings, ledger: Ledger, run: Run, seal: Seal) -> Run:
    """A live run brings it home by itself: wait. An ended one never will."""
    if not _reachable(run, seal):
        raise NotFound(
            f"{seal.name} of {run.id} went down with {seal.instance} before it was here",
            hint=f"`gpujob checkpoints {run.id}` shows what is here",
        )
    ensure_daemon(config)
    run = follow(
        config,
        ledger,
        run.id,
        until=lambda now: seal.digest in now.mirrored or not _reachable(now, seal),
        live=is_interactive(),
        after=run.seq,
    )
    return run if seal.digest in run.mirrored else _wait_for(config, ledger, run, seal)


def _reachable(run: Run, seal: Seal) -> bool:
    instance = run.find_instance(seal.instance)
    return not (run.terminal or instance.lost or instance.gone_at or seal.failed)
