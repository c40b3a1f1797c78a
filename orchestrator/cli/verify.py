"""`gpujob checkpoints verify`: every byte in the mirror, read again with all cores."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.cli.home import choose_run, emit, is_interactive, json_option, settings
from orchestrator.core.phases import prunable_of
from orchestrator.core.plan import Plan, read_plan
from orchestrator.core.run import Run
from orchestrator.errors import IntegrityError
from orchestrator.ports import Held
from orchestrator.views.bar import Bar
from orchestrator.views.verify import Verdict, advice, verdict_record, verdicts_text
from orchestrator.wiring.homes import all_published, verify_published
from orchestrator.wiring.ledger import make_clock, open_ledger


@click.command()
@click.argument("run", required=False)
@click.option("--plain", is_flag=True, help="Lines only, no bar.")
@json_option
def command(run: str | None, plain: bool, as_json: bool) -> None:
    """Hash every published checkpoint of RUN (default: this folder's newest) again.

    Names each file and chunk that is not what was verified, and who still has it. Exit code 7
    when one is damaged; nothing is changed.
    """
    ledger = open_ledger(settings())
    found = choose_run(ledger, run)
    held = _published(found)
    total = sum(each.manifest.size_bytes for each in held)
    live, clock = is_interactive() and not plain, make_clock()
    with Bar("verifying", total, live=live, time_s=clock.monotonic) as bar:
        verdicts = [_examine(each, bar) for each in held]
    # A live run goes on meanwhile: more has come, and some was let go.
    found, plan = ledger.run(found.id), read_plan(ledger.plan(found.id))
    verdicts += _gone(found, _published(found))
    verdicts = [each for each in verdicts if not was_let_go(found, plan, each)]
    records = (verdict_record(found, each) for each in verdicts)
    emit(as_json, verdicts_text(found, verdicts), records)
    bad = [each for each in verdicts if each.problems]
    if bad:
        raise IntegrityError(
            f"{len(bad)} of {len(verdicts)} checkpoints of {found.id} are not what was verified",
            hint=advice(found, bad[0]),
        )


def _examine(each: Held, bar: Bar) -> Verdict:
    problems = verify_published(each, bar.add)
    size_bytes = each.manifest.size_bytes
    return Verdict(
        each.path.name, str(each.path), each.manifest.digest, size_bytes, tuple(problems)
    )


def _published(run: Run) -> list[Held]:
    """Of every phase that has begun."""
    folders = dict.fromkeys(phase.mirror for phase in run.phases if phase.mirror)
    return [each for folder in folders or (run.mirror,) for each in all_published(Path(folder))]


def was_let_go(run: Run, plan: Plan, verdict: Verdict) -> bool:
    """Whether it is not there because `checkpoints.keep` says so: on record, or in a moment."""
    going = set(run.pruned)
    for serial in range(run.serial + 1):
        index = run.phases[serial].index if run.phases else 0
        keep = plan.phases[index].checkpoints.keep
        going |= {seal.digest for seal in prunable_of(run, serial, keep, plan.stages)}
    return verdict.digest in going and not Path(verdict.path).exists()


def _gone(run: Run, held: list[Held]) -> list[Verdict]:
    """What the ledger says is here, and is not."""
    there = {each.manifest.digest for each in held}
    sizes = {seal.digest: seal.size_bytes for seal in run.seals}
    return [
        Verdict(Path(path).name, path, digest, sizes.get(digest, 0), ("the folder is gone",))
        for digest, path in run.mirrored.items()
        if digest not in there
    ]
