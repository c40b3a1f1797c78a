"""`gpujob pull`: one checkpoint, verified, in its place or where it is asked for."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.cli.background import ensure_daemon
from orchestrator.cli.follow import follow
from orchestrator.cli.home import choose_run, is_interactive, settings
from orchestrator.core.choose import choose_checkpoint, in_phase, split_wanted
from orchestrator.core.files import choose_files
from orchestrator.core.holdings import is_stored
from orchestrator.core.run import Run, Seal
from orchestrator.core.where import can_come
from orchestrator.errors import IntegrityError, NotFound
from orchestrator.ports import Held, Ledger
from orchestrator.settings import Settings
from orchestrator.views.bar import Bar
from orchestrator.views.words import size
from orchestrator.wiring.homes import copy_published, fetch_ended, find_published, verify_published
from orchestrator.wiring.ledger import make_clock, open_ledger


@click.command()
@click.argument("checkpoint")
@click.option("--to", type=click.Path(path_type=Path), help="Put a copy here.")
@click.option(
    "--files",
    default="all",
    metavar="all|weights|GLOB",
    help="Copy these alone; weights leave optimizer and random state out. With --to.",
)
@click.option("--plain", is_flag=True, help="Lines only, no bar.")
def command(checkpoint: str, to: Path | None, files: str, plain: bool) -> None:
    """Put CHECKPOINT, verified, in the mirror folder or, with --to, where you want it.

    \b
    CHECKPOINT is [RUN:][PHASE/]checkpoint-500, 500, latest, best or final;
    the run is this folder's newest unless it is named. `best` goes by the metric of
    checkpoints.keep.best, else by eval_loss, else by loss.
    A pull that broke goes on where it was; what is there already, intact, is success.
    """
    if files != "all" and to is None:
        raise click.UsageError("--files needs --to: the mirror folder holds whole checkpoints")
    config = settings()
    ledger = open_ledger(config)
    run_name, phase, wanted = split_wanted(checkpoint)
    run = choose_run(ledger, run_name)
    seal = choose_checkpoint(in_phase(run, phase), wanted)
    live = is_interactive() and not plain
    try:
        words = _deliver(_bring(config, ledger, run, seal, live), to, files, live)
    except IntegrityError as error:
        run = _ask_again(config, ledger, run, seal, error, live)
        words = _deliver(_bring(config, ledger, run, seal, live), to, files, live)
    click.echo(words)


def _bring(config: Settings, ledger: Ledger, run: Run, seal: Seal, live: bool) -> Held:
    """The checkpoint as it is published here; of a live run it is waited for. Raises
    IntegrityError when it was here and is not any more."""
    if seal.digest not in run.mirrored:
        run = _wait_for(config, ledger, run, seal, live)
    place = Path(run.mirrored[seal.digest])
    held = find_published(place.parent, seal.digest, str(place))
    if held is None:
        raise IntegrityError(f"{run.mirrored[seal.digest]} is gone")
    return held


def _deliver(held: Held, to: Path | None, files: str, live: bool) -> str:
    """Verified in place, or copied; what was done, in words."""
    paths = choose_files([each.path for each in held.manifest.files], files)
    total = sum(each.size for each in held.manifest.files if each.path in paths)
    clock = make_clock()
    label = f"{'verifying' if to is None else 'copying'} {held.path.name}"
    with Bar(label, total, live=live, time_s=clock.monotonic) as bar:
        if to is not None:
            fresh = copy_published(held, to, paths, bar.add)
            return f"{to}  ({size(total)}, {'copied and ' if fresh else ''}verified)"
        problems = verify_published(held, bar.add)
    if problems:
        raise IntegrityError(f"{held.path} is not what was verified: {problems[0]}")
    return f"{held.path}  ({size(total)}, verified)"


def _ask_again(
    config: Settings, ledger: Ledger, run: Run, seal: Seal, error: IntegrityError, live: bool
) -> Run:
    """What is damaged here may be whole elsewhere: it is fetched once more, beside the damaged
    copy. Raises IntegrityError when nobody has it any more."""
    if is_stored(run, seal) and not can_come(run, seal):
        click.echo(f"{error.message.rstrip('.')}; it is fetched from S3", err=True)
        return _from_store(config, ledger, run, seal, live)
    if not can_come(run, seal):
        raise IntegrityError(
            error.message,
            hint="nobody else has it any more: restore the folder from a copy of yours, or take "
            f"another one (`gpujob checkpoints {run.id}`); nothing was changed",
        ) from error
    click.echo(f"{error.message.rstrip('.')}; it is fetched again", err=True)
    ledger.append(run.id, "requested.fetch", {"name": seal.name, "digest": seal.digest})
    return ledger.run(run.id)


def _wait_for(config: Settings, ledger: Ledger, run: Run, seal: Seal, live: bool) -> Run:
    """A live run brings it home by itself: wait. Of an ended one, what is in S3 can be had."""
    if is_stored(run, seal) and not can_come(run, seal):
        return _from_store(config, ledger, run, seal, live)
    if not can_come(run, seal) or (seal.failed and not is_stored(run, seal)):
        raise NotFound(_never(run, seal), hint=f"`gpujob checkpoints {run.id}` shows what is here")
    ensure_daemon(config)
    run = follow(
        config,
        ledger,
        run.id,
        until=lambda now: seal.digest in now.mirrored or not can_come(now, seal),
        live=live,
        after=run.seq,
    )
    return run if seal.digest in run.mirrored else _wait_for(config, ledger, run, seal, live)


def _from_store(config: Settings, ledger: Ledger, run: Run, seal: Seal, live: bool) -> Run:
    clock, done = make_clock(), 0
    with Bar(f"fetching {seal.name}", seal.size_bytes, live=live, time_s=clock.monotonic) as bar:

        def told(size_bytes: int) -> None:
            nonlocal done
            bar.add(size_bytes - done)
            done = size_bytes

        return fetch_ended(config, ledger, run, seal, told)


def _never(run: Run, seal: Seal) -> str:
    if seal.digest in run.pruned:
        return f"{seal.name} of {run.id} was let go by checkpoints.keep"
    if seal.failed:
        return f"{seal.name} of {run.id} was refused: {seal.failed}"
    return f"nobody has {seal.name} of {run.id} any more: it went down with {seal.instance}"
